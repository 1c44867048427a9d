"""What subscribers get of what is published at another node: groups, requests, back-pressure, expiry, sizes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus import limits
from tests.system.brokers import brokers_of
from tests.system.buses import DEADLINE_S, assert_publisher_balances, wait_held
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.brokers import MeshOfBrokers


async def publish_one_by_one(bus: quicbus.Client, topic: str, numbers: range) -> None:
    """Each in a batch of its own: a batch stays together where there is room for it."""
    for number in numbers:
        await bus.publish(topic, b"%d" % number)
        await bus.flush()


async def read_into(received: list[int], messages: quicbus.Subscription) -> None:
    async for message in messages:
        received.append(int(message.payload))  # noqa: PERF401 (others look at it meanwhile)


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_each_message_reaches_one_member_of_a_group_in_the_whole_mesh(tmp_path: Path) -> None:
    async with brokers_of(tmp_path, "tokyo", "osaka", "kyoto") as mesh:
        publisher, *buses = await mesh.clients()
        async with (
            buses[0].subscribe("jobs/#", group="g") as one,
            buses[1].subscribe("jobs/#", group="g") as two,
            buses[1].subscribe("jobs/#", group="other") as other,
            asyncio.TaskGroup() as tasks,
        ):
            await asyncio.gather(*(each.wait_spread() for each in (one, two, other)))
            got: list[list[int]] = [[], [], []]
            reading = [tasks.create_task(read_into(*pair)) for pair in zip(got, (one, two, other), strict=True)]
            await publish_one_by_one(publisher, "jobs/a", range(200))
            await eventually(lambda: len(got[0]) + len(got[1]) == len(got[2]) == 200)
            for task in reading:
                task.cancel()
        # How many each gets depends on how near it is measured to be.
        assert sorted(got[0] + got[1]) == sorted(got[2]) == list(range(200))
        mesh.assert_books()


async def test_members_of_a_group_at_the_publishers_node_are_preferred_until_they_leave(tmp_path: Path) -> None:
    async with brokers_of(tmp_path, "tokyo", "osaka") as mesh:
        here, there = await mesh.clients()
        async with there.subscribe("jobs", group="g") as far:
            await far.wait_spread()
            async with here.subscribe("jobs", group="g") as near:
                await publish_one_by_one(here, "jobs", range(50))
                got = [int((await near.next(DEADLINE_S)).payload) for _ in range(50)]
            assert got == list(range(50))
            assert far.statistics().received == 0
            assert mesh.brokers[0].statistics().mesh.sent == 0
            await here.flush()
            await publish_one_by_one(here, "jobs", range(50, 100))
            got += [int((await far.next(DEADLINE_S)).payload) for _ in range(50)]
        assert sorted(got) == list(range(100))
        mesh.assert_books()


async def test_what_waits_for_a_member_that_leaves_goes_to_one_at_another_node(tmp_path: Path) -> None:
    total = 300
    async with brokers_of(tmp_path, "tokyo", "osaka", "kyoto") as mesh:
        publisher, one, two = await mesh.clients()
        stuck = await one.subscribe("jobs", group="g", overflow="block", max_pending=10)
        await stuck.wait_spread()
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(publish_one_by_one(publisher, "jobs", range(total)))
            await eventually(lambda: stuck.pending and mesh.brokers[1].statistics().books.queued)
            async with two.subscribe("jobs", group="g") as steady:
                await steady.wait_spread()
                got: list[int] = []
                reading = tasks.create_task(read_into(got, steady))
                await stuck.close()
                left = stuck.statistics().dropped["unsubscribed"]
                await publishing
                await eventually(lambda: len(got) + left == total)
                reading.cancel()
        assert len(set(got)) == len(got)
        assert left <= 10
        mesh.assert_books()


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_from_any_node(tmp_path: Path) -> None:
    async with brokers_of(tmp_path, "tokyo", "osaka", "kyoto") as mesh:
        buses = await mesh.clients()
        responder = buses[2]

        @responder.on("sum/#", group="adders")
        async def add(message: quicbus.Message) -> None:
            await message.reply(b"%d" % sum(map(int, message.payload.split())))

        await responder.wait_handlers()
        async with responder.subscribe("sum/#") as marker:
            # Interest travels in the order in which it came about.
            await marker.wait_spread()
        for at, bus in enumerate(buses):
            replies = await asyncio.gather(
                *(bus.request(f"sum/{at}", f"{at} {number}", timeout=DEADLINE_S) for number in range(50))
            )
            assert [int(reply.payload) for reply in replies] == [at + number for number in range(50)]
        mesh.assert_books()
        # Replies go to the node that they name and are nobody's interest: the third one never sees them.
        assert mesh.brokers[1].statistics().books.arrived == 50


async def test_a_request_that_nobody_in_the_mesh_takes_fails_at_once(tmp_path: Path) -> None:
    async with brokers_of(tmp_path, "tokyo", "osaka") as mesh:
        here, there = await mesh.clients()
        for bus in (here, there):
            with pytest.raises(quicbus.NoResponders):
                await bus.request("nobody/there", b"", timeout=2 * DEADLINE_S)
        async with there.subscribe("ask") as questions:
            await questions.wait_spread()
            asking = asyncio.create_task(here.request("ask", b"?", timeout=DEADLINE_S))
            await (await questions.next(DEADLINE_S)).reply(b"!")
            assert (await asking).payload == b"!"
        await eventually(lambda: mesh.brokers[0]._opened_mesh.mesh.plan(b"ask", ()).is_empty)
        with pytest.raises(quicbus.NoResponders):
            await here.request("ask", b"?", timeout=2 * DEADLINE_S)


# --- back-pressure ----------------------------------------------------------------------------------------------------


async def test_a_blocking_subscriber_holds_publishers_at_other_nodes_and_nobody_else(tmp_path: Path) -> None:
    total, payload = 5_000, b" " * 4_000
    async with brokers_of(tmp_path, "tokyo", "osaka", "kyoto") as mesh:
        publisher, near, far = await mesh.clients()
        other = await mesh.client(mesh.brokers[0])
        async with (
            near.subscribe("slow/#", overflow="block", max_pending=100) as slow,
            near.subscribe("quick") as same,
            far.subscribe("quick") as elsewhere,
            asyncio.TaskGroup() as tasks,
        ):
            await asyncio.gather(*(each.wait_spread() for each in (slow, same, elsewhere)))
            published = 0

            async def publish_slowly() -> None:
                nonlocal published
                for published in range(1, total + 1):
                    await publisher.publish("slow/1", b"%d" % published + payload)
                await publisher.flush()

            publishing = tasks.create_task(publish_slowly())
            await wait_held(publisher)
            await publish_one_by_one(other, "quick", range(500))
            for messages in (same, elsewhere):
                assert [int((await messages.next(DEADLINE_S)).payload) for _ in range(500)] == list(range(500))
            assert not publishing.done()
            assert published < total
            got = [int((await slow.next(DEADLINE_S)).payload) for _ in range(total)]
            assert got == list(range(1, total + 1))
            await publishing
            assert slow.dropped == 0
            assert_publisher_balances(publisher.statistics())
        mesh.assert_books()


# --- what is not to arrive --------------------------------------------------------------------------------------------


async def test_what_expires_at_another_node_is_dropped_there_and_counted(tmp_path: Path) -> None:
    async with brokers_of(tmp_path, "tokyo", "osaka") as mesh:
        publisher, subscriber = await mesh.clients()
        async with subscriber.subscribe("t", overflow="block", max_pending=10) as messages:
            await messages.wait_spread()
            for number in range(100):
                await publisher.publish("t", b"%d" % number, expires_in=0.3)
            await publisher.publish("t", b"100", expires_in=600)
            osaka = mesh.brokers[1]
            await eventually(lambda: osaka.statistics().books.dropped.get("expired"))
            received = [int((await messages.next(DEADLINE_S)).payload)]
            while received[-1] != 100:
                received.append(int((await messages.next(DEADLINE_S)).payload))
            await eventually(lambda: len(received) + messages.dropped == 101)
            assert received == sorted(set(received))
            assert set(messages.statistics().dropped) == {"expired"}
        mesh.assert_books()


async def test_nothing_of_what_nobody_elsewhere_wants_is_on_a_link(tmp_path: Path) -> None:
    total, size = 2_000, 10_000
    async with brokers_of(tmp_path, "tokyo", "osaka") as mesh:
        here, there = await mesh.clients()
        tokyo, osaka = mesh.brokers
        async with here.subscribe("home/#") as home, there.subscribe("else/#") as elsewhere:
            await asyncio.gather(home.wait_spread(), elsewhere.wait_spread())
            before = carried(mesh)
            for _ in range(total):
                await here.publish("home/a", bytes(size))
                await here.publish("nobody", bytes(size))
            for _ in range(total):
                await home.next(DEADLINE_S)
            await here.flush()
            assert tokyo.statistics().mesh.sent == osaka.statistics().mesh.received == 0
            # 40 MB were published; what keeps a link alive stays far below one thousandth of it.
            assert carried(mesh) - before < 40_000
            assert tokyo.statistics().books.forwarded == osaka.statistics().books.arrived == 0
        mesh.assert_books()


def carried(mesh: MeshOfBrokers) -> int:
    """Bytes that the links of the first broker have sent and received."""
    driver = mesh.brokers[0]._opened_mesh.driver
    statistics = [link.connection.statistics() for link in driver.links]
    return sum(each.bytes_sent + each.bytes_received for each in statistics)


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_messages_of_the_largest_size_cross_the_mesh(tmp_path: Path) -> None:
    async with brokers_of(tmp_path, "tokyo", "osaka", "kyoto") as mesh:
        publisher, *buses = await mesh.clients()
        payloads = [bytes((number,)) * limits.MAX_MESSAGE_SIZE for number in range(5)]
        subscriptions = [await bus.subscribe("large") for bus in buses]
        await asyncio.gather(*(each.wait_spread() for each in subscriptions))
        for payload in payloads:
            await publisher.publish("large", payload)
        for messages in subscriptions:
            assert [(await messages.next(DEADLINE_S)).payload for _ in payloads] == payloads
        with pytest.raises(quicbus.MessageTooLarge):
            await publisher.publish("large", bytes(limits.MAX_MESSAGE_SIZE + 1))
        mesh.assert_books()


async def test_ten_thousand_subscriptions_and_more_get_what_is_theirs(tmp_path: Path) -> None:
    """More than a node announces one by one: they are made coarser, and what comes in vain is delivered to nobody."""
    async with brokers_of(tmp_path, "tokyo", "osaka") as mesh:
        publisher, subscriber = await mesh.clients()
        further = await mesh.client(mesh.brokers[1])
        subscriptions = await asyncio.gather(
            *(subscriber.subscribe(f"plant/{number % 100}/{number}") for number in range(limits.MAX_SUBSCRIPTIONS)),
            *(further.subscribe(f"other/{number % 10}/{number}") for number in range(500)),
        )
        await subscriptions[-1].wait_spread()
        await subscriptions[0].wait_spread()
        wanted = [*range(0, limits.MAX_SUBSCRIPTIONS, 97)]
        for number in wanted:
            await publisher.publish(f"plant/{number % 100}/{number}", b"%d" % number)
            await publisher.publish(f"plant/{number % 100}/none", b"nobody's")
        for number in range(500):
            await publisher.publish(f"other/{number % 10}/{number}", b"%d" % number)
        for number in wanted:
            assert int((await subscriptions[number].next(DEADLINE_S)).payload) == number
        for number in range(500):
            messages = subscriptions[limits.MAX_SUBSCRIPTIONS + number]
            assert int((await messages.next(DEADLINE_S)).payload) == number
        assert sum(each.pending for each in subscriptions) == 0
        books = mesh.brokers[1].statistics().books
        assert books.handed_over == len(wanted) + 500
        mesh.assert_books()
