"""Several nodes: that both sides of a link always agree in the end, and the mesh stays one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus_broker.mesh.config import active_links
from quicbus_broker.mesh.outputs import State
from tests.broker.mesh.overlay.overlay_node import CONFIG
from tests.broker.mesh.overlay_world import Node, World, address_of, node_id

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId


def world_of(count: int, *, seed: int = 1, modes: tuple[str, ...] = ("hybrid",)) -> World:
    world = World()
    for number in range(count):
        world.add(Node(node_id(number + 1), seed=seed * 1000 + number, mode=modes[number % len(modes)]))
    world.introduce()
    return world


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 7])
def test_small_mesh_is_linked_completely_and_each_pair_by_one_connection(count: int, seed: int) -> None:
    world = world_of(count, seed=seed)

    world.run(40.0)

    for node in world.nodes.values():
        assert node.neighbors == [other for other in world.nodes if other != node.me]
        assert all(len(ids) == 1 for ids in node.connections.connected().values())
    assert world.accused == []


@pytest.mark.parametrize("seed", range(3))
def test_large_mesh_has_the_links_it_wants_on_both_sides(seed: int) -> None:
    world = world_of(40, seed=seed)

    world.run(40.0)

    target = active_links(39, CONFIG.small_mesh)
    assert world.one_sided() == []
    assert world.is_connected_graph()
    assert all(target - 1 <= len(node.neighbors) <= 2 * target for node in world.nodes.values())


def test_idle_mesh_dials_only_to_exchange_links() -> None:
    world = world_of(30)
    world.run(120.0)
    world.dials.clear()

    world.run(300.0)

    assert len(world.dials) / 30 < 2 * 300 / CONFIG.rotate_interval_s


@pytest.mark.parametrize("seed", range(5))
def test_servers_hybrids_and_clients_are_linked_where_they_can_be(seed: int) -> None:
    world = world_of(9, seed=seed, modes=("hybrid", "server", "client"))

    world.run(60.0)

    assert world.one_sided() == []
    assert world.is_connected_graph()
    modes = {node.me: node.mode for node in world.nodes.values()}
    for node in world.nodes.values():
        for other in node.neighbors:
            assert {modes[node.me], modes[other]} not in ({"client"}, {"server"})
    assert not any(modes[by] == "server" for by, _ in world.dials)
    clients = {address_of(node) for node, mode in modes.items() if mode == "client"}
    assert not any(address in clients for _, address in world.dials)


@pytest.mark.parametrize("seed", range(10))
def test_link_whose_frames_were_lost_heals_by_itself(seed: int) -> None:
    world = world_of(4, seed=seed)
    count = 0

    def loses(source: NodeId, target: NodeId, frame: object) -> bool:
        nonlocal count
        count += 1
        return world.now < 30.0 and count % 3 == 0

    world.loses = loses
    world.run(30.0)
    world.run(60.0)

    assert world.one_sided() == []
    assert all(len(node.neighbors) == 3 for node in world.nodes.values())


@pytest.mark.parametrize("end", ["Disconnect", "NeighborReply"])
def test_side_that_missed_the_end_or_the_grant_of_a_link_learns_of_it(end: str) -> None:
    world = world_of(20, seed=7)
    world.run(60.0)
    world.loses = lambda source, target, frame: type(frame).__name__ == end and world.now < 400.0
    world.run(340.0)

    world.run(120.0)

    assert world.one_sided() == []
    assert world.is_connected_graph()


@pytest.mark.parametrize("seed", range(5))
def test_killed_node_is_accused_by_its_neighbors(seed: int) -> None:
    world = world_of(5, seed=seed)
    world.run(40.0)

    world.kill(node_id(3))
    world.run(10.0)

    assert {target for _, target in world.accused} == {node_id(3)}
    assert len(world.accused) == 4


@pytest.mark.parametrize("seed", range(5))
def test_halves_that_took_each_other_for_failed_find_each_other_again(seed: int) -> None:
    world = world_of(6, seed=seed)
    world.run(40.0)
    half = {node_id(number) for number in (1, 2, 3)}
    world.cut = lambda source, target: (source in half) != (target in half)
    for node in world.nodes.values():
        for other in world.nodes:
            if (node.me in half) != (other in half):
                world.perform(node, node.set_state(other, State.FAILED, world.now))
    world.run(3600.0)
    assert world.one_sided() == []

    world.cut = lambda source, target: False
    world.run(2 * CONFIG.redial_max_s)

    assert world.one_sided() == []
    assert world.is_connected_graph()


@pytest.mark.parametrize("seed", range(5))
def test_survivors_of_a_crash_of_most_stay_one_mesh(seed: int) -> None:
    world = world_of(40, seed=seed)
    world.run(40.0)

    for number in range(1, 31):
        world.kill(node_id(number))
    for _ in range(12):
        world.run(5.0)
        for by, target in world.accused:
            if by not in world.down and target in world.down:
                world.perform(world.nodes[by], world.nodes[by].set_state(target, State.FAILED, world.now))
        world.accused.clear()

    assert world.is_connected_graph()
    assert [pair for pair in world.one_sided() if pair[1] not in world.down] == []
