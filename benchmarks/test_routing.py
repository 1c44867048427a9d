"""What a broker does for a batch: from the bytes of a Publish record to the bytes of Message records.

A batch is 384 messages of 128 bytes, the size at which clients close one. The target is under 25 µs per batch with one
subscriber, all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.transport.connection import ConnectionStatistics
from quicbus.wire.batch import encode_body
from quicbus.wire.frames import PROTOCOL_VERSION, Hello, Subscribe, SubscriptionCredit, encode_frame
from quicbus.wire.records import encode_publish
from quicbus_broker.edge import Edge, EdgeLimits, Exchange
from quicbus_broker.routing import Router
from quicbus_broker.routing.groups import water_fill

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from quicbus_broker.edge import Session

MESSAGES = 384
SIZE = 128
CONTROL, LANE = 2, 6


class Sink:
    """A `Connection` that forgets what it is given."""

    is_client = False
    engine = "memory"
    peer_address = ("192.0.2.1", 5000)
    is_closed = False
    last_heard = 0.0
    listener_node = b""
    alpn = "quicbus/1"
    unsent_size = 0

    def __init__(self) -> None:
        self.streams = 0
        self.sent = 0

    def open_stream(self) -> int:
        self.streams += 1
        return 4 * self.streams - 1

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.sent += len(data)

    def stop_stream(self, stream_id: int, code: int) -> None: ...

    def ping(self, *, is_pressing: bool = False) -> None: ...

    def has_moved(self) -> bool:
        return False

    def transmit_soon(self) -> None: ...
    def transmit_now(self) -> None: ...

    def allow_undelivered(self, size: int) -> None: ...

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(reason)

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(0, 0, 0, 0, 0, 0, None)


class Bench:
    """An edge with one publisher and some subscribers, without a network."""

    def __init__(self, subscribers: int, *, group: str | None = None) -> None:
        exchange = Exchange(Router(block_timeout_s=30.0), origin=bytes(16), boot=1, clock=lambda: 0.0)
        self.edge = Edge(exchange, EdgeLimits())
        self.admission = self.edge.admission(None)
        self.publisher = self.session()
        self.publisher.stream_data(LANE, b"\x02", False)
        self.subscribers = [self.session() for _ in range(subscribers)]
        for subscriber in self.subscribers:
            frame = Subscribe(
                id=1,
                filter="bench/#",
                group=group,
                max_pending=1 << 16,
                max_pending_size=1 << 26,
                window_messages=1 << 14,
                window_size=1 << 23,
            )
            subscriber.stream_data(CONTROL, encode_frame(frame), False)
        self.number = 0
        self.is_stalled = False

    def session(self) -> Session:
        session = self.edge.make_session(Sink(), self.admission)
        session.negotiated()
        session.connected(bytes(32))
        hello = Hello(version=PROTOCOL_VERSION, kind="client", agent="benchmark")
        session.stream_data(CONTROL, b"\x01" + encode_frame(hello), False)
        session.before_transmit()
        return session

    def records(self, count: int, messages: int = MESSAGES, topics: int = 1) -> list[bytes]:
        records = []
        for index in range(count):
            self.number += 1
            topic = b"bench/%d" % (index % topics)
            records.append(encode_publish(encode_body(topic, [bytes(SIZE)] * messages, number=self.number)))
        return records

    def run(self, records: list[bytes]) -> None:
        """A turn for each record: it arrives, is delivered, and the subscribers report that they consumed it."""
        for record in records:
            self.publisher.stream_data(LANE, record, False)
            for subscriber in self.subscribers:
                subscriber.before_transmit()
            self.publisher.before_transmit()

    def consume(self) -> None:
        for session in () if self.is_stalled else self.subscribers:
            assert session.subscriber is not None
            subscription = session.subscriber.subscriptions[1]
            credit = SubscriptionCredit(id=1, messages=subscription.handed_over, size=subscription.handed_over_size)
            session.stream_data(CONTROL, encode_frame(credit), False)


def measure(benchmark: BenchmarkFixture, bench: Bench, batches: int, messages: int, *, topics: int = 1) -> None:
    """Measure `batches` turns, again and again; making the records and giving credit back is left out."""

    def setup() -> tuple[tuple[list[bytes]], dict[str, object]]:
        bench.consume()
        return (bench.records(batches, messages, topics),), {}

    benchmark.extra_info["batches"] = batches
    benchmark.pedantic(bench.run, setup=setup, rounds=max(5, 1000 // batches))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("subscribers", [0, 1, 10, 100])
def test_20_batches_to_subscribers(benchmark: BenchmarkFixture, subscribers: int) -> None:
    measure(benchmark, Bench(subscribers), 20, MESSAGES)


def test_100_single_messages_to_one_subscriber(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, Bench(1), 100, 1)


def test_10000_topics_in_turn(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, Bench(1), 10_000, 1, topics=10_000)


def test_20_batches_shared_by_a_group_of_ten(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, Bench(10, group="workers"), 20, MESSAGES)


def test_20_batches_past_a_subscriber_that_consumes_nothing(benchmark: BenchmarkFixture) -> None:
    bench = Bench(1)
    bench.is_stalled = True
    measure(benchmark, bench, 20, MESSAGES)


@pytest.mark.parametrize("members", [2, 100])
def test_water_filling(benchmark: BenchmarkFixture, members: int) -> None:
    levels = [index * 7 % 50 for index in range(members)]

    benchmark(water_fill, levels, [1000] * members, MESSAGES)
