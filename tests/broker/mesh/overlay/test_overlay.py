"""Whom a node dials, with whom it agrees to be neighbours, and that both sides always agree in the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from quicbus.wire.close_codes import CloseCode
from quicbus.wire.node_frames import Disconnect, Neighbor, NeighborReply
from quicbus_broker.mesh.config import MeshConfig, active_links
from quicbus_broker.mesh.outputs import (
    CloseConnection,
    Dial,
    DialFailed,
    NeighborDown,
    NeighborUp,
    ProbeFailed,
    SendFrame,
    State,
    UseConnection,
)
from tests.broker.mesh.overlay_world import Node, World, address_of, entry_of, node_id

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId, Output

CONFIG = MeshConfig()
ME = node_id(50)
A, B, C = node_id(1), node_id(2), node_id(3)
MANY = [node_id(number) for number in range(100, 200)]

GRANTED, REFUSED = NeighborReply(granted=True), NeighborReply(granted=False)


def dials(outputs: list[Output]) -> list[NodeId | None]:
    return [output.node for output in outputs if isinstance(output, Dial)]


def sent(outputs: list[Output], node: NodeId) -> list[object]:
    return [output.frame for output in outputs if isinstance(output, SendFrame) and output.node == node]


def fail(node: Node, address: str, target: NodeId | None, now: float, *, is_final: bool = False) -> list[Output]:
    outputs: list[Output] = []
    node.overlay.dial_failed(DialFailed(address, target, "no answer", is_final), now, outputs)
    return outputs


def full_node(count: int | None = None) -> tuple[Node, int]:
    """A node of a large mesh with as many links as it grants, or so many; and their number."""
    node = Node(ME)
    node.overlay.start((), (), 0.0, [])
    node.knows(*MANY)
    target = active_links(len(MANY), CONFIG.small_mesh)
    count = math.ceil(CONFIG.max_links_factor * target) if count is None else count
    for connection, other in enumerate(MANY[:count], 1):
        node.link(connection, other, 0.0)
    assert len(node.neighbors) == count
    return node, count


# --- joining --------------------------------------------------------------------------------------------------------


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


# --- members that fail, leave, move ---------------------------------------------------------------------------------


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


# --- targets --------------------------------------------------------------------------------------------------------


def test_server_never_dials() -> None:
    node = Node(ME, mode="server")
    outputs: list[Output] = []
    node.overlay.start(("a:1",), ((A, "old:1"),), 0.0, outputs)
    node.knows(*MANY)
    node.set_state(A, State.FAILED, 1.0)

    outputs += node.run(1.0, 300.0)

    assert dials(outputs) == []
    assert not node.overlay.want_contact(MANY[0], 300.0, outputs)


def test_client_is_never_dialed() -> None:
    node = Node(ME)
    node.knows(*MANY[:5], mode="client")
    outputs = node.learn(entry_of(MANY[0], mode="client", state=State.FAILED), 1.0)

    assert not node.overlay.want_contact(MANY[1], 1.0, outputs)
    assert dials(outputs + node.run(1.0, 300.0)) == []


def test_clients_do_not_take_the_places_of_others() -> None:
    node, count = full_node()
    clients = [node_id(number) for number in range(1000, 1100)]
    node.knows(*clients, mode="client")

    for connection, client in enumerate(clients, 1000):
        node.opened(connection, client, 1.0, is_dialer=False)
        assert NeighborUp(client) in node.take(client, Neighbor(), 1.0)

    assert len(node.neighbors) == count + len(clients)


def test_client_of_a_large_mesh_wants_few_links() -> None:
    node = Node(ME, mode="client")
    node.knows(*MANY)

    assert len(dials(node.run(0.0, 1.0))) == 3


def test_idle_contact_is_closed_by_the_side_that_dialed() -> None:
    node, _ = full_node(12)
    outputs: list[Output] = []
    assert node.overlay.want_contact(MANY[40], 0.0, outputs)
    assert outputs == [Dial(address_of(MANY[40]), MANY[40])]
    node.opened(98, MANY[40], 1.0, is_dialer=True)
    node.opened(99, MANY[41], 1.0, is_dialer=False)
    node.overlay.touch(MANY[40], 30.0)

    def closed(start: float, until: float) -> list[int]:
        return [output.connection for output in node.run(start, until) if isinstance(output, CloseConnection)]

    assert closed(1.0, 30.0 + CONFIG.contact_idle_s - 0.1) == []
    assert closed(89.9, 30.0 + CONFIG.contact_idle_s) == [98]
    assert node.connections.is_connected(MANY[41])


def test_contact_that_became_a_link_is_not_closed() -> None:
    node, _ = full_node(8)
    node.overlay.want_contact(MANY[40], 0.0, [])
    node.opened(98, MANY[40], 0.1, is_dialer=True)
    node.take(MANY[40], Neighbor(), 0.2)

    assert not any(isinstance(output, CloseConnection) and output.connection == 98 for output in node.run(0.2, 200.0))


def test_contacts_are_bounded_and_the_least_used_goes() -> None:
    node = Node(ME, config=MeshConfig(max_contacts=3))
    node.knows(*MANY)
    for connection, other in enumerate(MANY[:12], 1):
        node.link(connection, other, 0.0)
    closed: list[int] = []

    for connection, other in enumerate(MANY[40:45], 100):
        node.overlay.want_contact(other, 1.0, [])
        outputs = node.opened(connection, other, 1.0, is_dialer=True)
        closed += [output.connection for output in outputs if isinstance(output, CloseConnection)]

    assert closed == [100, 101]


def test_contact_that_cannot_be_reached_is_said_to_be_so_for_a_while() -> None:
    node, _ = full_node(12)
    node.overlay.want_contact(MANY[40], 0.0, [])
    fail(node, address_of(MANY[40]), MANY[40], 5.0)

    assert not node.overlay.want_contact(MANY[40], 5.1, [])
    node.run(5.1, 40.0)
    assert node.overlay.want_contact(MANY[40], 40.0, [])


def test_large_mesh_exchanges_a_link_now_and_then() -> None:
    target = active_links(len(MANY), CONFIG.small_mesh)
    node, _ = full_node(target)
    now = 0.0
    while not (dialed := dials(node.run(now, now + 1.0))):
        now += 1.0
    assert 0.5 * CONFIG.rotate_interval_s - 1.0 < now <= 1.5 * CONFIG.rotate_interval_s
    (exchanged,) = dialed
    assert exchanged is not None
    now += 1.0
    node.opened(99, exchanged, now, is_dialer=True)

    outputs = node.take(exchanged, GRANTED, now)

    assert outputs[0] == NeighborUp(exchanged)
    assert [type(output) for output in outputs[1:]] == [SendFrame, NeighborDown]
    assert len(node.neighbors) == target


def test_node_that_leaves_dials_nobody_and_grants_nothing() -> None:
    node = Node(ME)
    node.overlay.start(("a:1",), (), 0.0, [])
    node.knows(*MANY)
    node.link(1, A, 0.0)

    node.overlay.stop()

    node.opened(2, B, 1.0, is_dialer=False)
    assert node.take(B, Neighbor(urgent=True), 1.0) == [SendFrame(B, REFUSED)]
    node.closed(1, 1.0)
    fail(node, "a:1", None, 2.0)
    assert dials(node.run(2.0, 100.0)) == []


# --- several nodes --------------------------------------------------------------------------------------------------


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
