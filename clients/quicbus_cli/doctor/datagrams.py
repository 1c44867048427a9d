"""What becomes of one datagram: a probe that every QUIC listener answers, whatever its version, and no other does.

A long header of a version that nobody speaks (RFC 9000 section 15 keeps 0x?a?a?a?a for it) makes a listener name its
versions (section 6). It needs no credential, leaves nothing behind at the listener, and may have any size from 1,200
bytes on, so that it also measures what the path lets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quicbus.transport.connection import Address

__all__ = ["Answer", "Outcome", "make_probe", "probe", "read_versions"]

PROBE_SIZE = 1200
"""A listener answers nothing smaller (RFC 9000 section 14.1)."""
UNSPOKEN_VERSION = 0x1A2A3A4A
FIRST_REPEAT_S = 0.25
_DONT_FRAGMENT = {
    # linux/in.h and in6.h: IP_MTU_DISCOVER and IPV6_MTU_DISCOVER; 3 is IP_PMTUDISC_PROBE, as the transport has it.
    "linux": ((socket.IPPROTO_IP, 10, 3), (socket.IPPROTO_IPV6, 23, 3)),
    "darwin": ((socket.IPPROTO_IP, 28, 1), (socket.IPPROTO_IPV6, 62, 1)),
    "win32": ((socket.IPPROTO_IP, 14, 1), (socket.IPPROTO_IPV6, 14, 1)),
}


class Outcome(Enum):
    QUIC = "a QUIC listener answered"
    OTHER = "something answered that is no QUIC"
    SILENT = "nothing came back"
    REFUSED = "the host said that nobody listens on this port"
    UNREACHABLE = "there is no way there from here"
    TOO_LARGE = "this host's interface takes no datagram of this size"


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one probe. Sizes are those of the UDP payload."""

    outcome: Outcome
    size: int
    rtt_s: float = 0.0
    versions: tuple[int, ...] = ()
    reason: str = ""
    """What the system says about `UNREACHABLE`."""
    is_whole: bool = True
    """The datagram could not be fragmented on its way; `False` where the system can't promise that."""


def make_probe(source_id: bytes, size: int = PROBE_SIZE) -> bytes:
    """Return a datagram of `size` bytes that asks a QUIC listener for its versions (RFC 8999 section 5.1)."""
    version = UNSPOKEN_VERSION.to_bytes(4, "big")
    destination_id = secrets.token_bytes(8)
    header = b"\xc0" + version + bytes((8,)) + destination_id + bytes((len(source_id),)) + source_id
    return header.ljust(size, b"\0")


def read_versions(datagram: bytes, source_id: bytes) -> tuple[int, ...] | None:
    """Return the versions in an answer to the probe with `source_id`; `None` for anything else (RFC 8999 section 6)."""
    if len(datagram) < 7 or not datagram[0] & 0x80 or datagram[1:5] != b"\0\0\0\0":
        return None
    end = 6 + datagram[5]
    if datagram[6:end] != source_id or end >= len(datagram):
        return None
    versions = datagram[end + 1 + datagram[end] :]
    if not versions or len(versions) % 4:
        return None
    return tuple(int.from_bytes(versions[i : i + 4], "big") for i in range(0, len(versions), 4))


async def probe(address: Address, timeout_s: float, size: int = PROBE_SIZE) -> Answer:
    """Send a probe, again and again at growing intervals, until something comes back or the time is over.

    Raises nothing; cancelling closes the socket.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    source_id = secrets.token_bytes(8)
    try:
        udp, is_whole = _open(family, address)
    except OSError as error:
        return Answer(Outcome.UNREACHABLE, size, reason=_reason(error))
    try:
        transport, listening = await loop.create_datagram_endpoint(lambda: _Listening(source_id), sock=udp)
    except BaseException:
        udp.close()
        raise
    try:
        began = time.perf_counter()
        outcome, versions, reason = await _ask(transport, listening, make_probe(source_id, size), timeout_s)
        return Answer(outcome, size, time.perf_counter() - began, versions, reason, is_whole)
    finally:
        transport.abort()


class _Listening(asyncio.DatagramProtocol):
    def __init__(self, source_id: bytes) -> None:
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.source_id = source_id

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.answered.done():
            self.answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc)


async def _ask(
    transport: asyncio.DatagramTransport, listening: _Listening, datagram: bytes, timeout_s: float
) -> tuple[Outcome, tuple[int, ...], str]:
    try:
        async with asyncio.timeout(timeout_s):
            pause_s = FIRST_REPEAT_S
            while True:
                transport.sendto(datagram)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        data = await asyncio.shield(listening.answered)
                        break
                pause_s *= 2
    except TimeoutError:
        return Outcome.SILENT, (), ""
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return Outcome.TOO_LARGE, (), _reason(error)
        refused = isinstance(error, ConnectionError)
        return (Outcome.REFUSED if refused else Outcome.UNREACHABLE), (), _reason(error)
    finally:
        if not listening.answered.done():
            listening.answered.cancel()
        elif not listening.answered.cancelled():
            listening.answered.exception()
    versions = read_versions(data, listening.source_id)
    return (Outcome.OTHER, (), "") if versions is None else (Outcome.QUIC, versions, "")


def _open(family: socket.AddressFamily, address: Address) -> tuple[socket.socket, bool]:
    """Return a connected socket, which is told of ICMP errors, and whether it never fragments."""
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        is_whole = False
        for level, option, value in _DONT_FRAGMENT.get(sys.platform, ()):
            if (level == socket.IPPROTO_IPV6) == (family == socket.AF_INET6):
                with contextlib.suppress(OSError):
                    udp.setsockopt(level, option, value)
                    is_whole = True
        resolved = socket.getaddrinfo(*address, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        udp.connect(resolved[0][4])
    except BaseException:
        udp.close()
        raise
    return udp, is_whole


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
