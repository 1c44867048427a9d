"""UDP sockets on loopback that a doctor may meet: silent, talkative but no QUIC, QUIC of other kinds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from quicbus.transport.admission import Refusal, RefusedSession
from quicbus.transport.endpoint import Endpoint, Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from quicbus.identity import Authority
    from quicbus.transport.connection import Address, Connection, ConnectionHandler

__all__ = ["answering", "names_versions", "quic_listener", "refusing", "silent", "unused"]

LOCALHOST = ("127.0.0.1", 0)


@contextlib.contextmanager
def silent() -> Iterator[Address]:
    """A socket that is bound and never read: nothing comes back, and no refusal either."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
        udp.bind(LOCALHOST)
        yield udp.getsockname()


def unused() -> Address:
    """Return an address of loopback where nobody listened a moment ago."""
    with silent() as address:
        return address


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[Address]:
    """A socket that answers each datagram with what `answer` makes of it."""

    class Answering(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            if (said := answer(data)) is not None:
                self.transport.sendto(said, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Answering, local_addr=LOCALHOST)
    try:
        yield transport.get_extra_info("sockname")
    finally:
        transport.close()


def names_versions(*versions: int, largest: int = 65_535) -> Callable[[bytes], bytes | None]:
    """Answer as a QUIC listener of these versions would (RFC 9000 section 6), behind a way that lets `largest` pass."""

    def answer(datagram: bytes) -> bytes | None:
        if len(datagram) > largest:
            return None
        end = 6 + datagram[5]
        destination, source = datagram[5:end], datagram[end : end + 1 + datagram[end]]
        return b"\x80\0\0\0\0" + source + destination + b"".join(one.to_bytes(4, "big") for one in versions)

    return answer


@contextlib.asynccontextmanager
async def quic_listener(
    engine: str,
    authority: Authority,
    *,
    alpn: str = "quicbus/1",
    make_handler: Callable[[Connection], ConnectionHandler] | None = None,
) -> AsyncIterator[Address]:
    """A real QUIC listener with a node certificate of `authority`, and no broker behind it."""
    node = authority.issue_node("tokyo")
    configuration = EngineConfiguration(
        is_client=False, alpn=alpn, certificate_chain=node.chain_pem, private_key=node.private_key_pem
    )
    listener = Listener(configuration, make_handler or refusing(CloseCode.GOING_AWAY, "this node is stopping"))
    async with await Endpoint.open(bind=LOCALHOST, engine=engine_named(engine), listener=listener) as endpoint:
        yield endpoint.address


def refusing(code: CloseCode, why: str) -> Callable[[Connection], ConnectionHandler]:
    """Complete every handshake, then close with a code and a sentence."""
    return lambda connection: RefusedSession(connection, Refusal(code, why))
