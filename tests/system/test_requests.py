"""Requests and groups between processes: one answer for each request, one member for each message."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.testing.launcher import BrokerProcess, Launched
from tests.cli.commands import start
from tests.system.buses import (
    DEADLINE_S,
    PAIRINGS,
    assert_broker_balances,
    connected,
    final_statistics,
    stopped,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICKLY_GIVEN_UP = ("--idle-timeout-s", "2", "--keep-alive-s", "0.5")


@contextlib.asynccontextmanager
async def process(broker: BrokerProcess, ready: str, *command: str) -> AsyncIterator[Launched]:
    """A `quicbus` command that has said on stderr that it is ready."""
    with start(broker, *command) as launched:
        await asyncio.to_thread(launched.wait_line, ready, stream="stderr")
        yield launched


@pytest.mark.parametrize(("client_engine", "engine"), PAIRINGS)
async def test_each_request_gets_its_own_reply_from_another_process(
    data_dir: Path, client_engine: str, engine: str
) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with (
            connected(broker, 2, engine=client_engine) as (one, two),
            process(broker, "answering", "reply", "echo/+", "--echo", "--concurrency", "16") as responder,
        ):
            for bus in (one, two):
                asked = [f"{bus is one} {number}" for number in range(100)]
                replies = await asyncio.gather(*(bus.request(f"echo/{text[-1]}", text) for text in asked))
                assert [reply.text() for reply in replies] == asked
            await asyncio.to_thread(responder.stop)
            # Whoever left is known to have left: nobody waits for him.
            with pytest.raises(quicbus.NoResponders, match="echo/1"):
                await one.request("echo/1", timeout=None)
            books = final_statistics(await stopped(broker))["books"]
    assert_broker_balances(books)


async def test_a_request_that_nobody_can_answer_is_told_without_waiting(shared_broker: BrokerProcess) -> None:
    async with connected(shared_broker, 2) as (bus, other):
        for _ in range(3):
            with pytest.raises(quicbus.NoResponders):
                await bus.request("nobody/there", timeout=None)
        async with other.subscribe("nobody/+") as messages:
            with pytest.raises(quicbus.RequestTimeout):  # somebody is there, and says nothing
                await bus.request("nobody/there", timeout=0.05)
            assert (await messages.next(DEADLINE_S)).reply_to
        with pytest.raises(quicbus.NoResponders):
            await bus.request("nobody/there", timeout=None)


async def test_a_responder_that_was_killed_is_missed_once_its_silence_is_noticed(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine, options=QUICKLY_GIVEN_UP) as broker:
        async with connected(broker, 1) as (bus,):
            async with process(broker, "answering", "reply", "echo", "--echo") as responder:
                assert (await bus.request("echo", "x")).text() == "x"
                responder.kill()
            with pytest.raises(quicbus.NoResponders):
                await ask_again_and_again(bus, "echo")


async def ask_again_and_again(bus: quicbus.Client, topic: str) -> None:
    while True:
        with contextlib.suppress(quicbus.RequestTimeout):
            await bus.request(topic, timeout=0.1)


async def test_a_request_ends_when_the_broker_that_would_bring_its_reply_is_killed(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 1, stall_timeout_s=1.0) as (bus,), bus.subscribe("silent") as requests:
            asking = asyncio.create_task(bus.request("silent", timeout=None))
            await requests.next(DEADLINE_S)
            broker.kill()
            with pytest.raises(quicbus.ConnectionLost):
                await asking
            await bus.close(timeout=0)


async def test_the_first_reply_counts_and_further_ones_reach_nobody(shared_broker: BrokerProcess) -> None:
    async with connected(shared_broker, 2) as (bus, responder):

        @responder.on("twice")
        async def twice(message: quicbus.Message) -> None:
            await message.reply(message.payload + b" first")
            await message.reply(message.payload + b" second")

        await responder.wait_handlers()
        for number in range(20):
            assert (await bus.request("twice", f"{number}")).text() == f"{number} first"


async def test_reply_topics_are_their_sessions_own(shared_broker: BrokerProcess) -> None:
    async with (
        connected(shared_broker, 3) as (asker, responder, eavesdropper),
        responder.subscribe("secret") as requests,
        eavesdropper.subscribe("#") as everything,
    ):
        asking = asyncio.create_task(asker.request("secret", "question", timeout=None))
        message = await requests.next(DEADLINE_S)
        assert message.reply_to is not None
        prefix, node, session, _ = message.reply_to.rsplit("/", 3)
        assert (prefix, node) == ("$quicbus/reply", shared_broker.node)
        assert len(bytes.fromhex(session)) == 16
        for filter in (
            message.reply_to,
            f"{prefix}/{node}/{session}/+",
            f"{prefix}/{node}/+/+",
            f"{prefix}/#",
            "$quicbus/#",
            "$quicbus/+/#",
        ):
            for group in (None, "thieves"):
                with pytest.raises(quicbus.NotPermitted):
                    await eavesdropper.subscribe(filter, group=group)
        await message.reply("answer")
        assert (await asking).text() == "answer"
        # The wildcard for all saw the question and will see this; the answer it did not.
        await asker.publish("afterwards", "x")
        seen = [await everything.next(DEADLINE_S) for _ in range(2)]
        assert [each.topic for each in seen] == ["secret", "afterwards"]


# --- groups ---------------------------------------------------------------------------------------------------------

TOTAL = 5_000


class Member:
    def __init__(self, subscription: quicbus.Subscription) -> None:
        self.subscription = subscription
        self.received: list[int] = []

    async def work(self, limit: int | None = None) -> None:
        async for message in self.subscription:
            self.received.append(int(message.payload))
            if len(self.received) == limit:
                await self.subscription.close()
                return
            await asyncio.sleep(0)


async def publish_all(bus: quicbus.Client, topic: str) -> None:
    for number in range(TOTAL):
        await bus.publish(topic, b"%d" % number)
    await bus.flush()


async def test_each_message_goes_to_exactly_one_member_also_of_those_that_leave(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine) as broker:
        async with connected(broker, 4) as (publisher, *buses), asyncio.TaskGroup() as tasks:

            async def worker(bus: quicbus.Client) -> Member:
                return Member(await bus.subscribe("jobs/#", group="workers", overflow="block", max_pending=40))

            staying = [await worker(bus) for bus in buses]
            leaving = [await worker(bus) for bus in buses]
            other_group = Member(await buses[0].subscribe("jobs/#", group="others", overflow="block"))
            alone = Member(await buses[1].subscribe("$share/alone/jobs/#", overflow="block"))
            no_group = Member(await buses[2].subscribe("jobs/#", overflow="block"))
            forever = [tasks.create_task(member.work()) for member in (*staying, other_group, alone, no_group)]
            left = [tasks.create_task(member.work(limit)) for member, limit in zip(leaving, (1, 50, 300), strict=True)]
            await publish_all(publisher, "jobs/a")
            await asyncio.gather(*left)
            late = Member(await buses[0].subscribe("jobs/#", group="workers"))
            forever.append(tasks.create_task(late.work()))
            await publish_all(publisher, "jobs/b")
            workers = [*staying, *leaving, late]

            def unread() -> int:
                """Messages that had come to a member when it left: counted, and given to nobody else."""
                return sum(member.subscription.statistics().dropped.get("unsubscribed", 0) for member in workers)

            def is_over() -> bool:
                worked = sum(len(member.received) for member in workers)
                whole = all(len(member.received) == 2 * TOTAL for member in (other_group, alone, no_group))
                return whole and worked + unread() == 2 * TOTAL

            await eventually(is_over)
            for task in forever:
                task.cancel()
            books = final_statistics(await stopped(broker))["books"]
    assert no_group.received == [*range(TOTAL), *range(TOTAL)]
    assert Counter(other_group.received) == Counter(alone.received) == Counter(no_group.received)
    counts = Counter(number for member in workers for number in member.received)
    assert max(counts.values()) <= 2
    assert 2 * TOTAL - counts.total() == unread() <= 3 * 40
    assert [len(member.received) for member in leaving] == [1, 50, 300]
    assert all(member.received for member in (*staying, late))
    assert_broker_balances(books)
    # A group counts as one subscription.
    assert books["deliveries"] == 4 * 2 * TOTAL
    assert sum(books["dropped"].values()) == 0


async def test_a_member_that_is_killed_takes_along_only_what_had_been_sent_to_it(engine: str, data_dir: Path) -> None:
    with BrokerProcess(data_dir=data_dir, engine=engine, options=QUICKLY_GIVEN_UP) as broker:
        command = ("sub", "jobs", "--group", "workers", "--overflow", "block", "--max-pending", "100", "--json")
        async with connected(broker, 2) as (publisher, bus), process(broker, "subscribed to", *command) as doomed:
            survivor = Member(await bus.subscribe("jobs", group="workers", overflow="block", max_pending=100))
            working = asyncio.create_task(survivor.work())
            publishing = asyncio.create_task(publish_all(publisher, "jobs"))
            await asyncio.to_thread(doomed.wait_line, "payload")
            doomed.kill()
            await asyncio.to_thread(doomed.wait)
            await publishing
            done = [int(json.loads(line)["payload"]) for line in doomed.stdout_lines if line.endswith("}\n")]
            # Half of its hundred may have been on its way to it; what waited at the broker goes to the survivor.
            await eventually(lambda: len(done) + len(survivor.received) >= TOTAL - 50)
            books = final_statistics(await stopped(broker))["books"]
            working.cancel()
    counts = Counter((*done, *survivor.received))
    assert set(counts.values()) == {1}
    assert_broker_balances(books)
    assert books["dropped"] == {}
