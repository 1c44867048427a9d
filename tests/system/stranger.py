"""A client written at the level of the transport, to do what a real one never does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

from quicbus.identity import Authority, Credential, sign_proof
from quicbus.transport.endpoint import Endpoint
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.batch import encode_body
from quicbus.wire.frames import ALPN, STREAM_TYPE_CONTROL, STREAM_TYPE_LANE, Accepted, FrameParser, Hello, encode_frame
from quicbus.wire.records import encode_publish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus.testing.launcher import BrokerProcess
    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated
    from quicbus.wire.frames import Frame

__all__ = ["Stranger", "dialing", "endpoint_and_broker", "hello", "of_broker"]

F = TypeVar("F")


def of_broker(broker: BrokerProcess) -> Authority:
    """The broker's own authority: it issues whatever a test wants to show."""
    keys = (broker.data_dir / "authority-key.pem", broker.data_dir / "authority.pem")
    return Authority.load(b"".join(path.read_bytes() for path in keys))


def dialing(broker: BrokerProcess) -> EngineConfiguration:
    """A TLS configuration that takes this broker, whatever is shown to it afterwards."""
    credential = Credential.load(broker.credential_path)
    return EngineConfiguration(
        is_client=True, alpn=ALPN, authority=credential.authority_pem, server_name=credential.server_name
    )


def hello(credential: Credential, binding: bytes, *, version: int = 1, kind: str = "client") -> Hello:
    signature = sign_proof(credential, binding, kind)
    return Hello(version=version, kind=kind, agent="stranger", chain=credential.chain_der, signature=signature)


class Stranger:
    """A `ConnectionHandler` that keeps what it hears. The caller sets the deadline of its waits."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.binding = b""
        self.termination: Terminated | None = None
        self.frames: list[Frame] = []
        self.lane_bytes = 0
        self.control: int | None = None
        self.control_of_broker: int | None = None
        self._parser = FrameParser(1 << 20)
        self._kinds: dict[int, int] = {}
        self._changed = asyncio.Event()

    # --- ConnectionHandler

    def negotiated(self) -> None: ...

    def connected(self, channel_binding: bytes) -> None:
        self.binding = channel_binding
        self._changed.set()

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if data and stream_id not in self._kinds:
            self._kinds[stream_id] = data[0]
            data = data[1:]
        if self._kinds.get(stream_id) == STREAM_TYPE_CONTROL:
            self.control_of_broker = stream_id
            self.frames += self._parser.feed(data)
        else:
            self.lane_bytes += len(data)
        self._changed.set()

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None:
        self.termination = termination
        self._changed.set()

    # --- what it does

    def write(self, *frames: Frame) -> None:
        self.write_control(b"".join(map(encode_frame, frames)))

    def write_control(self, data: bytes, *, end: bool = False) -> None:
        if self.control is None:
            self.control = self.connection.open_stream()
            data = bytes((STREAM_TYPE_CONTROL,)) + data
        self.connection.send(self.control, data, end)

    def open_lane(self, data: bytes = b"", *, end: bool = False) -> int:
        """Open one more lane that begins with `data`."""
        stream_id = self.connection.open_stream()
        self.connection.send(stream_id, bytes((STREAM_TYPE_LANE,)) + data, end)
        return stream_id

    def publish(self, topic: bytes, *messages: bytes, number: int = 1) -> int:
        """Publish a batch on a lane of its own; return the lane."""
        return self.open_lane(encode_publish(encode_body(topic, messages, number=number)))

    async def prove(self, credential: Credential) -> None:
        """Do what a good client does, until it is accepted."""
        self.write(hello(credential, self.binding))
        await self.wait_frame(Accepted)

    # --- what it waits for

    async def wait(self, choose: Callable[[], F | None]) -> F:
        while (chosen := choose()) is None:
            self._changed.clear()
            await self._changed.wait()
        return chosen

    async def wait_connected(self) -> None:
        await self.wait(lambda: self.binding or self.termination or None)
        assert self.termination is None, self.termination

    async def wait_frame(self, kind: type[F]) -> F:
        """Return the first frame of a kind; fails when the connection is closed instead."""

        def choose() -> F | Terminated | None:
            found = next((frame for frame in self.frames if isinstance(frame, kind)), None)
            return found if found is not None else self.termination

        chosen = await self.wait(choose)
        assert isinstance(chosen, kind), chosen
        return chosen

    async def wait_closed(self) -> Terminated:
        return await self.wait(lambda: self.termination)


@contextlib.asynccontextmanager
async def endpoint_and_broker(broker: BrokerProcess, engine: str) -> AsyncIterator[Callable[[], Stranger]]:
    """Give a function that dials the broker from one socket."""
    host, port = broker.address.rsplit(":", 1)
    configuration = dialing(broker)

    async with await Endpoint.open(bind=None, engine=engine_named(engine)) as endpoint:

        def dial() -> Stranger:
            made: list[Stranger] = []

            def make(connection: Connection) -> Stranger:
                made.append(Stranger(connection))
                return made[0]

            endpoint.dial((host, int(port)), configuration, make)
            return made[0]

        yield dial
