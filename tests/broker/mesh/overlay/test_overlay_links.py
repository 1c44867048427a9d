"""Which links a node asks for, grants and refuses, and what becomes of them with their connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Disconnect, Neighbor
from quicbus_broker.mesh.outputs import NeighborDown, NeighborUp, ProbeFailed, SendFrame, State, UseConnection
from tests.broker.mesh.overlay.overlay_node import GRANTED, MANY, ME, REFUSED, A, B, dials, fail, full_node, sent
from tests.broker.mesh.overlay_world import Node, address_of

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import Output


# --- asking, granting, refusing -------------------------------------------------------------------------------------


def test_request_is_granted_while_there_is_room() -> None:
    node = Node(ME)
    node.opened(1, A, 0.0, is_dialer=False)

    assert node.take(A, Neighbor(), 0.1) == [SendFrame(A, GRANTED), NeighborUp(A)]


def test_repeated_request_is_granted_again_and_changes_nothing() -> None:
    node = Node(ME)
    node.link(1, A, 0.0)

    assert node.take(A, Neighbor(), 0.1) == [SendFrame(A, GRANTED)]


def test_request_is_refused_when_full() -> None:
    node, count = full_node()
    node.opened(99, A, 0.0, is_dialer=False)

    assert node.take(A, Neighbor(), 0.1) == [SendFrame(A, REFUSED)]
    assert len(node.neighbors) == count


def test_urgent_request_is_granted_when_full_and_another_link_ends() -> None:
    node, count = full_node()
    node.opened(99, A, 0.0, is_dialer=False)

    outputs = node.take(A, Neighbor(urgent=True), 0.1)

    assert outputs[:2] == [SendFrame(A, GRANTED), NeighborUp(A)]
    (down,) = [output for output in outputs if isinstance(output, NeighborDown)]
    assert sent(outputs, down.node) == [Disconnect()]
    assert not down.is_lost
    assert down.node != A
    assert len(node.neighbors) == count


def test_refused_node_asks_somebody_else() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.overlay.start((address_of(A),), (), 0.0, [])
    node.opened(1, A, 0.1, is_dialer=True)

    assert node.take(A, REFUSED, 0.2) == []

    outputs = node.run(0.2, 1.0)
    assert dials(outputs) == [B]
    assert sent(outputs, A) == [], "not again for a while"
    assert any(isinstance(frame, Neighbor) for frame in sent(node.run(1.0, 60.0), A))


def test_requests_that_cross_make_one_link() -> None:
    node = Node(ME)
    node.overlay.start((address_of(A),), (), 0.0, [])
    node.opened(1, A, 0.1, is_dialer=True)

    assert node.take(A, Neighbor(urgent=True), 0.2) == [SendFrame(A, GRANTED), NeighborUp(A)]
    assert node.take(A, GRANTED, 0.2) == []
    assert node.neighbors == [A]


def test_reply_that_does_not_come_is_asked_for_once_more_then_given_up() -> None:
    node = Node(ME)
    node.overlay.start((address_of(A),), (), 0.0, [])
    node.opened(1, A, 0.1, is_dialer=True)

    frames = sent(node.run(0.1, 9.0), A)

    assert frames == [Neighbor(urgent=True), Disconnect()]


def test_grant_that_nobody_waits_for_is_answered_with_disconnect() -> None:
    """The end of a link met it on the way: taking it would leave a link of one side."""
    node = Node(ME)
    node.opened(1, A, 0.0, is_dialer=False)

    assert node.take(A, GRANTED, 0.1) == [SendFrame(A, Disconnect())]
    assert node.neighbors == []


def test_disconnect_ends_the_link_and_keeps_the_connection() -> None:
    node = Node(ME)
    node.link(1, A, 0.0)

    assert node.take(A, Disconnect(), 0.1) == [NeighborDown(A, is_lost=False)]
    assert node.take(A, Disconnect(), 0.1) == []
    assert node.connections.is_connected(A)


def test_refusal_by_a_neighbor_ends_the_link() -> None:
    """It does not know of the link, and has no room for one."""
    node = Node(ME)
    node.link(1, A, 0.0)

    assert node.take(A, REFUSED, 0.1) == [NeighborDown(A, is_lost=False)]


def test_neighbors_are_asked_again_in_turn_at_a_flat_rate() -> None:
    node, count = full_node()

    outputs = node.run(0.0, 50.0)

    asked = [output.node for output in outputs if isinstance(output, SendFrame) and output.frame == Neighbor()]
    assert 9 <= len(asked) <= 11
    assert len(set(asked)) == min(count, len(asked))


def test_stray_traffic_is_answered_with_disconnect_now_and_then() -> None:
    node = Node(ME)
    node.opened(1, A, 0.0, is_dialer=False)
    outputs: list[Output] = []

    for step in range(20):
        node.overlay.stray(A, step * 0.1, outputs)

    assert outputs == [SendFrame(A, Disconnect())] * 2


def test_stray_traffic_of_a_neighbor_is_none() -> None:
    node = Node(ME)
    node.link(1, A, 0.0)
    outputs: list[Output] = []

    node.overlay.stray(A, 1.0, outputs)

    assert outputs == []


# --- connections that come and go -----------------------------------------------------------------------------------


def test_lost_neighbor_is_dialed_at_once_and_accused_when_that_fails() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.link(1, A, 0.0)
    node.link(2, B, 0.0)

    assert node.closed(1, 10.0) == [UseConnection(A, None), NeighborDown(A, is_lost=True)]
    assert dials(node.run(10.0, 10.5)) == [A]
    assert ProbeFailed(A) in fail(node, address_of(A), A, 15.0)


def test_lost_neighbor_that_is_back_is_not_accused() -> None:
    node = Node(ME)
    node.knows(A)
    node.link(1, A, 0.0)
    node.closed(1, 10.0)
    node.run(10.0, 10.5)

    outputs = node.opened(2, A, 10.6, is_dialer=True)

    assert Neighbor(urgent=True) in sent(outputs, A)
    assert fail(node, address_of(A), A, 11.0) == []
    assert ProbeFailed(A) not in node.run(11.0, 60.0)


def test_lost_neighbor_that_only_dials_is_accused_when_it_does_not_come_back() -> None:
    node = Node(ME)
    node.knows(A, mode="client")
    node.link(1, A, 0.0, is_dialer=False)

    node.closed(1, 10.0)

    outputs = node.run(10.0, 13.0)
    assert dials(outputs) == []
    assert ProbeFailed(A) in outputs


def test_neighbor_that_said_goodbye_is_neither_dialed_as_lost_nor_accused() -> None:
    node = Node(ME)
    node.knows(A)
    node.link(1, A, 0.0)
    node.set_state(A, State.LEFT, 9.0)

    node.closed(1, 10.0, is_clean=True)

    outputs = node.run(10.0, 300.0)
    assert dials(outputs) == []
    assert not any(isinstance(output, ProbeFailed) for output in outputs)


def test_newer_boot_of_a_neighbor_is_a_new_link() -> None:
    node = Node(ME)
    node.knows(A)
    node.link(1, A, 0.0)

    outputs = node.opened(2, A, 5.0, is_dialer=False, boot=2)

    assert NeighborDown(A, is_lost=False) in outputs
    assert node.neighbors == []
    assert node.take(A, Neighbor(urgent=True), 5.1) == [SendFrame(A, GRANTED), NeighborUp(A)]


def test_second_connection_with_a_neighbor_changes_nothing_but_is_checked_first() -> None:
    node, _ = full_node(9)
    node.run(0.0, 10.0)

    assert NeighborUp(MANY[3]) not in node.opened(99, MANY[3], 10.0, is_dialer=True)

    outputs = node.run(10.0, 15.0)
    checked = [output.node for output in outputs if isinstance(output, SendFrame) and output.frame == Neighbor()]
    assert checked[0] == MANY[3]


def test_request_is_repeated_over_a_new_connection() -> None:
    node = Node(ME)
    node.overlay.start((address_of(A),), (), 0.0, [])
    node.opened(1, A, 0.1, is_dialer=True)

    assert sent(node.opened(2, A, 0.2, is_dialer=False), A) == [Neighbor(urgent=True)]
