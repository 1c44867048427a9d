"""What a slow subscriber costs: nothing for the others when it drops; the publisher's patience when it blocks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.testing.launcher import BrokerProcess
from tests.system.buses import (
    DEADLINE_S,
    assert_broker_balances,
    assert_publisher_balances,
    connected,
    final_statistics,
    numbers,
    stopped,
    wait_event,
    wait_held,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TOTAL = 20_000


async def publish_all(bus: quicbus.Client, topic: str, payloads: Iterable[bytes]) -> None:
    for payload in payloads:
        await bus.publish(topic, payload)
    await bus.flush()


async def read(messages: quicbus.Subscription, count: int) -> list[int]:
    return numbers([await messages.next(DEADLINE_S) for _ in range(count)])


async def read_into(received: list[int], messages: quicbus.Subscription) -> None:
    async for message in messages:
        received.append(int(message.payload))  # noqa: PERF401 (what came stays when it ends by raising)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_a_subscriber_that_reads_nothing_costs_the_others_nothing(
    engine: str, data_dir: Path, policy: str
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 3) as (publisher, fast, slow):
            events = slow.events()
            async with (
                # On the same connection as the slow one, on a connection of its own, and slow.
                slow.subscribe("t", overflow="block") as neighbour,
                fast.subscribe("t", overflow="block") as messages,
                slow.subscribe("t", overflow=policy, max_pending=100) as stuck,
                asyncio.TaskGroup() as tasks,
            ):
                readers = [tasks.create_task(read(each, TOTAL)) for each in (messages, neighbour)]
                await publish_all(publisher, "t", (b"%d" % number for number in range(TOTAL)))
                for reader in readers:
                    assert await reader == list(range(TOTAL))
                assert messages.dropped == neighbour.dropped == 0
                # All of it passed while the slow one had its hundred and not one more.
                assert (await wait_event(events, quicbus.MessagesDropped)).filter == "t"
                await eventually(lambda: stuck.dropped == TOTAL - 100)
                assert stuck.pending <= 50
                kept = await read(stuck, 100)
                first, last = list(range(50)), list(range(TOTAL - 50, TOTAL))
                assert kept == (first + last if policy == "drop_oldest" else list(range(100)))
                assert stuck.statistics().dropped == {"overflow": TOTAL - 100}
            assert_publisher_balances(publisher.statistics())
            assert publisher.statistics().accepted == TOTAL
            books = final_statistics(await stopped(broker))["books"]
    assert_broker_balances(books)
    assert books["dropped"] == {"overflow": TOTAL - 100}
    assert books["handed_over"] == 2 * TOTAL + 100


async def test_block_makes_the_publisher_wait_and_loses_nothing(engine: str, data_dir: Path) -> None:
    payload = bytes(4_000)
    total = 4_000  # four times what a publisher may have on its way
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 3) as (publisher, other, subscriber):
            async with (
                subscriber.subscribe("slow", overflow="block", max_pending=100) as slow,
                subscriber.subscribe("quick") as quick,
                asyncio.TaskGroup() as tasks,
            ):
                publishing = tasks.create_task(
                    publish_all(publisher, "slow", (b"%05d" % number + payload for number in range(total)))
                )
                await wait_held(publisher)
                with pytest.raises(quicbus.WouldBlock):
                    publisher.publish_nowait("slow", bytes(1_000_000))
                # Other publishers, and other subscriptions of the same client, do not wait.
                await publish_all(other, "quick", (b"%d" % number for number in range(1_000)))
                assert await read(quick, 1_000) == list(range(1_000))
                assert not publishing.done()

                received = [int((await slow.next(DEADLINE_S)).payload[:5]) for _ in range(total)]
                await publishing
                assert received == list(range(total))
                assert slow.dropped == 0
            assert_publisher_balances(publisher.statistics())
            assert publisher.statistics().accepted == total
            books = final_statistics(await stopped(broker))["books"]
    assert_broker_balances(books)
    assert (books["handed_over"], books["dropped"]) == (total + 1_000, {})


async def test_a_blocking_subscriber_without_progress_is_ended_and_the_publisher_goes_on(
    engine: str, data_dir: Path
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine, options=["--block-timeout-s", "0.5"]) as broker:
        async with connected(broker, 2) as (publisher, subscriber):
            events = subscriber.events()
            stuck = await subscriber.subscribe("t", overflow="block", max_pending=10)
            await publish_all(publisher, "t", [b"%d" % number + bytes(4_000) for number in range(3_000)])
            failed = await wait_event(events, quicbus.SubscriptionFailed)
            assert isinstance(failed.error, quicbus.SubscriptionEnded)
            assert failed.error.reason == "block_timeout"
            # What had arrived can still be read; then it is told.
            arrived = stuck.pending
            assert arrived == 5
            for _ in range(arrived):
                await stuck.next(DEADLINE_S)
            with pytest.raises(quicbus.SubscriptionEnded, match="block_timeout"):
                await stuck.next(DEADLINE_S)
            assert publisher.statistics().accepted == 3_000
            statistics = stuck.statistics()
            books = final_statistics(await stopped(broker))["books"]
    assert_broker_balances(books)
    assert books["dropped"] == statistics.dropped_by_broker
    assert books["deliveries"] == statistics.received + sum(statistics.dropped.values())
    assert books["accepted"] == books["deliveries"] + books["unmatched"] == 3_000


async def test_disconnect_ends_the_subscription_that_falls_behind_and_no_other(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 2) as (publisher, subscriber):
            slow = await subscriber.subscribe("t", overflow="disconnect", max_pending=20)
            async with subscriber.subscribe("t", overflow="block") as messages, asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(read(messages, 1_000))
                await publish_all(publisher, "t", (b"%d" % number for number in range(1_000)))
                assert await reading == list(range(1_000))
                received: list[int] = []
                with pytest.raises(quicbus.SubscriptionEnded) as caught:
                    await read_into(received, slow)
                assert caught.value.reason == "overflow"
                assert received == list(range(len(received)))
                assert len(received) <= 20
            # The name is free again, and so is the connection.
            async with subscriber.subscribe("t", overflow="disconnect", max_pending=20) as again:
                await publisher.publish("t", b"1")
                assert await read(again, 1) == [1]
            books = final_statistics(await stopped(broker))["books"]
    assert_broker_balances(books)
    assert books["handed_over"] == 1_000 + len(received) + 1
