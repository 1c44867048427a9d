"""What people see of a mesh of real brokers: peers, spread, events, counters, and brokers to go on with."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import quicbus
from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.testing.launcher import Launched, quicbus_command, run_quicbus
from quicbus_broker import (
    Broker,
    BrokerEvent,
    BrokerSettings,
    LinkDown,
    LinkUp,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    MemberSuspected,
)
from tests.system.buses import DEADLINE_S
from tests.system.nodes import linked, nodes_in, on, wait_members
from tests.waiting import eventually, eventually_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quicbus.client.events import EventFeed
    from quicbus.feeds import Feed


async def test_peers_of_two_nodes_are_the_same_two_each_with_itself_marked(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        tokyo = await nodes.start("tokyo")
        osaka = await nodes.start("osaka", tokyo, options=("--mode", "client"))
        seen = await wait_members(tokyo, linked("osaka"))
        assert {name: peer.is_self for name, peer in seen.items()} == {"tokyo": True, "osaka": False}
        assert (seen["tokyo"].url, seen["tokyo"].node) == (tokyo.url, tokyo.node)
        assert (seen["osaka"].url, seen["osaka"].mode, seen["osaka"].node) == ("", "client", osaka.node)
        seen = await wait_members(osaka, lambda members: linked("tokyo")(members) and members["tokyo"].rtt_ms)
        assert {name: peer.is_self for name, peer in seen.items()} == {"tokyo": False, "osaka": True}


async def test_a_subscription_that_has_spread_gets_what_is_published_elsewhere(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        tokyo = await nodes.start("tokyo")
        osaka = await nodes.start("osaka", tokyo)
        await wait_members(osaka, linked("tokyo"))
        async with on(tokyo) as publisher, on(osaka) as subscriber:
            for number in range(20):
                async with subscriber.subscribe(f"spread/{number}") as messages:
                    assert await messages.wait_spread() == 1
                    await publisher.publish(f"spread/{number}", b"now")
                    assert (await messages.next()).payload == b"now"


async def test_a_client_goes_on_at_a_broker_that_joined_after_it_had_connected(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        tokyo = await nodes.start("tokyo")
        async with on(tokyo, stall_timeout_s=1.0) as bus, bus.subscribe("a") as messages:
            events = bus.events()
            osaka = await nodes.start("osaka", tokyo)
            await wait_members(tokyo, linked("osaka"))
            await eventually(lambda: osaka.url in urls_of(bus))
            tokyo.kill()
            assert (await _connected(events)).node == osaka.node
            async with on(osaka) as publisher:
                await publisher.publish("a", b"over there")
                assert (await messages.next()).payload == b"over there"


async def _connected(events: EventFeed) -> quicbus.Connected:
    async for event in events:
        if isinstance(event, quicbus.Connected):
            return event
    raise AssertionError("the client was closed")


async def test_the_command_shows_two_nodes_of_one_name_apart(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        tokyo = await nodes.start("tokyo")
        for folder in ("one", "two"):
            prepare_node_folder(nodes.authority, "osaka", tmp_path / folder)
        twins = [await nodes.start(folder, tokyo) for folder in ("one", "two")]
        async with on(tokyo) as bus:
            await eventually_told(bus.peers, lambda peers: sum(peer.linked for peer in peers) == 2)
        environment = {**tokyo.environment, "QUICBUS_ENGINE": tokyo.engine}
        shown = await asyncio.to_thread(run_quicbus, "peers", "--json", environment=environment)
        found = {peer["node"]: peer for peer in json.loads(shown.stdout)}
        assert {found[twin.node]["url"] for twin in twins} == {twin.url for twin in twins}
        assert {found[twin.node]["name"] for twin in twins} == {"osaka"}
        shown = await asyncio.to_thread(run_quicbus, "peers", environment=environment)
        assert shown.stdout.count("osaka !") == 2
        assert "2 nodes have the name osaka: " in shown.stdout


async def test_watch_tells_who_comes_and_who_fails(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        tokyo = await nodes.start("tokyo")
        environment = {**tokyo.environment, "QUICBUS_ENGINE": tokyo.engine}
        with Launched([*quicbus_command(), "peers", "--watch", "--interval", "0.1"], environment=environment) as watch:
            await asyncio.to_thread(watch.wait_line, "answers here")
            osaka = await nodes.start("osaka", tokyo)
            await asyncio.to_thread(
                watch.wait_line, lambda line: f"osaka {osaka.node[:8]}" in line and "linked" in line
            )
            osaka.kill()
            await asyncio.to_thread(watch.wait_line, f"osaka {osaka.node[:8]} alive -> suspect")
            watch.interrupt()
            assert (await asyncio.to_thread(watch.wait)).code == 0


class Brokers:
    """Brokers of one mesh in this process."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.authority = Authority.create()
        self._folder = folder
        self._engine = engine

    def new(self, name: str, *seeds: Broker) -> Broker:
        """Return a broker to be entered; seeds are open."""
        path = self._folder / name
        prepare_node_folder(self.authority, name, path)
        seed = tuple(f"127.0.0.1:{broker.address[1]}" for broker in seeds)
        return Broker(BrokerSettings(data_dir=path, listen="127.0.0.1:0", engine=self._engine, seed=seed))  # type: ignore[arg-type]  # a name of the fixture


async def until(feed: Feed[BrokerEvent], wanted: Callable[[BrokerEvent], bool]) -> list[BrokerEvent]:
    """Return the events up to the one that is wanted."""
    events = []
    async for event in feed:
        events.append(event)
        if wanted(event):
            return events
    raise AssertionError(f"the feed ended after {events}")


async def test_a_broker_tells_who_joins_and_who_leaves(tmp_path: Path, engine: str) -> None:
    brokers = Brokers(tmp_path, engine)
    async with asyncio.timeout(DEADLINE_S), brokers.new("tokyo") as tokyo:
        feed = tokyo.events()
        async with brokers.new("osaka", tokyo) as osaka:
            node = osaka.node_id.hex()
            up = await until(feed, lambda event: isinstance(event, LinkUp))
            assert up == [MemberJoined(node, "osaka"), LinkUp(node, "osaka")]
        down = await until(feed, lambda event: isinstance(event, MemberLeft))
        assert down[-1] == MemberLeft(node, "osaka")
        assert {type(event) for event in down} <= {LinkDown, MemberLeft}
    assert feed.missed == 0
    assert [event async for event in feed if not isinstance(event, LinkDown)] == [], "it ends with the broker"


async def test_a_broker_that_dies_and_returns_is_suspected_and_recovers(tmp_path: Path, engine: str) -> None:
    brokers = Brokers(tmp_path, engine)
    async with asyncio.timeout(DEADLINE_S), nodes_in(tmp_path / "processes") as nodes, brokers.new("tokyo") as tokyo:
        prepare_node_folder(brokers.authority, "osaka", tmp_path / "processes" / "osaka")
        feed = tokyo.events()
        osaka = await nodes.start("osaka", f"127.0.0.1:{tokyo.address[1]}")
        await until(feed, lambda event: isinstance(event, LinkUp))
        osaka.kill()
        await until(feed, lambda event: isinstance(event, MemberSuspected))
        await nodes.start("osaka", f"127.0.0.1:{tokyo.address[1]}")
        events = await until(feed, lambda event: isinstance(event, MemberRecovered))
        assert {event.node for event in events} == {osaka.node}


async def test_counters_of_the_mesh_tell_what_went_where(tmp_path: Path, engine: str) -> None:
    brokers = Brokers(tmp_path, engine)
    async with asyncio.timeout(DEADLINE_S), brokers.new("tokyo") as tokyo:
        alone = tokyo.statistics().mesh
        assert (dict(alone.members), alone.links, alone.sent) == ({"alive": 1}, 0, 0)
        feed = tokyo.events()
        async with brokers.new("osaka", tokyo) as osaka:
            await until(feed, lambda event: isinstance(event, LinkUp))
            async with osaka.bus.subscribe("counted") as messages:
                assert await messages.wait_spread() == 1
                for number in range(5):
                    await tokyo.bus.publish("counted", str(number))
                    assert (await messages.next()).payload == str(number).encode()
                await tokyo.bus.publish("nobody elsewhere wants this", b"")
                await tokyo.bus.flush()
            here, there = tokyo.statistics().mesh, osaka.statistics().mesh
    assert (dict(here.members), here.links, here.sent, dict(here.dropped)) == ({"alive": 2}, 1, 5, {})
    assert (there.sent, there.relayed, there.lost_in_mesh, there.late, dict(there.dropped)) == (0, 0, 0, 0, {})
    assert (there.hops_mean, there.hops_max) == (1.0, 1)


async def test_clients_are_told_to_forget_a_broker_that_has_left(tmp_path: Path, engine: str) -> None:
    brokers = Brokers(tmp_path, engine)
    async with asyncio.timeout(DEADLINE_S), brokers.new("tokyo") as tokyo:
        connecting = quicbus.connect(tokyo.url, credentials=tokyo.credential_path, engine=engine)
        async with connecting as bus:
            assert urls_of(bus) == {tokyo.url}
            async with brokers.new("osaka", tokyo) as osaka:
                url = f"quic://127.0.0.1:{osaka.address[1]}"
                await eventually(lambda: url in urls_of(bus))
            await eventually(lambda: url not in urls_of(bus))
            assert urls_of(bus) == {tokyo.url}


def urls_of(bus: quicbus.Client) -> set[str]:
    """Where a client would go."""
    return {str(url) for url in bus._supervisor._plan.urls}
