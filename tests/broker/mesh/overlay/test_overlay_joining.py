"""Whom a node dials to join, and what it does while nobody answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Neighbor
from quicbus_broker.mesh.outputs import CloseConnection, Dial, NeighborUp, SendFrame, State, UseConnection
from tests.broker.mesh.overlay.overlay_node import CONFIG, GRANTED, ME, A, B, dials, fail
from tests.broker.mesh.overlay_world import Node, address_of

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import Output


def test_start_dials_every_seed_at_once() -> None:
    node = Node(ME)
    outputs: list[Output] = []

    node.overlay.start(("a:1", "b:1"), (), 0.0, outputs)

    assert outputs == [Dial("a:1", None), Dial("b:1", None)]


def test_first_connection_of_a_joining_node_asks_urgently() -> None:
    node = Node(ME)
    node.overlay.start((address_of(A),), (), 0.0, [])

    outputs = node.opened(1, A, 0.1, is_dialer=True)

    assert outputs == [UseConnection(A, 1), SendFrame(A, Neighbor(urgent=True))]
    assert node.take(A, GRANTED, 0.2) == [NeighborUp(A)]
    assert node.take(A, GRANTED, 0.2) == []


def test_alone_without_seeds_nothing_is_dialed() -> None:
    node = Node(ME)
    node.overlay.start((), (), 0.0, [])

    assert dials(node.run(0.0, 300.0)) == []


def test_seed_that_does_not_answer_is_dialed_for_ever_with_growing_pauses() -> None:
    node = Node(ME)
    node.overlay.start(("a:1",), (), 0.0, [])
    now = 0.0
    pauses: list[float] = []
    outputs: list[Output]

    for _ in range(200):
        fail(node, "a:1", None, now)
        failed_at, outputs = now, []
        while not outputs:
            now = node.overlay.next_timer()
            outputs = node.tick(now)
        assert outputs == [Dial("a:1", None)]
        pauses.append(now - failed_at)

    assert max(pauses[:2]) <= 4 * CONFIG.redial_min_s
    assert all(CONFIG.redial_min_s <= pause <= CONFIG.redial_max_s for pause in pauses)
    assert sum(pauses[100:]) > 100 * CONFIG.redial_max_s / 3


def test_seed_that_turns_out_to_be_this_node_is_forgotten() -> None:
    node = Node(ME)
    node.overlay.start((address_of(ME),), (), 0.0, [])

    outputs = node.opened(1, ME, 0.1, is_dialer=True)

    assert [type(output) for output in outputs] == [CloseConnection]
    assert dials(node.run(0.1, 500.0)) == []


def test_seed_that_refuses_for_good_is_tried_at_the_longest_pause() -> None:
    node = Node(ME)
    node.overlay.start(("a:1",), (), 0.0, [])

    fail(node, "a:1", None, 1.0, is_final=True)

    assert dials(node.run(1.0, 1.0 + CONFIG.redial_max_s - 0.1)) == []
    assert dials(node.run(30.9, 1.0 + CONFIG.redial_max_s)) == [None]


def test_with_a_renewed_certificate_those_that_refused_the_old_one_are_dialed_at_once() -> None:
    node = Node(ME)
    node.overlay.start(("a:1",), (), 0.0, [])
    node.knows(B)
    node.run(0.0, 0.5)
    fail(node, "a:1", None, 1.0, is_final=True)
    fail(node, address_of(B), B, 1.0, is_final=True)
    assert dials(node.run(1.0, 10.0)) == []

    node.overlay.renewed(10.0)

    assert set(dials(node.run(10.0, 12.0))) == {None, B}


def test_remembered_members_are_tried_when_no_seed_answers() -> None:
    node = Node(ME)
    node.overlay.start(("a:1",), ((A, "old:1"), (B, "old:2")), 0.0, [])
    fail(node, "a:1", None, 0.0)

    assert {A, B} <= set(dials(node.run(0.0, 3.0)))


def test_isolated_node_tries_its_seeds_again() -> None:
    node = Node(ME)
    node.overlay.start((address_of(A),), (), 0.0, [])
    node.opened(1, A, 0.1, is_dialer=True)
    node.take(A, GRANTED, 0.2)
    assert None not in dials(node.run(0.2, 50.0))

    node.closed(1, 50.0)

    assert None in dials(node.run(50.0, 51.0))


def test_only_way_to_the_mesh_that_is_lost_before_it_became_a_link_is_tried_again() -> None:
    for seeds, remembered in (((address_of(A),), ()), ((), ((A, address_of(A)),))):
        node = Node(ME)
        node.overlay.start(seeds, remembered, 0.0, [])
        node.opened(1, A, 0.1, is_dialer=True)
        node.closed(1, 20.0)

        assert dials(node.run(20.0, 25.0)), (seeds, remembered)


def test_seed_whose_node_failed_is_looked_for_again() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.overlay.start((address_of(A),), (), 0.0, [])
    node.opened(1, A, 0.1, is_dialer=True)
    node.take(A, GRANTED, 0.2)
    node.link(2, B, 0.3)

    node.set_state(A, State.FAILED, 10.0)

    assert None in dials(node.run(10.0, 12.0))
