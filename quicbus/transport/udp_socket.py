"""UDP on Linux: whole GRO buffers in, GSO groups out, answers from the address that was dialed, errors by address."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
import sys
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from quicbus.transport.counters import total_size
from quicbus.transport.network import Path, is_this_host, plain_address, source_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quicbus.transport.connection import Address
    from quicbus.transport.counters import Counters
    from quicbus.transport.network import DatagramReceiver

__all__ = ["BoundUdp", "UdpNetwork", "UdpSocket", "bind_udp", "segment_groups"]

# linux/udp.h, linux/in.h, linux/in6.h: the socket module of Python 3.11 lacks most of them.
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_RECVERR: Final = 11
IPV6_MTU_DISCOVER: Final = 23
IPV6_RECVERR: Final = 25
IPV6_RECVPKTINFO: Final = 49
IPV6_PKTINFO: Final = 50
PMTUDISC_PROBE: Final = 3
MSG_ERRQUEUE: Final = 0x2000
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

SOCKET_BUFFER_SIZE: Final = 8 * 1024 * 1024
"""Asked for; the system may give less. A burst that does not fit is lost, and a loss halves a connection's rate."""
MAX_READS: Final = 512
MAX_READ_SIZE: Final = 1024 * 1024
"""Of one turn, at 4 us a read: other connections' timers and the application get the loop after it."""
IDLE_AFTER_S: Final = 0.000_1
"""Without a datagram. Then a small lone one is served before a look whether there is another: to learn that there is
none takes as long as a send, as it is an exception. A burst that begins with such a one takes one turn more."""
SMALL_SIZE: Final = 1000
"""Bytes. Larger ones are mostly parts of a burst."""
MAX_WRITES: Final = 64
"""Of one turn, likewise, of what the system did not take at once."""
MAX_UNSENT_SIZE: Final = 4 * 1024 * 1024
"""What waits while the system takes no more; then the oldest is dropped, as a full router would."""
MAX_SEGMENTS: Final = 64
MAX_GROUP_SIZE: Final = 65_000
"""A GSO send has at most 64 segments on older kernels, and has to fit one UDP packet of IPv6 (65,487 bytes)."""
MAX_KNOWN_PATHS: Final = 4096
READ_SIZE: Final = 65_535
ANCILLARY_SIZE: Final = 128
MAX_ERRORS_READ: Final = 256
ORIGIN_ICMP: Final = (2, 3)
UNREACHABLE: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
NO_WAY: Final = UNREACHABLE | {errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM}
"""What the system answers to a send where it has no way to that peer, or its firewall closes it."""

_INT: Final = struct.Struct("i")
_SEGMENT: Final = struct.Struct("H")
_EXTENDED_ERROR: Final = struct.Struct("=IBBBBII")


class UdpNetwork:
    """UDP sockets of this host. `offload=False` leaves GRO and GSO alone, as on a kernel without them."""

    def __init__(self, *, offload: bool = True) -> None:
        self._offload = offload

    async def open(self, bind: Address | None, receiver: DatagramReceiver, counters: Counters) -> UdpSocket:
        return UdpSocket(bind_udp(bind), receiver, counters, offload=self._offload, is_dialed=bind is not None)


class BoundUdp:
    """A `Network` of one socket that is bound already, as `bind_udp` binds it."""

    def __init__(self, udp: socket.socket) -> None:
        self._udp = udp

    async def open(self, bind: Address | None, receiver: DatagramReceiver, counters: Counters) -> UdpSocket:
        return UdpSocket(self._udp, receiver, counters)


def bind_udp(bind: Address | None, *, is_shared: bool = False) -> socket.socket:
    """Open and bind a non-blocking UDP socket: dual-stack for `::`, and for `None` where the host has IPv6.

    `is_shared`: others of this user may bind the same port likewise, and get their part of what arrives (Linux).
    """
    if bind is None:
        try:
            return _bind(socket.AF_INET6, ("::", 0))
        except OSError:
            return _bind(socket.AF_INET, ("0.0.0.0", 0))  # noqa: S104 (to dial from)
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    if bind[0] == "::":
        try:
            return _bind(family, bind, is_shared=is_shared)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise
            return _bind(socket.AF_INET, ("0.0.0.0", bind[1]), is_shared=is_shared)  # noqa: S104 (asked for as `::`)
    return _bind(family, bind, is_shared=is_shared)


def _bind(family: socket.AddressFamily, address: Address, *, is_shared: bool = False) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        if is_shared:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        for forced, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            if not (sys.platform == "linux" and _try_option(udp, socket.SOL_SOCKET, forced, SOCKET_BUFFER_SIZE)):
                _try_option(udp, socket.SOL_SOCKET, plain, SOCKET_BUFFER_SIZE)
        # A scope ("fe80::1%eth0") is resolved by getaddrinfo alone.
        resolved = socket.getaddrinfo(*address, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        udp.bind(resolved[0][4])
    except BaseException:
        udp.close()
        raise
    return udp


def _try_option(udp: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        udp.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def segment_groups(
    datagrams: list[bytes], max_segments: int = MAX_SEGMENTS, max_size: int = MAX_GROUP_SIZE
) -> Iterator[list[bytes]]:
    """Cut datagrams, in order, into groups that one send with UDP_SEGMENT takes: equal sizes, the last may be less."""
    start, count = 0, len(datagrams)
    while start < count:
        size = len(datagrams[start])
        most = min(count, start + max(1, min(max_segments, max_size // max(1, size))))
        end = start + 1
        while end < most and len(datagrams[end]) == size:
            end += 1
        if end < most and len(datagrams[end]) < size:
            end += 1
        yield datagrams[start:end]
        start = end


class UdpSocket:
    """A `DatagramSocket` on Linux. `is_dialed`: peers know its address, and answers leave from what they dialed."""

    def __init__(
        self,
        udp: socket.socket,
        receiver: DatagramReceiver,
        counters: Counters,
        *,
        offload: bool = True,
        is_dialed: bool = True,
    ) -> None:
        self._socket = udp
        self._receiver = receiver
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._is_ipv6 = udp.family == socket.AF_INET6
        self._bound = udp.getsockname()
        self._wants_source = is_dialed and self._bound[0] in {"::", "0.0.0.0"}  # noqa: S104 (compared, not bound)
        self._paths: dict[tuple[Any, bytes | None], Path] = {}
        self._near: dict[str, bool] = {}
        self._unsent: deque[tuple[Path, list[bytes], int]] = deque()
        self._unsent_size = 0
        self._all_sent = asyncio.Event()
        self._idle_from = 0.0
        self._set_options(offload)
        self._can_segment = offload and _try_option(udp, SOL_UDP, UDP_SEGMENT, 0)
        # libuv, and with it uvloop, ends its watch of a socket at the first POLLERR (`uv__poll_io`): every crashed peer
        # causes one with IP_RECVERR. Behind an epoll of its own an error shows as readiness, as with asyncio's loop.
        self._readable = _watch(udp, select.EPOLLIN)
        self._writable = _watch(udp, select.EPOLLOUT)
        self._loop.add_reader(self._readable.fileno(), self._on_readable)

    def _set_options(self, offload: bool) -> None:
        options = [(socket.IPPROTO_IP, IP_RECVERR, 1), (socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)]
        if self._is_ipv6:
            options.append((socket.IPPROTO_IPV6, IPV6_RECVERR, 1))
            options.append((socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE))
        if self._wants_source:  # A dual-stack socket tells IPv4 addresses as mapped ones, in IPV6_PKTINFO.
            level, option = (
                (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO) if self._is_ipv6 else (socket.IPPROTO_IP, IP_PKTINFO)
            )
            options.append((level, option, 1))
        if offload:
            options.append((SOL_UDP, UDP_GRO, 1))
        for level, option, value in options:
            _try_option(self._socket, level, option, value)

    # --- the seam ---------------------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        return plain_address(self._bound)

    @property
    def can_segment(self) -> bool:
        """Whether the kernel takes several datagrams in one send; turns false for good once it refuses."""
        return self._can_segment

    def path_to(self, address: Address) -> Path:
        host, port = address
        family = socket.AF_INET6 if self._is_ipv6 else socket.AF_INET
        # AI_V4MAPPED alone maps only names without any IPv6 address; numeric ones are mapped here.
        if self._is_ipv6 and ":" not in host:
            host = f"::ffff:{host}"
        try:
            resolved = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            why = f"{address[0]} cannot be reached from {self._bound[0]}: {error.strerror}"
            raise OSError(errno.EAFNOSUPPORT, why) from None
        return self._path(resolved[0][4], None)

    def is_near(self, path: Path) -> bool:
        host = path.address[0]
        near = self._near.get(host)
        if near is None:
            if len(self._near) >= MAX_KNOWN_PATHS:
                self._near.clear()
            near = self._near[host] = is_this_host(host)
        return near

    def source_towards(self, path: Path) -> str:
        return source_address(path.peer)

    def send(self, path: Path, datagrams: list[bytes]) -> None:
        if len(datagrams) == 1:
            groups: Iterable[list[bytes]] = (datagrams,)
        elif self._can_segment:
            groups = segment_groups(datagrams)
        else:
            groups = ([datagram] for datagram in datagrams)
        for group in groups:
            if self._unsent or not self._send_group(path, group):
                self._keep(path, group)

    async def wait_sent(self) -> None:
        if self._unsent:
            self._all_sent.clear()
            await self._all_sent.wait()

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        for watch in (self._readable, self._writable):
            self._loop.remove_reader(watch.fileno())
            watch.close()
        self._socket.close()
        self._unsent.clear()
        self._unsent_size = 0
        self._all_sent.set()

    # --- sending ----------------------------------------------------------------------------------------------------

    def _send_group(self, path: Path, group: list[bytes]) -> bool:
        """Hand a group to the system. Returns whether it is done with, sent or not; `False`: try again later."""
        ancillary: list[tuple[int, int, bytes]] = []
        if len(group) > 1:
            ancillary.append((SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(len(group[0]))))
        if path.local is not None:
            ancillary.append(path.local)
        for _ in range(2):
            try:
                if ancillary:
                    self._socket.sendmsg(group, ancillary, 0, path.peer)
                else:  # In a process that was asleep the lists of `sendmsg` cost a third more.
                    self._socket.sendto(group[0], path.peer)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in UNREACHABLE and self._read_errors():
                    continue  # An earlier datagram's error, perhaps of another peer: this one was not sent.
                if len(group) > 1:
                    return self._send_singly(path, group, error)
                self._counters.fail_send(errno.errorcode.get(error.errno or 0, "unknown"))
                if error.errno in NO_WAY:
                    self._receiver.unreachable(path.peer, os.strerror(error.errno).lower())
                return True
            except ValueError:  # The socket is closed.
                return True
            return True
        self._counters.fail_send("ECONNREFUSED", len(group))
        return True

    def _send_singly(self, path: Path, group: list[bytes], error: OSError) -> bool:
        failed_before = sum(self._counters.send_errors.values())
        for index, datagram in enumerate(group):
            if not self._send_group(path, [datagram]):
                self._keep(path, group[index:])
                break
        # EIO: the driver cannot checksum segments; EINVAL: no UDP_SEGMENT. Datagrams over the MTU fail alone too.
        if error.errno in {errno.EIO, errno.EINVAL} and sum(self._counters.send_errors.values()) == failed_before:
            self._can_segment = False
        return True

    def _keep(self, path: Path, group: list[bytes]) -> None:
        if not self._unsent:
            self._loop.add_reader(self._writable.fileno(), self._on_writable)
        size = total_size(group)
        self._unsent.append((path, group, size))
        self._unsent_size += size
        while self._unsent_size > MAX_UNSENT_SIZE:
            _, dropped, dropped_size = self._unsent.popleft()
            self._unsent_size -= dropped_size
            self._counters.fail_send("queue_full", len(dropped))

    def _on_writable(self) -> None:
        for _ in range(MAX_WRITES):
            if not self._unsent:
                break
            path, group, size = self._unsent[0]
            if not self._send_group(path, group):
                return
            self._unsent.popleft()
            self._unsent_size -= size
        if not self._unsent:
            self._loop.remove_reader(self._writable.fileno())
            self._all_sent.set()

    # --- receiving --------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        recvmsg, received = self._socket.recvmsg, self._receiver.received
        left, is_behind = MAX_READ_SIZE, True
        was_idle = monotonic() >= self._idle_from
        for count in range(MAX_READS):
            try:
                buffer, ancillary, _, sockaddr = recvmsg(READ_SIZE, ANCILLARY_SIZE)
            except (BlockingIOError, InterruptedError):
                if not count:  # While the error queue holds anything the socket is readable.
                    self._read_errors()
                is_behind = False
                break
            except OSError:
                if not self._read_errors():
                    is_behind = False
                    break
                continue
            segment_size, local = len(buffer), None
            for level, kind, data in ancillary:
                if level == SOL_UDP and kind == UDP_GRO:
                    segment_size = _INT.unpack(data)[0]
                else:
                    local = data
            path = self._paths.get((sockaddr, local)) or self._path(sockaddr, local)
            received(buffer, segment_size, path)
            size = len(buffer)
            if was_idle and segment_size == size <= SMALL_SIZE:
                is_behind = False
                break
            left -= size
            if left <= 0 or self._socket.fileno() < 0:
                break
        self._receiver.turn_ended(is_behind=is_behind)
        self._idle_from = monotonic() + IDLE_AFTER_S

    def _read_errors(self) -> bool:
        """Empty the error queue. Returns whether there was anything in it."""
        for count in range(MAX_ERRORS_READ):
            try:
                _, ancillary, _, sockaddr = self._socket.recvmsg(1, 512, MSG_ERRQUEUE)
            except OSError:
                return count > 0
            for _, kind, data in ancillary:
                if kind in {IP_RECVERR, IPV6_RECVERR} and len(data) >= _EXTENDED_ERROR.size:
                    number, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
                    if origin in ORIGIN_ICMP and number in UNREACHABLE:
                        self._receiver.unreachable(sockaddr, os.strerror(number).lower())
        return True

    def _path(self, sockaddr: Any, received_at: bytes | None) -> Path:
        if len(self._paths) >= MAX_KNOWN_PATHS:
            self._paths.clear()
        local = None if received_at is None else _leave_from(received_at)
        path = self._paths[sockaddr, received_at] = Path(plain_address(sockaddr), sockaddr, local)
        return path


def _watch(udp: socket.socket, event: int) -> select.epoll:
    watch = select.epoll()
    watch.register(udp, event)
    return watch


def _leave_from(received_at: bytes) -> tuple[int, int, bytes]:
    """Turn the packet information of what arrived into that of the answer.

    The interface is named only for link-local addresses: elsewhere routing finds the way, also when it changes.
    """
    if len(received_at) == 12:  # struct in_pktinfo: interface, local address, address in the header
        return socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + received_at[4:8] + bytes(4)
    is_link_local = received_at[0] == 0xFE and received_at[1] & 0xC0 == 0x80
    return socket.IPPROTO_IPV6, IPV6_PKTINFO, received_at[:16] + (received_at[16:20] if is_link_local else bytes(4))
