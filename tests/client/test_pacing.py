"""A client keeps to the announced rates by itself: it waits, and the broker refuses nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus import limits
from quicbus.client.outgoing import prepare
from quicbus.client.pacing import Pace, pace_of
from quicbus.client.publishing import Publisher
from quicbus.wire.batch import parse_body
from quicbus.wire.frames import Limits
from quicbus.wire.records import RECORD_OVERHEAD
from quicbus_broker.edge.rate import PublishRates
from tests.client.brokers import broker_in_process

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.client.open_batch import SealedBatch

CREDIT = 1 << 40


class Paced:
    """A publisher on a virtual clock, at a broker with these rates."""

    def __init__(self, messages_per_s: int = 0, bytes_per_s: int = 0) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self.publisher = Publisher()
        self.publisher.on_paced = self.waits.append
        self.pace = Pace(messages_per_s, bytes_per_s, lambda: self.now)
        self.publisher.connected(CREDIT, limits.MAX_MESSAGE_SIZE, self.pace)
        self.rates = PublishRates(messages_per_s, bytes_per_s, self.now)

    def publish(self, payload: bytes, topic: str = "t") -> bool:
        self.publisher.new_turn()
        if self.publisher.append(topic, payload):
            return True
        return self.publisher.offer(prepare(self.publisher.topics, topic, payload), self.now)

    def seal(self) -> list[SealedBatch]:
        self.waits.clear()
        return self.publisher.seal(self.now)

    def count(self, sealed: list[SealedBatch]) -> int:
        return sum(parse_body(batch.record[RECORD_OVERHEAD:]).count for batch in sealed)


def test_no_rate_is_no_pace() -> None:
    edge = Limits(max_message_size=1, max_headers_size=1, max_subscriptions=1, max_filter_size=1)
    assert pace_of(edge, lambda: 0.0) is None


def test_a_seconds_worth_of_messages_goes_at_once_and_the_rest_as_time_passes() -> None:
    paced = Paced(messages_per_s=100)
    published = sum(paced.publish(b"x") for _ in range(300))
    assert published == 100
    assert paced.count(paced.seal()) == 100
    assert not paced.publish(b"x")
    assert paced.waits == [pytest.approx(0.01)]
    paced.now += 0.25
    assert sum(paced.publish(b"x") for _ in range(300)) == 25


def test_a_seconds_worth_of_bytes_goes_at_once_and_the_rest_as_time_passes() -> None:
    paced = Paced(bytes_per_s=10_000)
    published = sum(paced.publish(bytes(900)) for _ in range(300))
    assert published in (10, 11)
    paced.seal()
    assert sum(paced.publish(bytes(900)) for _ in range(300)) <= 1, "what a message takes was rounded up"
    paced.seal()
    paced.now += 0.5
    assert sum(paced.publish(bytes(900)) for _ in range(300)) in (5, 6)


def test_a_message_of_more_than_a_second_waits_for_a_whole_one_and_goes_alone() -> None:
    paced = Paced(bytes_per_s=1_000)
    assert paced.publish(b"x")
    paced.seal()
    assert not paced.publish(bytes(5_000))
    paced.now += 1.0
    assert paced.publish(bytes(5_000))
    assert not paced.publish(b"y")
    assert paced.count(paced.seal()) == 1
    paced.now += 4.0
    assert not paced.publish(b"y"), "the large one is not paid off"
    paced.now += 1.2
    assert paced.publish(b"y")


def test_what_was_buffered_offline_leaves_in_pace() -> None:
    paced = Paced(messages_per_s=100)
    paced.publisher.disconnected()
    assert all(paced.publish(b"%d" % number) for number in range(450))
    paced.publisher.connected(CREDIT, limits.MAX_MESSAGE_SIZE, Pace(100, 0, lambda: paced.now))
    mark = paced.publisher.mark()
    counts = []
    for _ in range(5):
        assert not paced.publisher.is_sealed(mark)
        counts.append(paced.count(paced.seal()))
        assert bool(paced.waits) is (counts != [100, 100, 100, 100, 50])
        paced.now += 1.0
    assert counts == [100, 100, 100, 100, 50]
    assert paced.publisher.is_sealed(mark)
    assert paced.publisher.books().in_flight == 450


@pytest.mark.parametrize("seed", range(5))
def test_the_broker_refuses_nothing_whatever_the_network_does_to_the_pace(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    paced = Paced(messages_per_s=rng.choice([0, 1, 50, 1000]), bytes_per_s=rng.choice([5_000, 100_000]))
    arriving: list[tuple[float, bytes]] = []
    arrives = paced.now
    sent = 0
    for _ in range(3000):
        paced.now += rng.choice([0.0, 0.001, 0.02])
        for _ in range(rng.randrange(20)):
            paced.publish(bytes(rng.choice([1, 100, 3_000, 20_000])), rng.choice("abc"))
        for batch in paced.seal():
            arrives = max(arrives, paced.now + rng.choice([0.0, 0.01, 1.5]))
            arriving.append((arrives, batch.record))
    for now, record in arriving:
        body = parse_body(record[RECORD_OVERHEAD:])
        assert paced.rates.admit(body.count, len(record), now) is None
        sent += body.count
    assert sent > 5


def publish_for_ever(bus: quicbus.Client) -> None:
    while True:
        bus.publish_nowait("t", b"x")


async def test_an_application_at_a_broker_with_rates_is_slowed_down_and_loses_nothing(
    tmp_path: Path,
) -> None:
    count = 450
    async with broker_in_process(tmp_path, "auto", max_publish_rate=300) as running:
        url, credential = running.url, running.credential_path
        async with quicbus.connect(url, credentials=credential) as bus, bus.subscribe("t") as messages:
            for number in range(count):
                await bus.publish("t", b"%d" % number)
            await bus.flush()
            received = [await messages.next(10.0) for _ in range(count)]
            assert [message.payload for message in received] == [b"%d" % number for number in range(count)]
            with pytest.raises(quicbus.WouldBlock, match="max_publish_rate"):
                publish_for_ever(bus)
            assert not bus.statistics().refused
        assert running.statistics().edge.limits["max_publish_rate"] == 0
