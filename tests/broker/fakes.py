"""A client made of bytes: it speaks to an edge session over a connection that only records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.exceptions import LimitExceeded
from quicbus.testing.pipe import CHANNEL_BINDING
from quicbus.transport.connection import ConnectionStatistics
from quicbus.transport.engine import Terminated
from quicbus.wire.batch import encode_body, parse_body, read_messages
from quicbus.wire.frames import (
    PROTOCOL_VERSION,
    STREAM_TYPE_CONTROL,
    STREAM_TYPE_LANE,
    Frame,
    FrameParser,
    Hello,
    Subscribe,
    encode_frame,
)
from quicbus.wire.records import Delivery, Record, RecordParser, decode_delivery, encode_publish
from quicbus_broker.edge import Admission, Edge, EdgeLimits, Exchange, Turns
from quicbus_broker.routing import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.identity import Verifier
    from quicbus.transport.connection import Address
    from quicbus_broker.edge import Session

NODE = bytes(range(16))


class FakeConnection:
    """A listener's `Connection` that keeps what was sent."""

    is_client = False
    engine = "memory"
    peer_address: Address = ("192.0.2.1", 5000)
    last_heard = 0.0
    listener_node = b""
    alpn = "quicbus/1"

    def __init__(self) -> None:
        self.sent: dict[int, bytearray] = {}
        self.is_dirty = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.undelivered_allowed = 0
        self.streams_allowed = 100
        self.sends = 0
        self.keeps_from: int | None = None
        """How many bytes the network has taken, once it takes no more."""

    @property
    def is_closed(self) -> bool:
        return self.close_code is not None

    @property
    def unsent_size(self) -> int:
        return 0 if self.keeps_from is None else sum(map(len, self.sent.values())) - self.keeps_from

    def open_stream(self) -> int:
        if len(self.sent) >= self.streams_allowed:
            raise LimitExceeded("streams", len(self.sent) + 1, self.streams_allowed)
        stream_id = 4 * len(self.sent) + 3
        self.sent[stream_id] = bytearray()
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.sends += 1
        self.sent[stream_id] += data

    def stop_stream(self, stream_id: int, code: int) -> None:
        raise AssertionError("the edge stops no streams")

    def ping(self, *, is_pressing: bool = False) -> None:
        raise AssertionError("the edge sends no transport pings")

    def has_moved(self) -> bool:
        raise AssertionError("a listener does not ask")

    def transmit_soon(self) -> None:
        self.is_dirty = True

    def transmit_now(self) -> None:
        raise AssertionError("the edge sends with its turns")

    def allow_undelivered(self, size: int) -> None:
        self.undelivered_allowed = size

    def close(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = code
            self.close_reason = reason

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(0, 0, 0, 0, 0, 0, None)


class FakeBroker:
    """An edge with a clock that tests move. `turn()` ends a turn of the event loop, and further ones for what waits,
    until clients are told what was taken."""

    def __init__(self, edge_limits: EdgeLimits | None = None, *, block_timeout_s: float = 30.0) -> None:
        self.now = 1000.0
        self.router = Router(block_timeout_s=block_timeout_s)
        self.exchange = Exchange(self.router, origin=NODE, boot=7, clock=lambda: self.now)
        self._sessions = 0
        self.worked = 0.0
        self.work_s = 0.0
        """How long each piece of work takes, by the clock that measures slices."""
        self._soon: list[Callable[[], None]] = []
        self.edge = Edge(
            self.exchange,
            edge_limits or EdgeLimits(),
            random_bytes=self._random_bytes,
            turns=Turns(self._soon.append, self._work_clock),
        )
        self.clients: list[FakeClient] = []

    def connect(self, verifier: Verifier | None = None, *, admission: Admission | None = None) -> FakeClient:
        """Return a client whose handshake is complete and that was not admitted yet."""
        client = FakeClient(self, admission or self.edge.admission(verifier))
        self.clients.append(client)
        client.session.negotiated()
        client.session.connected(CHANNEL_BINDING)
        self.turn()
        return client

    def client(self) -> FakeClient:
        """Return a client that was admitted."""
        client = self.connect()
        client.write(Hello(version=PROTOCOL_VERSION, kind="client", agent="test"))
        self.turn()
        client.frames()
        return client

    def turn(self) -> None:
        self.end_turn()
        while self._soon:
            self.next_slice()
            self.end_turn()
        self.exchange.tell()
        self.end_turn()

    def end_turn(self) -> None:
        """Only this turn: who waits for a further slice waits."""
        while any(client.connection.is_dirty for client in self.clients):
            for client in self.clients:
                if client.connection.is_dirty:
                    client.connection.is_dirty = False
                    client.session.before_transmit()

    def next_slice(self) -> None:
        """Begin the turn of the event loop in which those who wait have their slice: the next one, or that after it."""
        worked = self.worked
        for _ in range(2):
            soon, self._soon[:] = list(self._soon), []
            for callback in soon:
                callback()
            if self.worked > worked:
                break

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.edge.tick()
        self.turn()

    def _work_clock(self) -> float:
        self.worked += self.work_s
        return self.worked

    def _random_bytes(self, size: int) -> bytes:
        self._sessions += 1
        return self._sessions.to_bytes(size, "big")


class FakeClient:
    """The dialer's side, in bytes."""

    def __init__(self, broker: FakeBroker, admission: Admission) -> None:
        self.broker = broker
        self.connection = FakeConnection()
        self.session: Session = broker.edge.make_session(self.connection, admission)
        self.number = 0
        self.lane_bytes = 0
        self._control_is_open = False
        self._lanes: set[int] = set()
        self._read: dict[int, int] = {}
        self._frames = FrameParser(1 << 20)
        self._records: dict[int, RecordParser] = {}

    def write(self, *frames: Frame) -> None:
        self.write_control(b"".join(map(encode_frame, frames)))

    def write_control(self, data: bytes) -> None:
        if not self._control_is_open:
            self._control_is_open = True
            data = bytes((STREAM_TYPE_CONTROL,)) + data
        self.session.stream_data(2, data, False)

    def write_lane(self, data: bytes, lane: int = 0) -> None:
        stream_id = 6 + 4 * lane
        self.lane_bytes += len(data)
        if lane not in self._lanes:
            self._lanes.add(lane)
            data = bytes((STREAM_TYPE_LANE,)) + data
        self.session.stream_data(stream_id, data, False)

    def publish(
        self, topic: str, *messages: bytes, lane: int = 0, flags: int = 0, expires_in_ms: int = 0, reply_to: str = ""
    ) -> int:
        """Publish a batch and return its number."""
        self.number += 1
        body = encode_body(
            topic.encode(),
            messages,
            number=self.number,
            flags=flags,
            expires_in_ms=expires_in_ms,
            reply_to=reply_to.encode(),
        )
        self.write_lane(encode_publish(body), lane)
        return self.number

    def subscribe(
        self,
        filter: str,
        id: int = 1,
        *,
        group: str | None = None,
        overflow: str = "drop_oldest",
        max_pending: int = 1000,
        max_pending_size: int = 1 << 20,
        window_messages: int = 500,
        window_size: int = 1 << 19,
    ) -> None:
        self.write(
            Subscribe(
                id=id,
                filter=filter,
                group=group,
                overflow=overflow,
                max_pending=max_pending,
                max_pending_size=max_pending_size,
                window_messages=window_messages,
                window_size=window_size,
            )
        )
        self.broker.turn()

    def frames(self) -> list[Frame]:
        """Return the frames that came since the last call."""
        self.broker.turn()
        return self._frames.feed(self._new(3, skip=1))

    def deliveries(self) -> list[Delivery]:
        """Return the Message records that came since the last call, lane by lane."""
        self.broker.turn()
        found: list[Delivery] = []
        for stream_id in self.connection.sent:
            if stream_id == 3:
                continue
            parser = self._records.setdefault(stream_id, RecordParser(1 << 30))
            for record in parser.feed(self._new(stream_id, skip=1)):
                assert isinstance(record, Record)
                found.append(decode_delivery(record.payload))
        return found

    def messages(self, id: int = 1) -> list[bytes]:
        """Return the messages for one subscription that came since the last call."""
        return messages_for(self.deliveries(), id)

    def vanish(self) -> None:
        """The connection dies."""
        self.connection.close_code = 0
        self.session.closed(Terminated(0, "idle", is_application=False, is_local=True))
        self.broker.turn()

    def _new(self, stream_id: int, skip: int) -> bytes:
        sent = self.connection.sent.get(stream_id, bytearray())
        start = self._read.get(stream_id, skip)
        self._read[stream_id] = max(start, len(sent))
        return bytes(sent[start:])


def messages_for(deliveries: Sequence[Delivery], id: int) -> list[bytes]:
    return [
        message
        for delivery in deliveries
        if id in dict(delivery.subscriptions)
        for message in read_messages(parse_body(delivery.body))
    ]
