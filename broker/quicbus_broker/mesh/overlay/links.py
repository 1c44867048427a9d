"""The agreement between two connected nodes to be neighbours (HyParView's active view), kept the same on both sides.

Asking is `Neighbor`, and asking again is always allowed: who is a neighbour already is granted once more. So a lost or
overtaken frame leaves nothing behind: each neighbour is asked again from time to time, over a new connection first, and
a side that does not know of the link grants or refuses it, which both then go by. A grant that nobody waits for is
answered with `Disconnect`: it met the end of the link on the way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from quicbus.wire.node_frames import Disconnect, Neighbor, NeighborReply
from quicbus_broker.mesh.outputs import NeighborDown, NeighborUp, SendFrame

if TYPE_CHECKING:
    from random import Random

    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.overlay.connections import Connections

__all__ = ["ASK_TIMEOUT_S", "CHECK_INTERVAL_S", "Ask", "Links"]

ASK_TIMEOUT_S = 3.0
"""How long a NeighborReply may take; then it is asked once more."""

ASK_TRIES = 2

CHECK_INTERVAL_S = 5.0
"""One neighbour so often is asked again. A one-sided link heals within this times the number of neighbours."""

STRAY_PAUSE_S = 1.0
"""A node that takes this one for a neighbour is told at most so often that it is none."""

_MAX_STRAYS = 64


class Ask(msgspec.Struct):
    """A `Neighbor` whose reply is awaited. `is_spare`: in exchange for another link, once granted."""

    until: float
    urgent: bool
    is_spare: bool
    tries: int = 1


class Links:
    """Who is a neighbour and who was asked. Whether to ask, grant or drop is decided by the overlay."""

    def __init__(self, connections: Connections, rng: Random) -> None:
        self.neighbors: dict[NodeId, None] = {}
        self._connections = connections
        self._rng = rng
        # All wait equally long, so the first is due first.
        self.asked: dict[NodeId, Ask] = {}
        # Boot and connection over which it was agreed last.
        self._agreed: dict[NodeId, tuple[int | None, int | None]] = {}
        self._to_check: list[NodeId] = []
        self._check_at = math.inf
        self._strays: dict[NodeId, float] = {}

    def boot_of(self, node: NodeId) -> int | None:
        """Return the boot of the neighbour with which the link was agreed."""
        return self._agreed[node][0]

    def ask(self, node: NodeId, now: float, outputs: list[Output], *, urgent: bool, is_spare: bool = False) -> None:
        self.asked.pop(node, None)
        self.asked[node] = Ask(now + ASK_TIMEOUT_S, urgent, is_spare)
        outputs.append(SendFrame(node, Neighbor(urgent=urgent)))

    def ask_again(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """Its connection has changed: what was asked over the old one may be lost."""
        ask = self.asked.get(node)
        if ask is not None:
            self.ask(node, now, outputs, urgent=ask.urgent, is_spare=ask.is_spare)

    def grant(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        outputs.append(SendFrame(node, NeighborReply(granted=True)))
        self.up(node, now, outputs)

    def refuse(self, node: NodeId, outputs: list[Output]) -> None:
        outputs.append(SendFrame(node, NeighborReply(granted=False)))

    def up(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        self.asked.pop(node, None)
        self._agreed[node] = (self._connections.boot_of(node), self._connections.in_use(node))
        if node in self.neighbors:
            return
        self.neighbors[node] = None
        if self._check_at == math.inf:
            self._check_at = now + self._rng.uniform(0.5, 1.0) * CHECK_INTERVAL_S
        outputs.append(NeighborUp(node))

    def down(self, node: NodeId, outputs: list[Output], *, is_lost: bool) -> bool:
        """Forget the link, without telling the other side; return whether there was one."""
        self.asked.pop(node, None)
        if node not in self.neighbors:
            return False
        del self.neighbors[node], self._agreed[node]
        if not self.neighbors:
            self._check_at = math.inf
        outputs.append(NeighborDown(node, is_lost))
        return True

    def drop(self, node: NodeId, outputs: list[Output]) -> None:
        """End the link; the connection stays."""
        outputs.append(SendFrame(node, Disconnect()))
        self.down(node, outputs, is_lost=False)

    def on_unasked_grant(self, node: NodeId, outputs: list[Output]) -> None:
        outputs.append(SendFrame(node, Disconnect()))

    def stray(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """Something came from the node that only neighbours send: if it is none, tell it so."""
        if node in self.neighbors or node in self.asked or now < self._strays.get(node, -math.inf):
            return
        self._strays.pop(node, None)
        self._strays[node] = now + STRAY_PAUSE_S
        if len(self._strays) > _MAX_STRAYS:
            del self._strays[next(iter(self._strays))]
        outputs.append(SendFrame(node, Disconnect()))

    def next_timer(self) -> float:
        for ask in self.asked.values():
            return min(ask.until, self._check_at)
        return self._check_at

    def tick(self, now: float, outputs: list[Output]) -> list[NodeId]:
        """Check one neighbour, ask once more; return those who never replied."""
        if now >= self._check_at:
            self._check_at = now + CHECK_INTERVAL_S
            self._check(outputs)
        silent: list[NodeId] = []
        for node in [node for node, ask in self.asked.items() if ask.until <= now]:
            ask = self.asked.pop(node)
            if ask.tries < ASK_TRIES:
                self.asked[node] = Ask(now + ASK_TIMEOUT_S, ask.urgent, ask.is_spare, ask.tries + 1)
                outputs.append(SendFrame(node, Neighbor(urgent=ask.urgent)))
            else:
                # It may have granted all the same.
                outputs.append(SendFrame(node, Disconnect()))
                silent.append(node)
        return silent

    def _check(self, outputs: list[Output]) -> None:
        node = self._take_moved() or self._take_turn()
        self._agreed[node] = (self._agreed[node][0], self._connections.in_use(node))
        outputs.append(SendFrame(node, Neighbor()))

    def _take_moved(self) -> NodeId | None:
        """Return a neighbour that is reached over another connection now: frames may have been lost or overtaken."""
        for node, (_, connection) in self._agreed.items():
            if connection != self._connections.in_use(node):
                return node
        return None

    def _take_turn(self) -> NodeId:
        while self._to_check:
            node = self._to_check.pop()
            if node in self.neighbors:
                return node
        self._to_check = list(self.neighbors)
        self._rng.shuffle(self._to_check)
        return self._to_check.pop()
