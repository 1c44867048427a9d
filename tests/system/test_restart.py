"""Brokers that stop, die, hang and come back: clients go on by themselves, and what was lost is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.testing.launcher import BrokerProcess
from tests.system.buses import (
    DEADLINE_S,
    PAIRINGS,
    assert_broker_balances,
    assert_publisher_balances,
    connected,
    final_statistics,
    numbers,
    stopped,
    wait_event,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.client.events import EventFeed


PATIENT = ("--drain-timeout-s", str(DEADLINE_S))


async def killed(broker: BrokerProcess) -> None:
    broker.kill()
    await asyncio.to_thread(broker.wait)


@pytest.mark.parametrize(("client_engine", "engine"), PAIRINGS)
async def test_clients_come_back_and_subscribe_again_by_themselves(
    data_dir: Path, client_engine: str, engine: str
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as first:
        async with connected(first, 3, engine=client_engine, stall_timeout_s=1.0) as buses:
            publisher, subscriber, worker = buses
            feeds = [bus.events() for bus in buses]
            handled: list[bytes] = []

            @worker.on("t/#")
            async def handle(message: quicbus.Message) -> None:
                handled.append(message.payload)

            await worker.wait_handlers()
            async with (
                subscriber.subscribe("t/+") as messages,
                subscriber.subscribe("t/#", group="g", overflow="block") as grouped,
            ):
                await publisher.publish("t/1", b"before")
                assert (await messages.next(DEADLINE_S)).payload == b"before"
                assert (await grouped.next(DEADLINE_S)).payload == b"before"
                await eventually(lambda: handled == [b"before"])
                await killed(first)
                for feed in feeds:
                    await wait_event(feed, quicbus.Disconnected)
                with BrokerProcess(data_dir=data_dir, engine=engine, listen=first.address):
                    for feed in feeds:
                        connection = await wait_event(feed, quicbus.Connected)
                        assert (connection.url, connection.node, connection.reconnects) == (first.url, first.node, 1)
                    assert [bus.status for bus in buses] == [quicbus.Status.CONNECTED] * 3
                    # A subscription is confirmed anew in the order of the connection: a flush comes behind it.
                    await worker.ping(DEADLINE_S)
                    await subscriber.ping(DEADLINE_S)
                    await publisher.publish("t/2", b"after")
                    assert (await messages.next(DEADLINE_S)).payload == b"after"
                    assert (await grouped.next(DEADLINE_S)).payload == b"after"
                    await eventually(lambda: handled == [b"before", b"after"])
                    assert messages.statistics().gaps == grouped.statistics().gaps == 1
                    assert messages.dropped == grouped.dropped == 0


def publish_without_end(bus: quicbus.Client) -> None:
    for number in itertools.count():
        bus.publish_nowait("t", b"%d" % number + b" " * 100)


async def test_publishing_while_disconnected_is_buffered_and_then_waits(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as first:
        async with connected(first, 2, stall_timeout_s=1.0, offline_buffer_size=20_000) as (publisher, subscriber):
            events = publisher.events()
            messages = await subscriber.subscribe("t")
            await killed(first)
            await wait_event(events, quicbus.Disconnected)
            with pytest.raises(quicbus.WouldBlock, match="offline buffer is full"):
                publish_without_end(publisher)
            count = publisher.statistics().buffered
            assert count > 100
            waiting = asyncio.create_task(publisher.publish("t", b"%d" % count + b" " * 100))
            gone = asyncio.create_task(publisher.publish("t", b"never"))
            flushing = asyncio.create_task(publisher.flush())
            await wait_event(events, quicbus.Reconnecting)
            assert not waiting.done()
            assert not flushing.done()
            # A cancelled call has published nothing.
            gone.cancel()
            await asyncio.wait((gone,))
            of_subscriber = subscriber.events()
            with BrokerProcess(data_dir=data_dir, engine=engine, listen=first.address) as again:
                await waiting
                await flushing
                if not subscriber.statistics().reconnects:
                    await wait_event(of_subscriber, quicbus.Connected)
                await subscriber.ping(DEADLINE_S)
                await publisher.publish("t", b"-1")
                received = numbers([await messages.next(DEADLINE_S)])
                while received[-1] != -1:
                    received.append(int((await messages.next(DEADLINE_S)).payload))
                await publisher.flush()
                statistics = publisher.statistics()
                assert_publisher_balances(statistics)
                assert statistics.published == statistics.accepted == count + 2
                books = final_statistics(await stopped(again))["books"]
    # The publisher may have been back first: what went out before the subscription was there matched nobody.
    assert received == [*range(count + 2 - len(received), count + 1), -1]
    assert_broker_balances(books)
    assert (books["accepted"], books["unmatched"]) == (count + 2, count + 2 - len(received))


async def test_what_expires_while_disconnected_is_dropped_and_counted(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as first:
        async with connected(first, 1, stall_timeout_s=1.0) as (bus,):
            events = bus.events()
            await killed(first)
            await wait_event(events, quicbus.Disconnected)
            await bus.publish("t", b"short", expires_in=0.001)
            await bus.publish("t", b"long", expires_in=600)
            await wait_event(events, quicbus.Reconnecting)
            with BrokerProcess(data_dir=data_dir, engine=engine, listen=first.address):
                await bus.flush()
                statistics = bus.statistics()
                assert_publisher_balances(statistics)
                assert (statistics.accepted, statistics.dropped_while_disconnected) == (1, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
@pytest.mark.parametrize("end", ["goes on", "is started again"])
async def test_a_broker_that_hangs_is_noticed_and_iterators_go_on(engine: str, data_dir: Path, end: str) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 2, stall_timeout_s=1.0) as (publisher, subscriber):
            feeds = [publisher.events(), subscriber.events()]
            messages = await subscriber.subscribe("t")
            await publisher.publish("t", b"0")
            assert (await messages.next(DEADLINE_S)).payload == b"0"
            await publisher.flush()
            iterating = asyncio.create_task(messages.next(None))
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                await publisher.publish("t", b"1")  # on its way to a broker that does not read
                lost = 0
                for feed in feeds:
                    disconnected = await wait_event(feed, quicbus.Disconnected)
                    assert "no sign of life for 1 s" in disconnected.reason
                    lost += disconnected.possibly_lost
                assert lost == publisher.statistics().possibly_lost == 1
                assert publisher.status is subscriber.status is quicbus.Status.RECONNECTING
                assert not iterating.done()
                await publisher.publish("t", b"2")
                assert publisher.statistics().buffered == 1
                if end == "is started again":
                    await killed(broker)
            finally:
                if broker.is_running:
                    os.kill(broker.pid, signal.SIGCONT)
            if end == "is started again":
                with BrokerProcess(data_dir=data_dir, engine=engine, listen=broker.address):
                    await assert_resumed(publisher, subscriber, messages, iterating, feeds)
            else:
                await assert_resumed(publisher, subscriber, messages, iterating, feeds)


async def assert_resumed(
    publisher: quicbus.Client,
    subscriber: quicbus.Client,
    messages: quicbus.Subscription,
    iterating: asyncio.Task[quicbus.Message],
    feeds: list[EventFeed],
) -> None:
    for feed in feeds:
        await wait_event(feed, quicbus.Connected)
    await subscriber.ping(DEADLINE_S)
    with pytest.raises(quicbus.ConnectionLost, match="1 published messages"):
        await publisher.flush()
    await publisher.publish("t", b"3")
    await publisher.flush()
    received = [int((await iterating).payload)]
    while received[-1] != 3:
        received.append(int((await messages.next(DEADLINE_S)).payload))
    # Number 1 was possibly lost, number 2 may have been early for the new subscription; nothing comes twice.
    assert all(before < after for before, after in pairwise(received))
    assert set(received) <= {1, 2, 3}
    statistics = publisher.statistics()
    assert_publisher_balances(statistics)
    assert (statistics.published, statistics.accepted, statistics.possibly_lost) == (4, 3, 1)
    assert (statistics.reconnects, subscriber.statistics().reconnects) == (1, 1)


async def test_a_graceful_stop_delivers_what_is_queued(engine: str, data_dir: Path) -> None:
    total = 5_000
    with BrokerProcess(data_dir=data_dir, engine=engine, options=PATIENT) as broker:
        async with connected(broker, 2) as (publisher, subscriber):
            events = subscriber.events()
            messages = await subscriber.subscribe("t", max_pending=2 * total)
            block = await subscriber.subscribe("t", overflow="block", max_pending=100)
            for number in range(total):
                await publisher.publish("t", b"%d" % number)
            await publisher.flush()
            stopping = asyncio.create_task(stopped(broker))
            assert (await wait_event(events, quicbus.GoingAway)).deadline_s > 0
            assert numbers([await messages.next(DEADLINE_S) for _ in range(total)]) == list(range(total))
            assert numbers([await block.next(DEADLINE_S) for _ in range(total)]) == list(range(total))
            books = final_statistics(await stopping)["books"]
            # Clean: nothing was lost, and the client is ready for the next broker.
            disconnected = await wait_event(events, quicbus.Disconnected)
            assert (disconnected.code, disconnected.possibly_lost) == (0, 0)
            assert subscriber.status is quicbus.Status.RECONNECTING
    assert_broker_balances(books)
    assert (books["handed_over"], books["dropped"]) == (2 * total, {})


async def test_a_graceful_restart_under_load_loses_nothing_of_what_was_published(engine: str, data_dir: Path) -> None:
    received: list[int] = []
    with BrokerProcess(data_dir=data_dir, engine=engine, options=PATIENT) as first:
        async with (
            connected(first, 2) as (publisher, subscriber),
            subscriber.subscribe("t", overflow="block") as messages,
        ):
            is_over = False

            async def publish() -> None:
                number = 0
                while not is_over:
                    await publisher.publish("t", b"%d" % number)
                    number += 1
                    if not number % 100:
                        await asyncio.sleep(0)

            async def read() -> None:
                async for message in messages:
                    received.append(int(message.payload))  # noqa: PERF401 (others look at it meanwhile)

            events = subscriber.events()
            async with asyncio.TaskGroup() as tasks:
                publishing, reading = tasks.create_task(publish()), tasks.create_task(read())
                await eventually(lambda: len(received) > 2_000)
                before = final_statistics(await stopped(first))["books"]
                assert not before["dropped"]
                await eventually(lambda: len(received) == before["handed_over"])
                assert received == list(range(len(received)))
                with BrokerProcess(data_dir=data_dir, engine=engine, listen=first.address, options=PATIENT) as again:
                    await wait_event(events, quicbus.Gap)
                    reached = len(received)
                    await eventually(lambda: len(received) > reached + 500)
                    is_over = True
                    await publishing
                    await publisher.flush()
                    statistics = publisher.statistics()
                    after = final_statistics(await stopped(again))["books"]
                    reading.cancel()
            assert_publisher_balances(statistics)
            assert statistics.published == statistics.accepted == before["accepted"] + after["accepted"]
            assert statistics.possibly_lost == 0
    assert all(one < other for one, other in pairwise(received))
    assert len(received) == before["handed_over"] + after["handed_over"]
    # All that was published came, but for what matched nobody while the subscriber was on its way back.
    assert len(received) == statistics.published - before["unmatched"] - after["unmatched"]
