"""Whole brokers that are one mesh, over UDP on loopback, both engines mixed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.identity import Authority, prepare_node_folder
from quicbus_broker import Broker, BrokerSettings
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEADLINE_S = 120.0
ENGINES = ("qh3", "aioquic", "qh3")


def settings(folder: Path, **changes: object) -> BrokerSettings:
    return BrokerSettings(**{"listen": "127.0.0.1:0", "data_dir": folder, **changes})  # type: ignore[arg-type]  # checked by BrokerSettings


@contextlib.asynccontextmanager
async def mesh_of(tmp_path: Path, *names: str, authority: Authority | None = None) -> AsyncIterator[list[Broker]]:
    """Brokers that all know and link each other; the first is the others' seed."""
    authority = authority or Authority.create()
    async with asyncio.timeout(DEADLINE_S), contextlib.AsyncExitStack() as stack:
        brokers: list[Broker] = []
        for index, name in enumerate(names):
            prepare_node_folder(authority, name, tmp_path / name)
            seed = (f"127.0.0.1:{brokers[0].address[1]}",) if brokers else ()
            engine = ENGINES[index % len(ENGINES)]
            brokers.append(await stack.enter_async_context(Broker(settings(tmp_path / name, seed=seed, engine=engine))))
        await eventually(lambda: all(len(links_of(broker)) == len(names) - 1 for broker in brokers))
        yield brokers


def links_of(broker: Broker) -> list[str]:
    return sorted(member.name for member in broker._opened_mesh.mesh.members() if member.is_linked)


def connect(broker: Broker) -> contextlib.AbstractAsyncContextManager[quicbus.Client]:
    return quicbus.connect(broker.url, credentials=broker.credential_path)


async def test_three_brokers_become_one_mesh_through_one_seed(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", "tokyo", "lima") as brokers:
        seen = [sorted(peer.name for peer in await broker.bus.peers()) for broker in brokers]

        assert seen == [["lima", "oslo", "tokyo"]] * 3
        assert [links_of(broker) for broker in brokers] == [["lima", "tokyo"], ["lima", "oslo"], ["oslo", "tokyo"]]
        assert all(broker._opened_mesh.mesh.is_joined for broker in brokers)


async def test_what_is_published_on_one_broker_reaches_subscribers_on_all(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", "tokyo", "lima") as brokers, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(broker)) for broker in brokers]
        subscriptions = [await stack.enter_async_context(client.subscribe("a/#")) for client in clients]
        for subscription in subscriptions:
            await subscription.wait_spread()

        for number in range(100):
            await clients[1].publish("a/b", b"%d" % number, headers={"n": str(number)})
        received = [[await each.next(DEADLINE_S) for _ in range(100)] for each in subscriptions]

        for messages in received:
            assert [message.payload for message in messages] == [b"%d" % number for number in range(100)]
            assert {message.publisher for message in messages} == {clients[1].name}
        assert [broker.statistics().books.balance for broker in brokers] == [0, 0, 0]


async def test_what_nobody_elsewhere_wants_stays_home(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", "tokyo") as (oslo, tokyo):
        async with oslo.bus.subscribe("a") as messages:
            await oslo.bus.publish("a", b"1")
            await messages.next(DEADLINE_S)

        assert oslo.statistics().mesh.sent == 0
        assert tokyo.statistics().books.arrived == 0


async def test_a_group_gets_each_message_once_in_the_whole_mesh(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", "tokyo", "lima") as brokers, contextlib.AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(broker.bus.subscribe("jobs", group="workers")) for broker in brokers[1:]
        ]
        for member in members:
            await member.wait_spread()

        for number in range(50):
            await brokers[0].bus.publish("jobs", b"%d" % number)
            await asyncio.sleep(0)
        await eventually(lambda: sum(member.pending for member in members) == 50)

        got = [await member.next(DEADLINE_S) for member in members for _ in range(member.pending)]
        assert sorted(int(message.payload) for message in got) == list(range(50))


async def test_a_request_is_answered_from_another_broker(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", "tokyo") as (oslo, tokyo):

        async def answer() -> None:
            async with tokyo.bus.subscribe("time") as requests:
                await requests.wait_spread()
                ready.set()
                async for request in requests:
                    await request.reply(b"noon")

        ready = asyncio.Event()
        task = asyncio.create_task(answer())
        await ready.wait()
        reply = await oslo.bus.request("time", b"?", timeout=DEADLINE_S)
        task.cancel()

        assert reply.payload == b"noon"
        with pytest.raises(quicbus.NoResponders):
            await oslo.bus.request("nobody", b"?", timeout=DEADLINE_S)


async def test_a_blocking_subscriber_on_another_broker_loses_nothing(tmp_path: Path) -> None:
    total = 3000
    async with mesh_of(tmp_path, "oslo", "tokyo") as (oslo, tokyo):
        async with tokyo.bus.subscribe("t", overflow="block", max_pending=50) as messages:
            await messages.wait_spread()

            async def publish() -> None:
                for number in range(total):
                    await oslo.bus.publish("t", b"%d" % number)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(publish())
                received = [int((await messages.next(DEADLINE_S)).payload) for _ in range(total)]

        assert received == list(range(total))
        assert oslo.statistics().mesh.dropped == tokyo.statistics().mesh.dropped == {}


async def test_a_broker_that_stops_has_left_and_what_it_held_has_arrived(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", "tokyo") as (oslo, tokyo), oslo.bus.subscribe("last") as messages:
        await messages.wait_spread()
        await eventually(lambda: not tokyo._opened_mesh.mesh.plan(b"last", ()).is_empty)
        await tokyo.bus.publish("last", b"words")
        await tokyo.stop()

        assert (await messages.next(DEADLINE_S)).payload == b"words"
        states = {member.name: member.state.value for member in oslo._opened_mesh.mesh.members()}
        assert states == {"oslo": "alive", "tokyo": "left"}


async def test_of_two_processes_with_one_key_the_older_stops_and_says_why(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "oslo", authority=(authority := Authority.create())) as (oslo,):
        prepare_node_folder(authority, "tokyo", tmp_path / "older")
        seed = (f"127.0.0.1:{oslo.address[1]}",)

        async def run_both() -> None:
            async with Broker(settings(tmp_path / "older", seed=seed)) as older:
                shutil.copytree(tmp_path / "older", tmp_path / "later")
                async with Broker(settings(tmp_path / "later", seed=seed)) as later:
                    await older.wait_closed()
                    assert not later.is_closed
                    await asyncio.Event().wait()

        with pytest.raises(quicbus.DataFolderError, match="started later"):
            await run_both()


async def test_a_node_of_another_mesh_stays_alone_and_is_told_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh_of(tmp_path, "oslo") as (oslo,):
        prepare_node_folder(Authority.create(), "stranger", tmp_path / "stranger")
        seed = f"127.0.0.1:{oslo.address[1]}"
        async with Broker(settings(tmp_path / "stranger", seed=(seed,))) as stranger:
            await eventually(lambda: f"no link to {seed}" in caplog.text)

            assert [member.name for member in stranger._opened_mesh.mesh.members()] == ["stranger"]
            assert "what answers is no node of this mesh" in caplog.text
        assert [member.name for member in oslo._opened_mesh.mesh.members()] == ["oslo"]
