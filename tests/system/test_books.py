"""The books balance: for every publisher, the broker and every subscription, whatever the policy and whoever dies.

`published = accepted + refused + dropped while disconnected + possibly lost (+ in flight + buffered)`,
`deliveries = handed over + dropped + queued`, `handed over = received + dropped here (+ in flight)`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.testing.launcher import BrokerProcess, Launched, quicbus_command
from tests.system.buses import (
    DEADLINE_S,
    assert_broker_balances,
    assert_publisher_balances,
    connected,
    final_statistics,
    stopped,
    wait_event,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

PER_PUBLISHER = 6_000
PUBLISHERS = 2
TOTAL = PER_PUBLISHER * PUBLISHERS
UNMATCHED = 100
POLICIES = ["drop_oldest", "drop_newest", "block", "disconnect"]
QUICKLY_GIVEN_UP = ("--idle-timeout-s", "2", "--keep-alive-s", "0.5")
"""A client that was killed says nothing: the broker notices its silence."""


async def publish_all(bus: quicbus.Client, number: int) -> None:
    for each in range(PER_PUBLISHER):
        await bus.publish(f"load/{number}", b"%d" % each)
    for _ in range(UNMATCHED):
        await bus.publish(f"nobody/{number}", b"x")
    await bus.flush()


class Reader:
    """Reads a subscription in a task. `order` holds what came, by topic."""

    def __init__(self, subscription: quicbus.Subscription) -> None:
        self.subscription = subscription
        self.order: dict[str, list[int]] = {}
        self.ended: quicbus.SubscriptionEnded | None = None
        self.may_read = asyncio.Event()
        self.count = 0

    async def run(self, limit: int | None = None) -> None:
        """Read one message; then, once `may_read`, all that come, or `limit` in all."""
        try:
            async for message in self.subscription:
                self.order.setdefault(message.topic, []).append(int(message.payload))
                self.count += 1
                await self.may_read.wait()
                if self.count == limit:
                    return
        except quicbus.SubscriptionEnded as ended:
            self.ended = ended

    @property
    def accounted(self) -> int:
        """Messages that were read, or whose loss is counted with a reason."""
        return self.count + self.subscription.dropped

    def assert_in_order(self) -> None:
        for topic, received in self.order.items():
            assert all(before < after for before, after in pairwise(received)), topic

    def assert_balances(self) -> None:
        """The third line of the books, once nothing is in flight."""
        statistics = self.subscription.statistics()
        assert statistics.received == self.count + statistics.pending
        combined = Counter(statistics.dropped_by_broker) + Counter(statistics.dropped_here)
        assert Counter(statistics.dropped) == combined
        assert self.subscription.dropped == combined.total()


def killable(broker: BrokerProcess, policy: str) -> Launched:
    """A subscriber in a process of its own."""
    pending = "65536" if policy == "disconnect" else "100"
    command = [*quicbus_command(), "sub", "load/#", "--json", "--overflow", policy, "--max-pending", pending]
    return Launched(command, environment={**broker.environment, "QUICBUS_ENGINE": broker.engine})


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_books_balance_with_subscribers_that_are_slow_leave_and_die(
    engine: str, data_dir: Path, policy: str
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine, options=QUICKLY_GIVEN_UP) as broker:
        async with connected(broker, PUBLISHERS + 2) as (one, two, steady, wavering):
            with killable(broker, policy) as dying:
                await asyncio.to_thread(dying.wait_line, "subscribed to", stream="stderr")
                async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as stack:

                    async def subscribe(bus: quicbus.Client, max_pending: int) -> Reader:
                        subscribing = bus.subscribe("load/#", overflow=policy, max_pending=max_pending)
                        return Reader(await stack.enter_async_context(subscribing))

                    fast = await subscribe(steady, TOTAL)
                    slow = await subscribe(wavering, 50)
                    leaver = await subscribe(wavering, TOTAL)
                    reading = [tasks.create_task(reader.run()) for reader in (fast, slow)]
                    fast.may_read.set()
                    leaver.may_read.set()
                    leaving = tasks.create_task(leave_after(leaver, 100))
                    publishing = [tasks.create_task(publish_all(bus, at)) for at, bus in enumerate((one, two))]

                    await asyncio.to_thread(dying.wait_line, "payload")
                    dying.kill()
                    if policy == "block":  # nobody else would let the publishers go on
                        slow.may_read.set()
                    await asyncio.gather(leaving, *publishing)
                    slow.may_read.set()
                    if policy == "disconnect":
                        await reading[1]
                    await eventually(lambda: fast.accounted == TOTAL and is_settled(slow))
                    for task in reading:
                        task.cancel()
            for bus in (one, two):
                statistics = bus.statistics()
                assert_publisher_balances(statistics)
                assert (statistics.published, statistics.accepted) == (PER_PUBLISHER + UNMATCHED,) * 2
            books = final_statistics(await stopped(broker))["books"]

    for reader in (fast, slow, leaver):
        reader.assert_in_order()
        reader.assert_balances()
    assert (fast.count, fast.subscription.dropped) == (TOTAL, 0)
    if policy == "disconnect":
        assert slow.ended is not None
        assert slow.ended.reason == "overflow"
    else:
        assert slow.accounted == TOTAL
        assert (slow.subscription.dropped == 0) is (policy == "block")

    assert_broker_balances(books)
    assert (books["accepted"], books["unmatched"]) == (TOTAL + PUBLISHERS * UNMATCHED, PUBLISHERS * UNMATCHED)
    known = [reader.subscription.statistics() for reader in (fast, slow, leaver)]
    handed_over = sum(each.received + sum(each.dropped_here.values()) for each in known)
    dropped = sum((Counter(each.dropped_by_broker) for each in known), Counter[str]())
    # What is left is of the one that was killed: no less than it printed.
    printed = sum('"payload"' in line for line in dying.stdout_lines)
    assert handed_over + printed <= books["handed_over"] <= handed_over + TOTAL
    assert dropped <= Counter(books["dropped"])
    assert Counter(books["dropped"]) - dropped <= Counter({"overflow": TOTAL, "disconnected": TOTAL})


def is_settled(reader: Reader) -> bool:
    return reader.ended is not None or reader.accounted == TOTAL


async def leave_after(reader: Reader, limit: int) -> None:
    await reader.run(limit)
    await reader.subscription.close()
    assert reader.subscription.statistics().pending == 0


async def test_a_publisher_killed_in_the_middle_leaves_the_broker_and_the_subscribers_balanced(
    engine: str, data_dir: Path
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine, options=QUICKLY_GIVEN_UP) as broker:
        async with connected(broker, 1) as (bus,), bus.subscribe("lines", overflow="block") as messages:
            command = [*quicbus_command(), "pub", "lines", "--lines"]
            environment = {**broker.environment, "QUICBUS_ENGINE": engine}
            with Launched(command, environment=environment, stdin=True) as publisher:
                publisher.write(b"".join(b"%d\n" % number for number in range(5_000)))
                received = [int((await messages.next(DEADLINE_S)).payload)]
                publisher.kill()
                publisher.wait()
            # All that the broker took comes, in order and without a hole.
            await bus.publish("lines", "-1")
            while received[-1] != -1:
                received.append(int((await messages.next(DEADLINE_S)).payload))
            books = final_statistics(await stopped(broker))["books"]
    assert received[:-1] == list(range(len(received) - 1))
    assert_broker_balances(books)
    assert books["accepted"] == books["handed_over"] == len(received)


@pytest.mark.parametrize("policy", ["drop_oldest", "block"])
async def test_the_books_balance_when_the_broker_is_killed_under_load(engine: str, data_dir: Path, policy: str) -> None:
    topics = ["load/0", "load/1"]
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 3, stall_timeout_s=2.0) as (one, two, subscriber):
            messages = await subscriber.subscribe("load/#", overflow=policy, max_pending=1_000)
            events, of_publishers = subscriber.events(), [bus.events() for bus in (one, two)]
            reader = Reader(messages)
            reader.may_read.set()
            is_over = False

            async def publish_until_over(bus: quicbus.Client, topic: str) -> None:
                number = 0
                while not is_over:
                    await bus.publish(topic, b"%d" % number)
                    number += 1

            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(reader.run())
                publishing = [
                    tasks.create_task(publish_until_over(bus, topic))
                    for bus, topic in zip((one, two), topics, strict=True)
                ]
                await eventually(lambda: all(len(reader.order.get(topic, ())) > 1_000 for topic in topics))
                broker.kill()
                await asyncio.to_thread(broker.wait)
                before = {topic: len(received) for topic, received in reader.order.items()}
                with BrokerProcess(data_dir=data_dir, engine=engine, listen=broker.address) as again:
                    gap = await wait_event(events, quicbus.Gap)
                    assert (gap.filter, gap.group) == ("load/#", None)
                    reached = {topic: len(received) + 500 for topic, received in reader.order.items()}
                    await eventually(lambda: all(len(reader.order[topic]) > count for topic, count in reached.items()))
                    is_over = True
                    await asyncio.gather(*publishing)
                    for bus in (one, two):
                        # What was on its way when the broker died is told, once.
                        with contextlib.suppress(quicbus.ConnectionLost):
                            await bus.flush()
                        await bus.flush()
                    await eventually(lambda: messages.pending == 0)
                    await stop_reading(reader, reading, subscriber)
                    after = final_statistics(await stopped(again))["books"]

            for bus in (one, two):
                statistics = bus.statistics()
                assert_publisher_balances(statistics)
                assert statistics.in_flight == statistics.buffered == statistics.dropped_while_disconnected == 0
                assert statistics.reconnects == 1
            lost = [bus.statistics().possibly_lost for bus in (one, two)]
            assert [(await wait_event(feed, quicbus.Disconnected)).possibly_lost for feed in of_publishers] == lost
            accepted = sum(bus.statistics().accepted for bus in (one, two))

    # No repeats and no reordering, across the gap too: numbers only grow.
    reader.assert_in_order()
    assert set(before) == set(topics)
    assert messages.statistics().gaps == 1
    # Nothing is missing but what is counted: what the second broker took, it handed over or dropped.
    assert_broker_balances(after)
    assert after["accepted"] - 1 <= accepted  # one is the reader's own, the last
    assert after["deliveries"] + after["unmatched"] == after["accepted"]
    published = sum(bus.statistics().published for bus in (one, two))
    assert published == accepted + sum(lost)
    assert reader.count + messages.dropped <= published


async def stop_reading(reader: Reader, reading: asyncio.Task[None], bus: quicbus.Client) -> None:
    """End the reader once the broker has nothing more for it: a message of its own comes last."""
    await bus.publish("load/end", b"0")
    await eventually(lambda: "load/end" in reader.order)
    reading.cancel()


def test_the_final_books_are_told_as_json(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        statistics = final_statistics(broker.stop())
    assert statistics["books"] == {
        "accepted": 0,
        "unmatched": 0,
        "deliveries": 0,
        "handed_over": 0,
        "dropped": {},
        "queued": 0,
        "arrived": 0,
        "forwarded": 0,
    }
    assert statistics["edge"]["refused"] == {}
