"""Small meshes in which a node is revoked: what becomes of it, of its record, interest and messages, at every node."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Trust
from quicbus.wire.node_frames import Discover, Update
from quicbus_broker.mesh.outputs import (
    CloseConnection,
    ConnectionOpened,
    Dial,
    FrameArrived,
    MemberRevoked,
    SelfRevoked,
    SendFrame,
    TrustLearned,
    UseConnection,
)
from quicbus_broker.mesh.overlay.connections import LINGER_S
from quicbus_broker.mesh.trust.expelling import REVOKED
from quicbus_broker.simulation.checks import not_converged
from quicbus_broker.simulation.converged import converged_world
from quicbus_broker.simulation.on_the_wire import ByteMeter
from quicbus_broker.simulation.stand_in_trust import trust_list
from quicbus_broker.simulation.world import Latency, World, mesh_of

if TYPE_CHECKING:
    from quicbus_broker.simulation.process import Process

TOPIC = "a/b"


class Small:
    """Four nodes that are linked to each other; the last of them is to be revoked."""

    def __init__(self, seed: int = 1, victims_mode: str = "hybrid") -> None:
        self.world = World(seed)
        for _ in range(4):
            self.world.add_place()
        seeds = [self.world.address_of(self.world.places[0])]
        # A node of mode server dials nobody: another one has its address from an earlier run.
        victim = self.world.places[3]
        self.world.places[0].remembered = ((victim.node, self.world.address_of(victim)),)
        self.processes = [
            self.world.start(place, seeds if place.index else (), mode=victims_mode if place.index == 3 else "hybrid")
            for place in self.world.places
        ]
        self.victim = self.processes[3]
        self.run()

    def run(self, seconds: float = 20.0) -> None:
        self.world.schedule.run_for(seconds)

    def revoke(self, at: int = 0) -> None:
        self.world.revoke(self.world.places[3], self.processes[at])

    def names(self, at: int) -> list[str]:
        return sorted(member.name for member in mesh_of(self.processes[at]).members())

    def feed(self, process: Process, *events: ConnectionOpened | FrameArrived) -> list[object]:
        return [output for event in events for output in mesh_of(process).handle(event, process.now)]


def test_a_revoked_node_is_no_member_anywhere_and_stops_by_itself() -> None:
    small = Small()
    small.revoke()
    small.run(2.0)
    assert not small.victim.is_up
    for at in range(3):
        assert small.names(at) == ["node-0", "node-1", "node-2"]
    assert not_converged(small.world, (TOPIC,)) == []
    assert small.world.events["MemberRevoked"] == 3
    assert small.world.events["TrustLearned"] == 3
    assert small.world.events["SelfRevoked"] == 1


def test_its_interest_is_void() -> None:
    small = Small()
    small.world.subscribe(small.victim, TOPIC)
    small.run(1.0)
    assert mesh_of(small.processes[1]).plan(TOPIC.encode(), []).direct
    small.revoke()
    small.run(2.0)
    for process in small.processes[:3]:
        assert mesh_of(process).plan(TOPIC.encode(), []).is_empty


def test_a_node_that_was_away_learns_of_it_when_it_returns() -> None:
    small = Small()
    away = small.processes[2]
    small.world.crash(away)
    small.run(2.0)
    small.revoke()
    small.run(60.0)
    back = small.world.start(small.world.places[2], [small.world.address_of(small.world.places[0])])
    small.run(5.0)
    assert small.world.trusts[back].is_revoked(small.victim.node)
    assert sorted(member.name for member in mesh_of(back).members()) == ["node-0", "node-1", "node-2"]


def test_a_revoked_node_that_was_away_is_told_when_it_returns() -> None:
    small = Small()
    small.world.partition([3], [0, 1, 2], 100.0)
    small.run(50.0)
    small.revoke(at=1)
    small.run(30.0)
    assert small.processes[3] in small.world.processes
    small.run(60.0)
    assert small.processes[3] not in small.world.processes
    assert small.world.places[3].is_told


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_dials_nobody_and_was_cut_off_is_dialed_to_be_told(seed: int) -> None:
    small = Small(seed, victims_mode="server")
    small.world.partition([3], [0, 1, 2], 100.0)
    small.run(50.0)
    small.revoke(at=1)
    small.run(30.0)
    assert small.victim in small.world.processes
    small.run(70.0)
    assert small.victim not in small.world.processes
    assert small.world.places[3].is_told


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_cut_off_in_the_very_moment_of_its_revocation_is_told_later(seed: int) -> None:
    small = Small(seed, victims_mode="server")
    small.world.partition([3], [0, 1, 2], 5.0)
    small.revoke()
    small.run(4.0)
    assert small.victim in small.world.processes
    small.run(700.0)
    assert small.victim not in small.world.processes
    assert small.world.places[3].is_told


def test_a_server_that_was_down_is_told_within_a_day_and_dialed_no_longer() -> None:
    small = Small(victims_mode="server")
    small.world.crash(small.victim)
    small.run(60.0)
    small.revoke()
    small.run(3600.0)
    back = small.world.start(small.world.places[3], (), mode="server")
    small.run(60.0)
    assert back not in small.world.processes
    assert small.world.places[3].is_told


def test_nobody_takes_the_record_of_a_revoked_node_from_one_that_does_not_know_yet() -> None:
    small = Small()
    records = mesh_of(small.victim)._membership.own_signed
    small.revoke()
    small.run(2.0)
    first = small.processes[0]
    connection = next(iter(first.ends))
    outputs = small.feed(first, FrameArrived(connection, Update(records=(records,))))
    assert outputs == []
    assert small.names(0) == ["node-0", "node-1", "node-2"]
    assert mesh_of(first).statistics().dropped == {}


def test_a_revoked_node_that_connects_gets_the_list_and_nothing_else_and_is_then_refused() -> None:
    small = Small()
    small.world.crash(small.victim)
    small.run(60.0)
    small.revoke()
    first, mesh, node = small.processes[0], mesh_of(small.processes[0]), small.victim.node
    signed = small.world.trusts[first].signed
    assert not mesh.is_refused(node, first.now)

    outputs = small.feed(
        first, ConnectionOpened(99, node, small.victim.boot, False, "h:1"), FrameArrived(99, Discover())
    )
    assert outputs == [UseConnection(node, 99), SendFrame(node, Trust(signed=signed)), UseConnection(node, None)]
    assert mesh.is_refused(node, first.now)
    assert mesh.next_timer() <= first.now + LINGER_S
    closed = [output for output in mesh.tick(first.now + LINGER_S) if isinstance(output, CloseConnection)]
    assert closed == [CloseConnection(99, CloseCode.CREDENTIAL_REVOKED, REVOKED)]


def test_the_driver_is_told_what_to_keep_and_whom_to_stop() -> None:
    small = Small()
    second, third = small.processes[1], small.processes[2]
    small.world.crash(small.victim)
    connection = next(number for number, end in third.ends.items() if end.peer.host is second)
    small.world.partition([2], [0, 1, 3], 1.0)
    small.revoke()
    signed = small.world.trusts[small.processes[0]].signed
    outputs = small.feed(third, FrameArrived(connection, Trust(signed=signed)))
    assert outputs[0] == TrustLearned(signed)
    assert MemberRevoked(small.victim.node, "node-3") in outputs
    assert SelfRevoked() not in outputs


def test_a_revoked_node_that_is_remembered_is_not_dialed() -> None:
    small = Small()
    small.revoke()
    first, other = small.processes[0], b"o" * 16
    remembered = ((small.victim.node, "h:1"), (other, "h:2"))
    mesh = small.world.make_mesh(small.world.places[0], "hybrid", 9, small.world.trusts[first])
    mesh.start(addresses=(), seeds=(), remembered=remembered, now=first.now)
    dialed = [output for after in range(1, 30) for output in mesh.tick(first.now + after) if isinstance(output, Dial)]
    assert {dial.node for dial in dialed} == {other}


def test_a_member_that_sends_lists_without_end_is_thrown_out() -> None:
    small = Small()
    first = small.processes[0]
    connection = next(iter(first.ends))
    small.revoke()
    stale = trust_list(0, [])
    outputs = small.feed(first, *[FrameArrived(connection, Trust(signed=stale)) for _ in range(60)])
    assert [output for output in outputs if isinstance(output, CloseConnection)]


def test_in_a_large_mesh_a_revocation_is_everywhere_within_a_second_and_comes_to_each_a_few_times() -> None:
    world = converged_world(200, 1, latency=Latency(1, 0.01, 0.1))
    world.schedule.run_for(2.0)
    frames: Counter[str] = Counter()
    world.network.meter = ByteMeter(frames, Counter())
    victim = world.processes[5]
    world.revoke(world.places[5], world.processes[0])
    world.schedule.run_for(1.0)
    assert victim not in world.processes
    assert all(world.trusts[process].is_revoked(victim.node) for process in world.processes)
    assert all(victim.node not in mesh_of(process).neighbors for process in world.processes)
    assert frames["Trust"] < 5 * 200
