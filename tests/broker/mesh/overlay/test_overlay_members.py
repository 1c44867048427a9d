"""Links and dials when members fail, leave or move, and who is accused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.close_codes import CloseCode
from quicbus.wire.node_frames import Neighbor
from quicbus_broker.mesh.config import active_links
from quicbus_broker.mesh.outputs import (
    CloseConnection,
    DialFailed,
    NeighborDown,
    NeighborUp,
    ProbeFailed,
    SendFrame,
    State,
    UseConnection,
)
from tests.broker.mesh.overlay.overlay_node import CONFIG, MANY, ME, REFUSED, A, B, dials, fail, full_node, sent
from tests.broker.mesh.overlay_world import Node, address_of, entry_of, node_id

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import Output


def test_another_link_is_looked_for_while_a_neighbor_is_silent() -> None:
    node, count = full_node(active_links(len(MANY), CONFIG.small_mesh))
    silent = node.neighbors[0]
    assert dials(node.run(0.0, 2.0)) == []

    node.overlay.silent(silent, True, 2.0)
    assert len(dials(node.run(2.0, 3.0))) == 1
    assert silent in node.neighbors
    assert len(node.neighbors) == count


def test_node_whose_neighbors_are_all_silent_dials_many_at_once_and_accuses_nobody() -> None:
    node, count = full_node(active_links(len(MANY), CONFIG.small_mesh))
    for other in node.neighbors:
        node.overlay.silent(other, True, 2.0)
    outputs = node.run(2.0, 2.0 + CONFIG.dial_timeout_s + 1)
    assert len(dials(outputs)) == count
    assert not [output for output in outputs if isinstance(output, ProbeFailed)]

    for other in node.neighbors:
        node.overlay.silent(other, False, 10.0)
    node.overlay.dial_failed(DialFailed("x:1", None, "no answer"), 10.0, [])
    assert len(node.neighbors) == count


def test_failed_member_loses_its_link_and_its_connection() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.link(1, A, 0.0)

    outputs = node.set_state(A, State.FAILED, 5.0)

    assert outputs[:3] == [
        NeighborDown(A, is_lost=False),
        UseConnection(A, None),
        CloseConnection(1, CloseCode.STALLED, "taken for failed: it did not answer"),
    ]
    assert node.closed(1, 5.1) == []


def test_failed_members_are_dialed_for_ever() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.link(1, B, 0.0)
    node.set_state(A, State.FAILED, 0.0)
    now, hits = 0.0, 0

    while now < 7200.0:
        now += 1.0
        for address in [address_of(dialed) for dialed in dials(node.run(now - 1.0, now)) if dialed]:
            hits += 1
            assert fail(node, address, A, now) == [], "it has failed already"

    assert 7200 / CONFIG.redial_max_s - 1 <= hits <= 2 * 7200 / CONFIG.redial_max_s + 20


def test_a_thousand_failed_members_are_no_more_dials_than_a_few() -> None:
    node = Node(ME)
    others = [node_id(number) for number in range(1000, 2000)]
    node.knows(*others, B)
    for connection, other in enumerate(others[-20:], 1):
        node.link(connection, other, 0.0)
    for other in others[:-20]:
        node.set_state(other, State.FAILED, 1.0)
    now, dialed = 1.0, []

    while now < 4000.0:
        now += 1.0
        targets = [target for target in dials(node.run(now - 1.0, now)) if target]
        dialed += targets
        for target in targets:
            fail(node, address_of(target), target, now)

    assert len(dialed) < 1.1 * 4000 / CONFIG.probe_interval_s
    assert len(set(dialed)) > 900, "also those without a time of their own"


def test_failed_member_that_answers_is_linked() -> None:
    node, _ = full_node(12)
    failed = MANY[50]
    node.set_state(failed, State.FAILED, 0.0)
    assert dials(node.run(0.0, 3.0)) == [failed]

    outputs = node.opened(99, failed, 3.1, is_dialer=True)

    assert sent(outputs, failed) == [Neighbor()], "the way to another part of the mesh, perhaps"


def test_member_that_has_left_loses_its_link_and_soon_its_connection() -> None:
    node = Node(ME)
    node.knows(A)
    node.link(1, A, 0.0)

    assert node.set_state(A, State.LEFT, 5.0) == [NeighborDown(A, is_lost=False)]

    outputs = node.run(5.0, 11.0)
    assert CloseConnection(1, CloseCode.GOODBYE, "it has left") in outputs
    assert dials(outputs) == []


def test_request_of_a_process_that_has_left_is_refused_and_that_of_its_next_boot_granted() -> None:
    node = Node(ME)
    node.knows(A)
    node.link(1, A, 0.0)
    node.set_state(A, State.LEFT, 5.0)

    assert node.take(A, Neighbor(), 5.1) == [SendFrame(A, REFUSED)]
    node.opened(2, A, 6.0, is_dialer=False, boot=2)
    assert NeighborUp(A) in node.take(A, Neighbor(urgent=True), 6.1)


def test_suspect_keeps_its_link() -> None:
    node = Node(ME)
    node.knows(A)
    node.link(1, A, 0.0)

    assert node.set_state(A, State.SUSPECT, 5.0) == []
    assert node.neighbors == [A]


def test_member_that_nobody_watches_is_accused_by_who_dials_it_in_vain() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.link(1, B, 0.0)
    assert dials(node.run(0.0, 1.0)) == [A]

    assert fail(node, address_of(A), A, 5.0) == [ProbeFailed(A)]

    found: list[Output] = []
    now = 5.0
    while now < 300.0:
        now += 1.0
        for target in dials(node.run(now - 1.0, now)):
            found += fail(node, address_of(target or b""), target, now)
    assert found == [], "once: it may be unreachable from here alone"


def test_node_without_neighbors_accuses_nobody_whom_it_only_dialed() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.run(0.0, 1.0)

    assert fail(node, address_of(A), A, 5.0) == []


def test_dial_that_fails_long_after_its_time_accuses_nobody() -> None:
    """This process stood still meanwhile."""
    node = Node(ME)
    node.knows(A, B)
    node.link(1, B, 0.0)
    assert dials(node.run(0.0, 1.0)) == [A]

    assert fail(node, address_of(A), A, 62.0) == []


def test_member_that_moved_is_dialed_at_its_new_address_at_once() -> None:
    node = Node(ME)
    node.knows(A, B)
    node.link(1, B, 0.0)
    node.run(0.0, 1.0)
    fail(node, address_of(A), A, 5.0, is_final=True)

    node.learn(entry_of(A, boot=2), 6.0)

    assert dials(node.run(6.0, 6.5)) == [A]
