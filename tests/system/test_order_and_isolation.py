"""Per publisher and topic nothing is reordered; a lost packet holds up its own lane and no other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

import quicbus
from quicbus import limits
from quicbus.testing.launcher import BrokerProcess
from quicbus.transport.memory_network import MemoryNetwork
from tests.system.buses import (
    DEADLINE_S,
    PAIRINGS,
    assert_publisher_balances,
    connected,
    final_statistics,
    stopped,
)
from tests.system.lossy import ENGINES, lossy_bus
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from quicbus.transport.memory_network import Link

TOPICS = [f"order/{number}" for number in range(12)]
PUBLISHERS = 3
PER_PUBLISHER = 4_000
SEED = 20_260


async def publish_mixed(bus: quicbus.Client, publisher: int, count: int) -> dict[str, int]:
    """Publish to all topics in random turn, in every form that a batch can have; return how many went to each."""
    rng = random.Random(SEED + publisher)
    sent = dict.fromkeys(TOPICS, 0)
    for _ in range(count):
        topic = rng.choice(TOPICS)
        payload = b"%d %d " % (publisher, sent[topic]) + bytes(rng.choice((0, 10, 100, 5_000)))
        sent[topic] += 1
        match rng.randrange(8):
            case 0:
                await bus.publish(topic, payload, headers={"a": "b"})
            case 1:
                await bus.publish(topic, payload, expires_in=600)
            case 2:
                await bus.publish(topic, payload, reply_to="somewhere")
            case _:
                await bus.publish(topic, payload)
        if not rng.randrange(200):
            await bus.flush()
    await bus.flush()
    return sent


class Seen:
    """What a subscriber got: for each publisher and topic the numbers in their order."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, str], list[int]] = {}
        self.count = 0

    async def read(self, subscription: quicbus.Subscription, total: int) -> None:
        async for messages in subscription.batches():
            for message in messages:
                publisher, number = map(int, message.payload.split(b" ", 2)[:2])
                self.streams.setdefault((publisher, message.topic), []).append(number)
            self.count += len(messages)
            if self.count >= total:
                return

    def assert_whole(self, sent: list[dict[str, int]], topics: list[str]) -> None:
        for publisher, counts in enumerate(sent):
            for topic in topics:
                assert self.streams[publisher, topic] == list(range(counts[topic])), (publisher, topic)
        assert len(self.streams) == len(sent) * len(topics)


@pytest.mark.parametrize(("client_engine", "engine"), PAIRINGS)
async def test_each_publishers_messages_stay_in_order_in_each_topic(
    data_dir: Path, client_engine: str, engine: str
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, PUBLISHERS + 2, engine=client_engine) as (first, second, *publishers):
            everything, one_topic, blocking = Seen(), Seen(), Seen()
            total = PUBLISHERS * PER_PUBLISHER
            async with (
                first.subscribe("order/#", max_pending=total, max_pending_bytes=256 * 1024 * 1024) as wide,
                first.subscribe(TOPICS[0], overflow="block") as narrow,
                second.subscribe("order/+", overflow="block", max_pending=200) as tight,
                asyncio.TaskGroup() as tasks,
            ):
                reading = [
                    tasks.create_task(everything.read(wide, total)),
                    tasks.create_task(blocking.read(tight, total)),
                ]
                publishing = [
                    tasks.create_task(publish_mixed(bus, number, PER_PUBLISHER))
                    for number, bus in enumerate(publishers)
                ]
                sent = await asyncio.gather(*publishing)
                await one_topic.read(narrow, sum(counts[TOPICS[0]] for counts in sent))
                await asyncio.gather(*reading)
                assert wide.dropped == narrow.dropped == tight.dropped == 0
            for bus in publishers:
                assert_publisher_balances(bus.statistics())
            final_statistics(await stopped(broker))
    everything.assert_whole(sent, TOPICS)
    blocking.assert_whole(sent, TOPICS)
    one_topic.assert_whole(sent, TOPICS[:1])


@pytest.mark.parametrize("engine", ENGINES)
async def test_order_holds_on_a_network_that_loses_and_reorders(engine: str) -> None:
    print(f"seed {SEED}")
    network = MemoryNetwork(seed=SEED, latency_s=0.002, jitter_s=0.002, loss=0.02, is_near=False)
    count = 400
    async with (
        lossy_bus(engine, network) as bus,
        bus.client("publisher") as (publisher, _),
        bus.client("subscriber") as (subscriber, _),
        subscriber.subscribe("order/#") as messages,
    ):
        seen = Seen()
        sent = await publish_mixed(publisher, 0, count)
        await seen.read(messages, count)
        assert bus.books.balance == 0
        assert network.dropped > 0
    seen.assert_whole([sent], TOPICS)


def lane(topic: str) -> int:
    return crc32(topic.encode()) % limits.LANES


HELD_UP = "held/up"
OTHERS = [topic for topic in (f"free/{number}" for number in range(40)) if lane(topic) != lane(HELD_UP)]
LARGE = 600
"""Bytes of a datagram above which it carries the one large message: all others are far smaller."""


LEGS = pytest.mark.parametrize("leg", ["publisher to broker", "broker to subscriber"])


def is_large(datagram: bytes) -> bool:
    return len(datagram) > LARGE


@contextlib.asynccontextmanager
async def publisher_and_subscriber(
    engine: str, leg: str, network: MemoryNetwork
) -> AsyncIterator[tuple[quicbus.Client, quicbus.Subscription, Link]]:
    """A publisher, a subscription to everything at another client, and the leg of the way that is to lose."""
    async with (
        lossy_bus(engine, network) as bus,
        bus.client("publisher") as (publisher, here),
        bus.client("subscriber") as (subscriber, there),
        subscriber.subscribe("#") as messages,
    ):
        yield (
            publisher,
            messages,
            bus.towards_broker(here) if leg == "publisher to broker" else bus.towards_client(there),
        )
        assert network.dropped > 0
        assert bus.books.balance == 0


@LEGS
async def test_messages_on_other_lanes_pass_the_one_whose_packets_were_lost(engine: str, leg: str) -> None:
    assert {lane(topic) for topic in OTHERS} == set(range(limits.LANES)) - {lane(HELD_UP)}
    network = MemoryNetwork(is_near=False)
    lost: list[bytes] = []

    def lose(datagram: bytes) -> bool:
        if is_large(datagram):
            lost.append(datagram)
        return is_large(datagram)

    async with publisher_and_subscriber(engine, leg, network) as (publisher, messages, link):
        # Nobody hears an acknowledgement meanwhile, so nothing is found to be lost and sent again.
        with link.dropping(lose, count=2), link.reversed().dropping():
            await publisher.publish(HELD_UP, b"first" + bytes(3_000))
            await eventually(lambda: len(lost) == 2)
            await publisher.publish(HELD_UP, b"second")
            for topic in OTHERS:
                await publisher.publish(topic, b"free")
            arrived = [await messages.next(DEADLINE_S) for _ in OTHERS]
            assert {message.topic for message in arrived} == set(OTHERS)
        late = [await messages.next(DEADLINE_S) for _ in range(2)]
        assert [message.payload[:6] for message in late] == [b"first\0", b"second"]
        assert messages.pending == 0


@LEGS
async def test_a_lane_that_loses_every_packet_stops_no_other_lane(leg: str) -> None:
    # With the memory engine: it has no congestion control, which all lanes of a QUIC connection share.
    async with publisher_and_subscriber("memory", leg, MemoryNetwork(is_near=False)) as (publisher, messages, link):
        # What is sent again may share a datagram with a message of another lane, which says something of neither.
        with link.dropping(lambda datagram: is_large(datagram) and b"free" not in datagram):
            await publisher.publish(HELD_UP, b"first" + bytes(3_000))
            await asyncio.sleep(0)
            await publisher.publish(HELD_UP, b"second")
            for topic in OTHERS * 3:
                await publisher.publish(topic, b"free")
                assert (await messages.next(DEADLINE_S)).topic == topic
        late = [await messages.next(DEADLINE_S) for _ in range(2)]
        assert [message.payload[:6] for message in late] == [b"first\0", b"second"]
        assert messages.pending == 0
