"""UDP wherever asyncio runs: for macOS and Windows, whose event loops may not tell when a socket can be read."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any, Protocol, cast

from quicbus.transport.network import Path, is_this_host, plain_address, source_address
from quicbus.transport.udp_socket import MAX_KNOWN_PATHS, MAX_READ_SIZE, MAX_UNSENT_SIZE, bind_udp

if TYPE_CHECKING:
    from quicbus.transport.connection import Address
    from quicbus.transport.counters import Counters
    from quicbus.transport.network import DatagramReceiver

__all__ = ["AsyncioDatagramSocket", "AsyncioNetwork"]


class AsyncioNetwork:
    """UDP sockets by `loop.create_datagram_endpoint`: a call a datagram, and answers leave from where they may."""

    async def open(self, bind: Address | None, receiver: DatagramReceiver, counters: Counters) -> AsyncioDatagramSocket:
        udp = bind_udp(bind)
        loop = asyncio.get_running_loop()
        try:
            _, opened = await loop.create_datagram_endpoint(
                lambda: AsyncioDatagramSocket(udp, receiver, counters, loop), sock=udp
            )
        except BaseException:
            udp.close()
            raise
        return opened


class _Transport(Protocol):
    """asyncio's datagram transports have `get_write_buffer_size`, which its type hints leave out."""

    def sendto(self, data: bytes, addr: Any = None) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class AsyncioDatagramSocket(asyncio.DatagramProtocol):
    """A `DatagramSocket` on an asyncio transport. Datagrams gather until the loop has read what there is."""

    def __init__(
        self,
        udp: socket.socket,
        receiver: DatagramReceiver,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._is_ipv6 = udp.family == socket.AF_INET6
        self._bound = udp.getsockname()
        self._receiver = receiver
        self._counters = counters
        self._loop = loop
        self._transport: _Transport | None = None
        self._paths: dict[Any, Path] = {}
        self._near: dict[str, bool] = {}
        self._arrived: list[tuple[bytes, Path]] = []
        self._arrived_size = 0
        self._lost = asyncio.Event()

    @property
    def address(self) -> Address:
        return plain_address(self._bound)

    def path_to(self, address: Address) -> Path:
        host, port = address
        if self._is_ipv6 and ":" not in host:
            host = f"::ffff:{host}"
        family = socket.AF_INET6 if self._is_ipv6 else socket.AF_INET
        try:
            resolved = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            why = f"{address[0]} cannot be reached from {self._bound[0]}: {error.strerror}"
            raise OSError(errno.EAFNOSUPPORT, why) from None
        return self._path(resolved[0][4])

    def is_near(self, path: Path) -> bool:
        host = path.address[0]
        if host not in self._near:
            if len(self._near) >= MAX_KNOWN_PATHS:
                self._near.clear()
            self._near[host] = is_this_host(host)
        return self._near[host]

    def source_towards(self, path: Path) -> str:
        return source_address(path.peer)

    def send(self, path: Path, datagrams: list[bytes]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for datagram in datagrams:
            # asyncio keeps what the system does not take; the bound is ours.
            if transport.get_write_buffer_size() > MAX_UNSENT_SIZE:
                self._counters.fail_send("queue_full")
            else:
                transport.sendto(datagram, path.peer)

    async def wait_sent(self) -> None:
        # A datagram transport that is closed sends what it holds first, and tells of nothing else.
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.DatagramProtocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("_Transport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self._arrived:
            self._loop.call_soon(self._hand_over)
        self._arrived.append((data, self._paths.get(addr) or self._path(addr)))
        self._arrived_size += len(data)
        if self._arrived_size > MAX_READ_SIZE:
            self._hand_over()

    def error_received(self, exc: Exception) -> None:
        number = exc.errno if isinstance(exc, OSError) else None
        self._counters.fail_send(errno.errorcode.get(number or 0, "unknown"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost.set()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        arrived, self._arrived, self._arrived_size = self._arrived, [], 0
        if not arrived or self._transport is None:
            return
        for datagram, path in arrived:
            self._receiver.received(datagram, len(datagram), path)
        self._receiver.turn_ended()

    def _path(self, sockaddr: Any) -> Path:
        if len(self._paths) >= MAX_KNOWN_PATHS:
            self._paths.clear()
        path = self._paths[sockaddr] = Path(plain_address(sockaddr), sockaddr)
        return path
