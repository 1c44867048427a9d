"""Members that only dial and have nobody left."""

from __future__ import annotations

import random

from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.health.orphans import Orphans
from quicbus_broker.mesh.members.table import Entry, MemberTable
from quicbus_broker.mesh.outputs import ConnectionOpened, Output, ProbeFailed, State
from quicbus_broker.mesh.overlay.connections import Connections
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

ME, CLIENT, VIA, OTHER = node_id(0), node_id(1), node_id(2), node_id(3)


class World:
    def __init__(self, *via: bytes, mode: str = "client") -> None:
        self.table = MemberTable()
        self.put(CLIENT, mode=mode, via=via)
        self.put(VIA)
        self.connections = Connections(ME)
        self.orphans = Orphans(ME, self.table, self.connections, MeshConfig(), random.Random(1))
        self.orphans.start(0.0)

    def put(self, node: bytes, state: State = State.ALIVE, mode: str = "hybrid", via: tuple[bytes, ...] = ()) -> None:
        signed = sealed(node, mode=mode, via=via)
        self.table.put(Entry(FakeSigning(ME).open_record(signed), signed, state))

    def look(self, neighbors: tuple[bytes, ...] = (OTHER,)) -> list[Output]:
        outputs: list[Output] = []
        self.orphans.tick(self.orphans.next_timer(), neighbors, outputs)
        return outputs


def test_one_whose_links_are_all_gone_is_accused_the_second_time() -> None:
    world = World(VIA)
    world.put(VIA, State.FAILED)
    assert world.look() == []
    assert world.look() == [ProbeFailed(CLIENT)]


def test_one_that_names_this_node_and_is_not_connected_is_accused() -> None:
    world = World(VIA, ME)
    assert world.look() == []
    assert world.look() == [ProbeFailed(CLIENT)]


def test_one_that_says_in_between_that_it_is_linked_to_others_is_not() -> None:
    world = World(ME)
    world.look()
    world.put(CLIENT, mode="client", via=(VIA,))
    assert world.look() == world.look() == []


def test_one_with_a_link_to_a_member_that_lives_is_not() -> None:
    world = World(VIA)
    assert world.look() == world.look() == []


def test_one_that_is_connected_is_not() -> None:
    world = World(ME)
    world.connections.opened(ConnectionOpened(1, CLIENT, 1, False, "c:1"), 0.0, [])
    assert world.look() == world.look() == []


def test_one_that_can_be_dialed_is_left_to_those_who_dial_it() -> None:
    world = World(mode="hybrid")
    assert world.look() == world.look() == []


def test_a_node_without_neighbors_accuses_nobody() -> None:
    world = World(ME)
    assert world.look(()) == world.look(()) == []
