"""Broadcasts through a hundred nodes: all are reached, with little redundancy, also after crashes."""

from __future__ import annotations

import pytest

from tests.broker.mesh.messages.broadcasting import Mesh


@pytest.mark.parametrize("seed", range(3))
def test_one_sender_reaches_a_hundred_nodes_with_little_redundancy(seed: int) -> None:
    mesh = Mesh(100, 9, seed)
    for number in range(1, 31):
        mesh.publish(mesh.nodes[0], number, number)
        mesh.run(1.0)
    mesh.run(5.0)
    assert mesh.missed() == 0
    assert mesh.redundancy() < 0.2
    assert mesh.last_hop() < 15


@pytest.mark.parametrize("at_once", [1, 10])
def test_many_senders_reach_a_hundred_nodes(at_once: int) -> None:
    mesh = Mesh(100, 9, at_once)
    own: dict[bytes, int] = {}
    for number in range(1, 51):
        node = mesh.rng.choice(mesh.nodes)
        own[node] = own.get(node, 0) + 1
        mesh.publish(node, number, own[node])
        mesh.run(1.0 if number % at_once == 0 else 0.0)
    mesh.run(5.0)
    assert mesh.missed() == 0
    assert mesh.redundancy() < 1
    assert mesh.last_hop() < 18


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_crash_of_many_nodes_is_repaired(share: float) -> None:
    mesh = Mesh(100, 9, 5)
    mesh.publish(mesh.nodes[0], 1, 1)
    mesh.run(5.0)
    dead = mesh.rng.sample(mesh.nodes[1:], round(100 * share))
    for node in dead:
        mesh.crash(node)
    for number in range(2, 12):
        mesh.publish(mesh.nodes[0], number, number)
        mesh.run(0.1)
    mesh.run(2.0)
    for node in dead:
        mesh.notice(node)
    mesh.run(20.0)
    assert mesh.missed() == 0
