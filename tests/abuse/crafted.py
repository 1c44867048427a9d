"""Initial packets made by hand, and one socket that sends them from any address of 127.0.0.0/8 (Linux)."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, Self

from aioquic.buffer import Buffer, size_uint_var  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import pull_quic_header

from quicbus.transport._packets import PacketType, parse_header
from quicbus.transport.engines import engine_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Address
    from quicbus.transport.engine import EngineConfiguration

__all__ = ["FloodSocket", "InitialMaker", "bare_initial", "loopback", "read_retry"]

INITIAL_SIZE = 1200
VERSION = 1
UNKNOWN_VERSION = 0x1A2A3A4A
TAG_SIZE = 16
PACKET_NUMBER_SIZE = 2
IP_PKTINFO = 8
_PKTINFO = struct.Struct("=I4s4s")
RESEND_S = 1.0
FRAME_CONNECTION_CLOSE = 0x1C


def loopback(number: int) -> str:
    """Return one of 16 million loopback addresses; never 127.0.x.y, where the good ones are."""
    return f"127.{1 + number // 65_536 % 250}.{number // 256 % 256}.{number % 256}"


def bare_initial(
    destination: bytes, source: bytes, token: bytes = b"", payload: bytes = b"", version: int = VERSION
) -> bytes:
    """Return what looks like an Initial from outside; its payload is as it is, not encrypted."""
    head = bytes((0xC1,)) + version.to_bytes(4, "big") + bytes((len(destination),)) + destination
    head += bytes((len(source),)) + source + (0x4000 | len(token)).to_bytes(2, "big") + token
    rest = INITIAL_SIZE - len(head) - 2
    return head + (0x4000 | rest).to_bytes(2, "big") + payload[:rest].ljust(rest, b"\x5a")


def read_retry(datagram: bytes) -> tuple[bytes, bytes] | None:
    """Return source id and token of a Retry packet; `None` for any other."""
    header = parse_header(datagram)
    if header is None or header.type is not PacketType.RETRY:
        return None
    return header.source_connection_id, header.token


class InitialMaker:
    """Makes Initials that a listener can decrypt, each with ids and a token of its choice and one real ClientHello."""

    def __init__(self, configuration: EngineConfiguration) -> None:
        first: Any = engine_named("aioquic").dial(configuration)
        first.connect(0.0)
        datagram = first.datagrams_to_send(0.0)[0]
        buffer = Buffer(data=datagram)
        header = pull_quic_header(buffer)
        crypto = CryptoPair()
        # Keys of an Initial follow from its destination id alone (RFC 9001 section 5.2): the listener's open it.
        crypto.setup_initial(header.destination_cid, is_client=False, version=VERSION)
        _, self._payload, _ = crypto.decrypt_packet(datagram[: header.packet_length], buffer.tell(), 0)
        self.source = header.source_cid
        """The ClientHello names it, so that it is the same in all."""

    def hello(self, destination: bytes, token: bytes = b"") -> bytes:
        """Return a first flight."""
        return self._encrypted(self._payload, destination, token, 0)

    def close(self, destination: bytes) -> bytes:
        """Return the end of a connection that has begun with `hello`."""
        return self._encrypted(bytes((FRAME_CONNECTION_CLOSE, 0, 0, 0)), destination, b"", 1)

    def _encrypted(self, payload: bytes, destination: bytes, token: bytes, number: int) -> bytes:
        buffer = Buffer(capacity=INITIAL_SIZE)
        buffer.push_uint8(0xC0 | (PACKET_NUMBER_SIZE - 1))
        buffer.push_uint32(VERSION)
        for identifier in (destination, self.source):
            buffer.push_uint8(len(identifier))
            buffer.push_bytes(identifier)
        buffer.push_uint_var(len(token))
        buffer.push_bytes(token)
        rest = INITIAL_SIZE - buffer.tell() - size_uint_var(INITIAL_SIZE)
        buffer.push_uint16(0x4000 | rest)
        buffer.push_uint16(number)
        plain = payload.rstrip(b"\0").ljust(4, b"\0")
        plain = plain[: rest - PACKET_NUMBER_SIZE - TAG_SIZE].ljust(rest - PACKET_NUMBER_SIZE - TAG_SIZE, b"\0")
        assert len(plain) >= len(payload.rstrip(b"\0")), "the ClientHello does not fit"
        crypto = CryptoPair()
        crypto.setup_initial(destination, is_client=True, version=VERSION)
        return crypto.encrypt_packet(buffer.data, plain, number)


class FloodSocket:
    """Sends each datagram from an address of its choice, and hands what is answered to `heard(datagram, host)`."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._socket.bind(("0.0.0.0", 0))
        self._loop.add_reader(self._socket, self._on_readable)
        self._marks: dict[bytes, asyncio.Event] = {}
        self.heard: Callable[[bytes, str], None] = lambda datagram, host: None
        self.received = self.received_size = self.sent_size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def send(self, datagram: bytes, host: str) -> bool:
        """Send at once; `False` where the system took nothing."""
        source = (socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, socket.inet_aton(host), bytes(4)))
        try:
            self._socket.sendmsg([datagram], [source], 0, self._target)
        except BlockingIOError:
            return False
        self.sent_size += len(datagram)
        return True

    async def heard_all(self) -> None:
        """Wait until the broker has read everything sent so far: it answers a version that it does not speak."""
        identifier = b"mark" + len(self._marks).to_bytes(4, "big")
        mark = bare_initial(identifier, b"", version=UNKNOWN_VERSION)
        heard = self._marks[identifier] = asyncio.Event()
        while not heard.is_set():
            self.send(mark, "127.0.0.1")
            try:
                async with asyncio.timeout(RESEND_S):
                    await heard.wait()
            except TimeoutError:
                continue

    def _on_readable(self) -> None:
        for _ in range(256):
            try:
                datagram, ancillary, _, _ = self._socket.recvmsg(2048, 64)
            except OSError:
                return
            header = parse_header(datagram)
            if header is not None and (mark := self._marks.get(header.source_connection_id)) is not None:
                mark.set()
                continue
            self.received += 1
            self.received_size += len(datagram)
            host = socket.inet_ntoa(_PKTINFO.unpack(ancillary[0][2])[1]) if ancillary else ""
            self.heard(datagram, host)
