"""A session that only records what its connection tells it, and endpoints for tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from quicbus.transport.endpoint import Endpoint, EndpointSettings, Listener
from quicbus.transport.engines import engine_named
from tests.transport.pump import ALPN, dialing, listening
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus.transport.connection import Address, Connection
    from quicbus.transport.engine import Terminated
    from quicbus.transport.network import Network

__all__ = ["LOCALHOST", "Recorder", "Recorders", "dial", "opened"]

LOCALHOST = ("127.0.0.1", 0)
DEADLINE_S = 120.0


class Recorder:
    """A `ConnectionHandler` that keeps what it hears."""

    def __init__(self, connection: Connection, *, echo: bool = False) -> None:
        self.connection = connection
        self.echo = echo
        self.binding = b""
        self.calls: list[str] = []
        self.received: dict[int, bytearray] = {}
        self.resets: list[tuple[int, int]] = []
        self.termination: Terminated | None = None
        self.changed = asyncio.Event()
        self._echo_streams: dict[int, int] = {}

    def negotiated(self) -> None:
        self._note("negotiated")

    def connected(self, channel_binding: bytes) -> None:
        self.binding = channel_binding
        self.connection.allow_undelivered(1024 * 1024)
        self._note("connected")

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        self.received.setdefault(stream_id, bytearray()).extend(data)
        if self.echo:
            if stream_id not in self._echo_streams:
                self._echo_streams[stream_id] = self.connection.open_stream()
            self.connection.send(self._echo_streams[stream_id], data, ended)
        self.changed.set()

    def stream_reset(self, stream_id: int, code: int) -> None:
        self.resets.append((stream_id, code))
        self.changed.set()

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None:
        assert self.termination is None, "closed is told once"
        self.termination = termination
        self._note("closed")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.changed.set()

    @property
    def all_received(self) -> bytes:
        return b"".join(bytes(data) for data in self.received.values())

    async def wait(self, condition: Callable[[Recorder], object]) -> None:
        """Wait until `condition` holds; it is asked whenever something was heard."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()

    async def wait_for(self, condition: Callable[[Recorder], object]) -> None:
        """Wait until `condition` holds, also for what no call of the connection tells."""
        await eventually(lambda: condition(self))

    async def wait_connected(self) -> None:
        await self.wait(lambda me: me.binding or me.termination)
        assert self.termination is None, self.termination

    async def wait_closed(self) -> Terminated:
        await self.wait(lambda me: me.termination)
        assert self.termination is not None
        return self.termination


class Recorders:
    """The sessions that a listener made, oldest first."""

    def __init__(self, *, echo: bool = False) -> None:
        self.echo = echo
        self.sessions: list[Recorder] = []
        self.arrived = asyncio.Event()

    def __call__(self, connection: Connection) -> Recorder:
        recorder = Recorder(connection, echo=self.echo)
        self.sessions.append(recorder)
        self.arrived.set()
        return recorder

    async def first(self) -> Recorder:
        return await self.number(1)

    async def number(self, count: int) -> Recorder:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.sessions) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.sessions[count - 1]


@asynccontextmanager
async def opened(
    engine: str,
    sessions: Recorders | None = None,
    *,
    bind: Address | None = LOCALHOST,
    settings: EndpointSettings | None = None,
    network: Network | None = None,
) -> AsyncIterator[Endpoint]:
    """Open an endpoint; with `sessions` it listens."""
    listener = Listener(listening(), sessions) if sessions is not None else None
    endpoint = await Endpoint.open(
        bind=bind, engine=engine_named(engine), settings=settings, listener=listener, network=network
    )
    try:
        yield endpoint
    finally:
        await endpoint.close()


def dial(endpoint: Endpoint, address: Address, *, echo: bool = False, alpn: str = ALPN) -> Recorder:
    made: list[Recorder] = []

    def make(connection: Connection) -> Recorder:
        made.append(Recorder(connection, echo=echo))
        return made[0]

    endpoint.dial(address, replace(dialing(), alpn=alpn), make)
    return made[0]
