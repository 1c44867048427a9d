"""Which connections are open to which nodes, and which of them is in use where a node has two.

Two nodes that dial each other at the same time have two connections; both must choose the same one, without asking.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import CloseConnection, UseConnection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quicbus_broker.mesh.outputs import ConnectionOpened, NodeId, Output

__all__ = ["LINGER_S", "SIMULTANEOUS_S", "Connections"]

LINGER_S = 1.0
"""A connection that lost against another stays until no bundle came on it for so long: what is under way arrives."""
_LINGER_MAX_S = 30.0

SIMULTANEOUS_S = 10.0
"""Two dial time-outs. Nobody dials a node that it is connected to: a connection that comes later than this after the
other was dialed by a peer that has lost the other, whatever it looks like here."""

_FALLBACK_LINGER_S = 10.0
"""The higher id leaves closing to the lower one; where that never saw the connection, it closes after this."""


class _Connection(msgspec.Struct):
    node: NodeId
    boot: int
    is_dialer: bool
    opened_at: float
    lost_at: float = 0.0
    """When another one was preferred to it."""


class Connections:
    """Of two connections with one boot of a node the one dialed by the lower id stays, or the newer one.

    The newer where both were dialed by one side, or where they are too far apart for simultaneous dials.

    The lower id closes the loser. A later boot ends all connections of an earlier one at once.
    """

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._connections: dict[int, _Connection] = {}
        # The first is in use, the others linger.
        self._of_node: dict[NodeId, list[int]] = {}
        self._lingering: dict[int, float] = {}
        self._condemned: dict[int, tuple[float, int, str]] = {}
        """Nothing is taken from these; when they are closed, and how. Of an earlier boot of a node that is connected
        with a later one, and of revoked nodes."""

    def opened(self, event: ConnectionOpened, now: float, outputs: list[Output]) -> bool:
        """Take a new connection; return whether this process of the node was not connected before.

        What cannot stay is closed: a connection to oneself, and one of an earlier boot than the one that is connected.
        """
        if event.node == self._me:
            outputs.append(CloseConnection(event.connection, CloseCode.GOODBYE, "this node dialed itself"))
            return False
        others = self._of_node.get(event.node)
        if others:
            boot = self._connections[others[0]].boot
            if event.boot < boot:
                # Not at once, so that it can be told of the later one.
                self.condemn(event.connection, CloseCode.REPLACED, "a later boot of this node is connected", now)
                return False
            if event.boot > boot:
                self._forget(event.node, CloseCode.REPLACED, "the node was started again", outputs)
                others = None
        self._connections[event.connection] = _Connection(event.node, event.boot, event.is_dialer, now)
        if not others:
            self._of_node[event.node] = [event.connection]
            outputs.append(UseConnection(event.node, event.connection))
            return True
        self._choose(event.connection, others, now, outputs)
        return False

    def closed(self, connection: int, outputs: list[Output]) -> tuple[NodeId | None, bool]:
        """Return the node and whether that was its last connection; `None` for one that is not known (any more)."""
        known = self._connections.pop(connection, None)
        if known is None:
            self._condemned.pop(connection, None)
            return None, False
        self._lingering.pop(connection, None)
        rest = self._of_node[known.node]
        was_in_use = rest[0] == connection
        rest.remove(connection)
        if not rest:
            del self._of_node[known.node]
            outputs.append(UseConnection(known.node, None))
            return known.node, True
        if was_in_use:
            # The latest one: an older one may be a corpse that the transport has not noticed.
            rest.insert(0, rest.pop())
            self._lingering.pop(rest[0], None)
            outputs.append(UseConnection(known.node, rest[0]))
        return known.node, False

    def close(self, node: NodeId, code: int, reason: str, outputs: list[Output]) -> None:
        """Close and forget all connections with the node; that they are closed need not be told to `closed`."""
        if node in self._of_node:
            outputs.append(UseConnection(node, None))
            self._forget(node, code, reason, outputs)

    def expel(self, node: NodeId, code: int, reason: str, now: float, outputs: list[Output]) -> None:
        """As `close`, but only after a moment, in which what was sent to the node arrives; nothing is taken from it."""
        connections = self.connections_of(node)
        if connections:
            outputs.append(UseConnection(node, None))
            self._forget(node, code, reason, [])
        for connection in connections:
            self.condemn(connection, code, reason, now)

    def condemn(self, connection: int, code: int, reason: str, now: float) -> None:
        """Take nothing from a connection, and close it after a moment."""
        self._condemned[connection] = now + LINGER_S, code, reason

    def heard(self, connection: int, now: float) -> None:
        """A bundle came: there may be more on their way."""
        until = self._lingering.get(connection)
        if until is not None:
            latest = self._connections[connection].lost_at + _LINGER_MAX_S
            self._lingering[connection] = max(until, min(now + LINGER_S, latest))

    def node_of(self, connection: int) -> NodeId | None:
        known = self._connections.get(connection)
        return known.node if known else None

    def connections_of(self, node: NodeId) -> tuple[int, ...]:
        """Return all its connections, the one in use first."""
        return tuple(self._of_node.get(node, ()))

    def in_use(self, node: NodeId) -> int | None:
        """Return the connection over which frames for the node go."""
        known = self._of_node.get(node)
        return known[0] if known else None

    def boot_of(self, node: NodeId) -> int | None:
        known = self._of_node.get(node)
        return self._connections[known[0]].boot if known else None

    def is_dialer(self, node: NodeId) -> bool:
        """Return whether the connection in use was dialed from here."""
        known = self._of_node.get(node)
        return known is not None and self._connections[known[0]].is_dialer

    def is_connected(self, node: NodeId) -> bool:
        return node in self._of_node

    def connected(self) -> Mapping[NodeId, Sequence[int]]:
        """Return the nodes with their connections, the one in use first, in the order in which they came."""
        return self._of_node

    def next_timer(self) -> float:
        if not self._lingering and not self._condemned:
            return math.inf
        return min([*self._lingering.values(), *(until for until, _, _ in self._condemned.values())])

    def tick(self, now: float, outputs: list[Output]) -> None:
        due = [connection for connection, until in self._lingering.items() if until <= now]
        for connection in due:
            reason = "the two nodes have another connection"
            outputs.append(CloseConnection(connection, CloseCode.REPLACED, reason))
            self._of_node[self._connections.pop(connection).node].remove(connection)
            del self._lingering[connection]
        for connection in [connection for connection, (until, _, _) in self._condemned.items() if until <= now]:
            _, code, reason = self._condemned.pop(connection)
            outputs.append(CloseConnection(connection, code, reason))

    def _choose(self, new: int, others: list[int], now: float, outputs: list[Output]) -> None:
        current = others[0]
        node = self._connections[new].node
        is_newer_used = self._is_preferred(new, current)
        if is_newer_used:
            others.insert(0, new)
            outputs.append(UseConnection(node, new))
        else:
            others.append(new)
        loser = current if is_newer_used else new
        self._connections[loser].lost_at = now
        self._lingering[loser] = now + (LINGER_S if self._me < node else _FALLBACK_LINGER_S)

    def _is_preferred(self, new: int, current: int) -> bool:
        added, known = self._connections[new], self._connections[current]
        if added.is_dialer == known.is_dialer or added.opened_at - known.opened_at > SIMULTANEOUS_S:
            return True
        return added.is_dialer == (self._me < added.node)

    def _forget(self, node: NodeId, code: int, reason: str, outputs: list[Output]) -> None:
        for connection in self._of_node.pop(node):
            outputs.append(CloseConnection(connection, code, reason))
            self._lingering.pop(connection, None)
            del self._connections[connection]
