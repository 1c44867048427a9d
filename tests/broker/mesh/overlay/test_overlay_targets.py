"""Whom a node wants as a neighbour or a contact, by its mode and the size of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Neighbor
from quicbus_broker.mesh.config import MeshConfig, active_links
from quicbus_broker.mesh.outputs import CloseConnection, Dial, NeighborDown, NeighborUp, SendFrame, State
from tests.broker.mesh.overlay.overlay_node import CONFIG, GRANTED, MANY, ME, REFUSED, A, B, dials, fail, full_node
from tests.broker.mesh.overlay_world import Node, address_of, entry_of, node_id

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import Output


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
