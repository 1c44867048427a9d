"""Which of several connections with a node is in use."""

from __future__ import annotations

import itertools
import math

import pytest

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import CloseConnection, ConnectionOpened, Output, UseConnection
from quicbus_broker.mesh.overlay.connections import LINGER_S, SIMULTANEOUS_S, Connections

LOW, HIGH = bytes(15) + b"\x01", bytes(15) + b"\x02"


def opened(
    connections: Connections, connection: int, node: bytes, *, is_dialer: bool, boot: int = 1, now: float = 0.0
) -> tuple[bool, list[Output]]:
    outputs: list[Output] = []
    event = ConnectionOpened(connection, node, boot, is_dialer, "h:1")
    return connections.opened(event, now, outputs), outputs


def ticked(connections: Connections, now: float) -> list[Output]:
    outputs: list[Output] = []
    connections.tick(now, outputs)
    return outputs


def test_first_connection_is_used() -> None:
    connections = Connections(LOW)

    assert opened(connections, 1, HIGH, is_dialer=True) == (True, [UseConnection(HIGH, 1)])

    assert connections.node_of(1) == HIGH
    assert connections.is_connected(HIGH)
    assert connections.is_dialer(HIGH)
    assert list(connections.connected()) == [HIGH]
    assert connections.next_timer() == math.inf


@pytest.mark.parametrize("first_at_low", [1, 2])
@pytest.mark.parametrize("first_at_high", [1, 2])
def test_simultaneous_dials_leave_the_one_of_the_lower_id_whatever_the_order(
    first_at_low: int, first_at_high: int
) -> None:
    low, high = Connections(LOW), Connections(HIGH)

    for connection in (first_at_low, 3 - first_at_low):
        opened(low, connection, HIGH, is_dialer=connection == 1)
    for connection in (first_at_high, 3 - first_at_high):
        opened(high, connection, LOW, is_dialer=connection == 2)

    assert low.in_use(HIGH) == high.in_use(LOW) == 1


def test_only_the_lower_id_closes_the_loser_and_after_a_while() -> None:
    low, high = Connections(LOW), Connections(HIGH)
    for connection in (1, 2):
        opened(low, connection, HIGH, is_dialer=connection == 1)
        opened(high, connection, LOW, is_dialer=connection == 2)

    assert low.next_timer() == LINGER_S
    assert ticked(low, 0.5) == []
    assert low.node_of(2) == HIGH, "what is under way on it still counts"
    assert ticked(low, LINGER_S) == [CloseConnection(2, CloseCode.REPLACED, "the two nodes have another connection")]
    assert ticked(high, LINGER_S) == []
    outputs: list[Output] = []
    assert high.closed(2, outputs) == (LOW, False)
    assert outputs == []
    assert low.closed(2, outputs) == (None, False)
    assert low.connections_of(HIGH) == high.connections_of(LOW) == (1,)


def test_a_loser_on_which_bundles_still_come_lingers_on_but_not_for_ever() -> None:
    low = Connections(LOW)
    for connection in (1, 2):
        opened(low, connection, HIGH, is_dialer=connection == 1)

    for tenth in range(1, 299):
        low.heard(1, tenth / 10)
        low.heard(2, tenth / 10)
        assert ticked(low, tenth / 10) == []
    low.heard(2, 29.9)

    assert low.next_timer() == 30.0
    assert ticked(low, 30.0) == [CloseConnection(2, CloseCode.REPLACED, "the two nodes have another connection")]
    low.heard(2, 30.1)
    assert low.next_timer() == math.inf


def test_higher_id_closes_a_loser_that_the_lower_one_never_saw() -> None:
    high = Connections(HIGH)
    opened(high, 1, LOW, is_dialer=False)
    opened(high, 2, LOW, is_dialer=True)

    assert ticked(high, high.next_timer()) == [
        CloseConnection(2, CloseCode.REPLACED, "the two nodes have another connection")
    ]
    assert high.next_timer() == math.inf


def test_of_two_dialed_by_the_same_side_the_newer_is_used() -> None:
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=False)

    assert opened(connections, 2, HIGH, is_dialer=False) == (False, [UseConnection(HIGH, 2)])


def test_loser_takes_over_when_the_winner_breaks_meanwhile() -> None:
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=True)
    opened(connections, 2, HIGH, is_dialer=False)
    outputs: list[Output] = []

    assert connections.closed(1, outputs) == (HIGH, False)

    assert outputs == [UseConnection(HIGH, 2)]
    assert connections.next_timer() == math.inf
    assert ticked(connections, 100.0) == []


def test_last_connection_closed_leaves_nobody() -> None:
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=True)
    outputs: list[Output] = []

    assert connections.closed(1, outputs) == (HIGH, True)
    assert connections.closed(1, outputs) == (None, False)

    assert outputs == [UseConnection(HIGH, None)]
    assert not connections.is_connected(HIGH)
    assert connections.boot_of(HIGH) is None


def test_newer_boot_ends_all_connections_of_the_older_at_once() -> None:
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=True)
    opened(connections, 2, HIGH, is_dialer=False)

    is_new, outputs = opened(connections, 3, HIGH, is_dialer=False, boot=2)

    assert is_new
    assert outputs == [
        CloseConnection(1, CloseCode.REPLACED, "the node was started again"),
        CloseConnection(2, CloseCode.REPLACED, "the node was started again"),
        UseConnection(HIGH, 3),
    ]
    assert connections.closed(1, outputs) == (None, False)
    assert connections.boot_of(HIGH) == 2
    assert connections.next_timer() == math.inf


def test_older_boot_is_turned_away_while_a_later_one_is_connected() -> None:
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=True, boot=2)

    is_new, outputs = opened(connections, 2, HIGH, is_dialer=False, boot=1)

    assert not is_new
    assert outputs == []
    assert connections.in_use(HIGH) == 1
    assert connections.node_of(2) is None

    connections.tick(connections.next_timer(), outputs)
    assert outputs == [CloseConnection(2, CloseCode.REPLACED, "a later boot of this node is connected")]
    assert connections.next_timer() == math.inf


def test_connection_to_oneself_is_closed() -> None:
    connections = Connections(LOW)

    assert opened(connections, 1, LOW, is_dialer=True) == (
        False,
        [CloseConnection(1, CloseCode.GOODBYE, "this node dialed itself")],
    )
    assert not connections.connected()


def test_closing_a_node_closes_all_its_connections() -> None:
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=True)
    opened(connections, 2, HIGH, is_dialer=False)
    outputs: list[Output] = []

    connections.close(HIGH, CloseCode.STALLED, "why", outputs)
    connections.close(HIGH, CloseCode.STALLED, "why", outputs)

    assert outputs == [
        UseConnection(HIGH, None),
        CloseConnection(1, CloseCode.STALLED, "why"),
        CloseConnection(2, CloseCode.STALLED, "why"),
    ]
    assert connections.next_timer() == math.inf


@pytest.mark.parametrize("order_at_low", list(itertools.permutations([1, 2, 3])))
@pytest.mark.parametrize("order_at_high", list(itertools.permutations([1, 2, 3])))
def test_both_sides_end_with_the_same_single_connection(
    order_at_low: tuple[int, ...], order_at_high: tuple[int, ...]
) -> None:
    """Even where repeated dials of one side are seen in different orders: closing by one side decides."""
    sides = {LOW: Connections(LOW), HIGH: Connections(HIGH)}
    dialed_by_low = {1, 3}
    for me, other, order in ((LOW, HIGH, order_at_low), (HIGH, LOW, order_at_high)):
        for connection in order:
            opened(sides[me], connection, other, is_dialer=(connection in dialed_by_low) == (me == LOW))

    for output in ticked(sides[LOW], LINGER_S):
        assert isinstance(output, CloseConnection)
        sides[HIGH].closed(output.connection, [])

    assert ticked(sides[HIGH], 100.0) == []
    assert sides[LOW].connections_of(HIGH) == sides[HIGH].connections_of(LOW)
    assert len(sides[LOW].connections_of(HIGH)) == 1


def test_peer_that_dials_long_after_has_lost_what_looks_open_here() -> None:
    """Otherwise the corpse, dialed by the lower id, would be preferred for ever."""
    connections = Connections(LOW)
    opened(connections, 1, HIGH, is_dialer=True)

    _, outputs = opened(connections, 2, HIGH, is_dialer=False, now=SIMULTANEOUS_S + 1.0)

    assert outputs == [UseConnection(HIGH, 2)]
    assert ticked(connections, connections.next_timer()) == [
        CloseConnection(1, CloseCode.REPLACED, "the two nodes have another connection")
    ]
