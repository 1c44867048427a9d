"""A broker of few lines for tests of the client: it does what the test says and remembers what it was sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from quicbus import limits
from quicbus.client.api import Client, Connecting
from quicbus.client.urls import parse_url
from quicbus.exceptions import ConnectionFailed
from quicbus.testing.pipe import Pipe, PipeEnd
from quicbus.wire import frames
from quicbus.wire.batch import Body, encode_body, parse_body, read_messages
from quicbus.wire.records import Envelope, Record, RecordParser, encode_delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.client.session_ports import Prove, SessionTrust
    from quicbus.client.urls import BrokerUrl
    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.engine import Terminated

NODE = b"n" * 16
SESSION = b"s" * 16
ALONE = frames.PeerEntry(node=NODE.hex(), name="scripted", state="alive", mode="hybrid", boot=1, is_self=True)
F = TypeVar("F", bound=frames.Frame)


class ScriptedBroker:
    """The listener's handler. With `auto` it accepts, confirms, takes and answers by itself."""

    def __init__(
        self,
        connection: Connection,
        *,
        auto: bool = True,
        credit: int = limits.PUBLISH_WINDOW,
        boot: int = 1,
        max_message_size: int = limits.MAX_MESSAGE_SIZE,
        refuse: tuple[int, str] | None = None,
        brokers: list[str] | None = None,
        proof: bool = False,
        limits_: dict[str, int] | None = None,
    ) -> None:
        self.connection = connection
        self.auto = auto
        self.credit = credit
        self.received: list[frames.Frame] = []
        self.bodies: list[Body] = []
        self.taken_messages = 0
        self.taken_size = 0
        self.granted = credit
        self.refused_messages = 0
        self.termination: Terminated | None = None
        self._boot = boot
        self._max_message_size = max_message_size
        self._refuse = refuse
        self._brokers = brokers or []
        self._limits = limits_ or {}
        self._proof = proof
        self._control = -1
        self._lane = -1
        self._sequence = 0
        self._handed_over: dict[int, int] = {}
        self._frame_parser = frames.FrameParser(limits.MAX_CONTROL_FRAME_SIZE)
        self._readers: dict[int, Callable[[bytes], None]] = {}

    # --- what tests say and ask

    def send(self, frame: frames.Frame) -> None:
        if self._control < 0:
            self._control = self.connection.open_stream()
            self.connection.send(self._control, bytes((frames.STREAM_TYPE_CONTROL,)))
        self.connection.send(self._control, frames.encode_frame(frame))

    def send_raw(self, data: bytes) -> None:
        self.connection.send(self._control, data)

    def of(self, kind: type[F]) -> list[F]:
        return [frame for frame in self.received if isinstance(frame, kind)]

    def deliver(
        self, ids: int | list[int], topic: str, messages: list[bytes], *, dropped: int = 0, **body: Any
    ) -> None:
        """Send a batch for subscriptions."""
        self._sequence += 1
        numbers = [ids] if isinstance(ids, int) else ids
        envelope = Envelope(origin=NODE, boot=self._boot, sequence=self._sequence, publisher="alice")
        raw = encode_body(topic.encode(), messages, number=self._sequence, **body)
        if self._lane < 0:
            self._lane = self.connection.open_stream()
            self.connection.send(self._lane, bytes((frames.STREAM_TYPE_LANE,)))
        for number in numbers:
            self._handed_over[number] = self._handed_over.get(number, 0) + len(messages)
        self.connection.send(self._lane, encode_delivery(envelope, [(number, dropped) for number in numbers], raw))

    def accept(self) -> None:
        self.send(frames.Accepted(session=SESSION, name="alice", publish_credit=self.credit, brokers=self._brokers))

    def take(self, messages: int | None = None, credit: int | None = None) -> None:
        """Take all that came, or so many messages more, and return credit for the bytes that came."""
        came = sum(body.count for body in self.bodies) - self.refused_messages
        self.taken_messages = came if messages is None else self.taken_messages + messages
        if credit is None:
            credit = self.credit + self.taken_size
        self.granted = max(self.granted, credit)
        self.send(frames.Taken(accepted=self.taken_messages, refused=self.refused_messages, credit=credit))

    def refuse(self, number: int, messages: int, reason: str, detail: str = "") -> None:
        self.refused_messages += messages
        self.send(frames.Refused(number=number, messages=messages, reason=reason, detail=detail))

    def close_subscription(self, id: int, reason: str, **fields: Any) -> None:
        fields.setdefault("handed_over", self._handed_over.get(id, 0))
        self.send(frames.SubscriptionClosed(id=id, reason=reason, **fields))

    def payloads(self) -> list[bytes]:
        return [message for body in self.bodies for message in read_messages(body)]

    # --- ConnectionHandler

    def negotiated(self) -> None:
        stated = {
            "max_message_size": self._max_message_size,
            "max_headers_size": limits.MAX_HEADERS_SIZE,
            "max_subscriptions": limits.MAX_SUBSCRIPTIONS,
            "max_filter_size": limits.MAX_TOPIC_SIZE,
            **self._limits,
        }
        self.send(
            frames.Welcome(
                version=1,
                node=NODE,
                boot=self._boot,
                agent="scripted",
                limits=frames.Limits(**stated),
                proof=self._proof,
            )
        )

    def connected(self, channel_binding: bytes) -> None: ...

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if stream_id not in self._readers:
            kind, data = data[0], data[1:]
            if kind == frames.STREAM_TYPE_CONTROL:
                self._readers[stream_id] = self._read_control
            else:
                parser = RecordParser(limits.MAX_MESSAGE_SIZE_CEILING)
                self._readers[stream_id] = lambda data: self._read_lane(parser, data)
        self._readers[stream_id](data)

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None:
        self.termination = termination

    def _read_control(self, data: bytes) -> None:
        for frame in self._frame_parser.feed(data):
            self.received.append(frame)
            self._answer(frame)

    def _read_lane(self, parser: RecordParser, data: bytes) -> None:
        for record in parser.feed(data):
            assert isinstance(record, Record)
            self.taken_size += 5 + len(record.payload)
            assert self.taken_size <= self.granted, "the client sent more than its credit"
            self.bodies.append(parse_body(record.payload))
        if self.auto:
            self.take()

    def _answer(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.Hello) and self._refuse is not None:
            self.connection.close(*self._refuse)
        elif not self.auto:
            return
        elif isinstance(frame, frames.Hello):
            self.accept()
        elif isinstance(frame, frames.Subscribe):
            self.send(frames.Subscribed(id=frame.id))
        elif isinstance(frame, frames.Unsubscribe):
            self.close_subscription(frame.id, "unsubscribed")
        elif isinstance(frame, frames.Flush):
            self.send(frames.Flushed(id=frame.id, accepted=self.taken_messages, refused=self.refused_messages))
        elif isinstance(frame, frames.Ping):
            self.send(frames.Pong(id=frame.id))
        elif isinstance(frame, frames.PeersWanted):
            self.send(frames.Peers(id=frame.id, peers=(ALONE,)))
        elif isinstance(frame, frames.SpreadWanted):
            self.send(frames.Spread(id=frame.id, nodes=0))
        elif isinstance(frame, frames.GoAway):
            self.send(frames.Drained(batches=0))


class ScriptedDialer:
    """A `Dialer` whose every dial makes a pipe to a new `ScriptedBroker`; the event loop pumps it.

    `plan` holds, for the next dials, the settings of their brokers or the sentence with which they fail; the last one
    stands for all further dials.
    """

    def __init__(self, *plan: dict[str, Any] | str) -> None:
        self.plan: list[dict[str, Any] | str] = list(plan) or [{}]
        self.brokers: list[ScriptedBroker] = []
        self.pipes: list[Pipe] = []
        self.dialed: list[Address] = []
        self.addresses: dict[str, list[Address]] = {}
        self.is_closed = False
        self.session_trust: SessionTrust | None = None

    @property
    def prove(self) -> Prove | None:
        return None

    @property
    def trust(self) -> SessionTrust | None:
        return self.session_trust

    @property
    def broker(self) -> ScriptedBroker:
        return self.brokers[-1]

    @property
    def pipe(self) -> Pipe:
        return self.pipes[-1]

    async def resolve(self, url: BrokerUrl) -> list[Address]:
        return self.addresses.get(url.host, [(url.host, url.port)])

    async def dial(self, address: Address, make_handler: Callable[[Connection], ConnectionHandler]) -> Connection:
        self.dialed.append(address)
        step = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if isinstance(step, str):
            raise ConnectionFailed(step)
        loop = asyncio.get_running_loop()
        pipe = Pipe(clock=loop.time)
        pipe.dialer.heard = loop.time()
        step = dict(step)
        pipe.silent = step.pop("silent", False)
        broker = ScriptedBroker(pipe.listener, **step)
        self.pipes.append(pipe)
        self.brokers.append(broker)
        pipe.wake = _Pump(loop, pipe)
        pipe.start(make_handler(pipe.dialer), broker)
        return pipe.dialer

    async def close(self) -> None:
        self.is_closed = True
        for pipe in self.pipes:
            pipe.silent = False
            pipe.pump()


class _Pump:
    def __init__(self, loop: asyncio.AbstractEventLoop, pipe: Pipe) -> None:
        self._loop = loop
        self._pipe = pipe
        self._is_due = False

    def __call__(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        self._pipe.pump()


async def start(dialer: ScriptedDialer, *urls: str, **settings: Any) -> Client:
    """Connect a client through the dialer; close it with `close()`."""
    parsed = [parse_url(url) for url in urls or ("quic://scripted",)]
    return await Connecting(lambda: Client(dialer, parsed, **settings))


async def settle(turns: int = 10) -> None:
    """Let everything that is due in the loop happen."""
    for _ in range(turns):
        await asyncio.sleep(0)


def silence(end: PipeEnd) -> None:
    """Nothing was heard on this connection since long ago."""
    end.heard = -1e9
