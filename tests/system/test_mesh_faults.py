"""Five broker processes under load, and what befalls them: the promises hold for those that are left."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import quicbus
from tests.system.buses import assert_broker_balances, wait_event
from tests.system.meshes import load_on, mesh_of, seeded
from tests.system.partitions import Partitions

if TYPE_CHECKING:
    from pathlib import Path

needs_sigstop = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")


async def test_without_faults_everybody_gets_everything_once_and_in_order(tmp_path: Path) -> None:
    async with mesh_of(tmp_path) as mesh, load_on(mesh) as load:
        await load.flows()
        await load.end()
        load.assert_exactly_once(mesh.names, mesh.names)
        published = {name: publisher.published for name, publisher in load.publishers.items()}
        statistics = await mesh.assert_books()
    for name, each in statistics.items():
        books, others = each["books"], sum(published.values()) - published[name]
        assert (books["accepted"], books["forwarded"], books["arrived"]) == (published[name], published[name], others)
        assert (books["unmatched"], books["dropped"]) == (0, {})
        assert books["handed_over"] == books["deliveries"] == sum(published.values())
        assert (each["mesh"]["lost_in_mesh"], each["mesh"]["late"], each["mesh"]["dropped"]) == (0, 0, {})


async def test_nodes_that_are_killed_are_noticed_and_their_clients_go_on_elsewhere(tmp_path: Path) -> None:
    rng = seeded()
    async with mesh_of(tmp_path) as mesh, load_on(mesh) as load:
        await load.flows()
        victims = rng.sample(mesh.names, 2)
        dead = {mesh.nodes[victim].node for victim in victims}
        survivors = mesh.others(*victims)
        feeds = [load.takers[victim].bus.events() for victim in victims]
        await mesh.kill(*victims)
        for feed in feeds:
            assert (await wait_event(feed, quicbus.Connected)).node not in dead
        for victim in victims:
            await mesh.wait_state(survivors, victim, "failed")
        await load.flows()
        await load.end()
        load.assert_exactly_once(survivors, survivors)
        await mesh.assert_books()


@needs_sigstop
async def test_a_node_that_hangs_loses_nothing_while_it_is_suspect_and_comes_back_after_it_failed(
    tmp_path: Path,
) -> None:
    rng = seeded()
    async with mesh_of(tmp_path) as mesh, load_on(mesh, stall_timeout_s=60.0) as load:
        await load.flows()
        victim = rng.choice(mesh.names)
        others = mesh.others(victim)
        with mesh.suspended(victim):
            await mesh.wait(others[0], lambda members: members[victim].state == "suspect")
        await mesh.wait_whole()
        await load.flows()
        load.assert_nothing_missing()
        with mesh.suspended(victim):
            await load.flows(others, others)
            await mesh.wait_state(others, victim, "failed")
            await load.flows(others, others)
        await mesh.wait_whole()
        await load.flows()
        await load.end()
        load.assert_exactly_once(others, others)
        await mesh.assert_books()


async def test_a_node_that_is_started_again_on_another_port_is_the_same_node(tmp_path: Path) -> None:
    rng = seeded()
    async with mesh_of(tmp_path) as mesh, load_on(mesh) as load:
        await load.flows()
        victim = rng.choice(mesh.names)
        others = mesh.others(victim)
        before = mesh.nodes[victim]
        boot = (await mesh.peers(victim))[victim].boot
        await mesh.kill(victim)
        after = await mesh.start(victim)
        assert (after.node, after.url == before.url) == (before.node, False)
        await mesh.wait_whole()
        for name in others:
            members = await mesh.wait(name, lambda members: members[victim].url == after.url)
            assert len(members) == len(mesh.names)
            assert members[victim].boot > boot
        await load.flows()
        await load.end()
        load.assert_exactly_once(others, others)
        await mesh.assert_books()


async def test_a_node_that_stops_has_left_and_takes_nothing_with_it(tmp_path: Path) -> None:
    rng = seeded()
    async with mesh_of(tmp_path) as mesh, load_on(mesh) as load:
        await load.flows()
        leaver = rng.choice(mesh.names)
        others = mesh.others(leaver)
        assert_broker_balances((await mesh.stop(leaver))["books"])
        await mesh.wait_state(others, leaver, "left")
        await load.flows()
        await load.end()
        # What its own publisher sent, before and after it moved, is among that.
        load.assert_exactly_once(load.publishers, others)
        await mesh.assert_books()


async def test_halves_that_were_apart_become_one_mesh_again(tmp_path: Path) -> None:
    rng = seeded()
    with Partitions.opened(rng, loss=0.03) as network:
        async with mesh_of(tmp_path, partitions=network) as mesh, load_on(mesh) as load:
            await load.flows()
            names = mesh.names
            rng.shuffle(names)
            here, there = names[:2], names[2:]
            restarted, steady = there[0], there[1:]
            with network.parted(here, there):
                await mesh.kill(restarted)
                await mesh.start(restarted)
                await mesh.wait_whole(there)
                for side, other in ((here, there), (there, here)):
                    for name in other:
                        await mesh.wait_state(side, name, "failed")
                await load.flows(here, here)
                await load.flows(steady, steady)
            await mesh.wait_whole()
            await load.flows()
            await load.end()
            assert network.lost
            assert network.cut
            for side in (here, steady):
                load.assert_exactly_once(side, side)
            await mesh.assert_books()
