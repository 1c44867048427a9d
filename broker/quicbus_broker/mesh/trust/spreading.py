"""Brings the trust list to every node: told to whoever has an earlier one, and passed on by whoever learns a later one.

A node that joins, and one that was away, gets it in its first exchange with any other. What is lost with a connection
comes again: one neighbour so often is told the own version.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.frames import Trust
from quicbus.wire.node_frames import TrustVersion
from quicbus_broker.mesh.outputs import Misbehaved, SendFrame, TrustChanged, TrustLearned
from quicbus_broker.mesh.signing import Forged

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable

    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.trust.keeper import TrustKeeper

__all__ = ["ASK_AGAIN_S", "FLOOD_LINKS", "REFUSED_FOR_S", "SEND_AGAIN_S", "Spreading"]

SEND_AGAIN_S = 5.0
"""The same list goes to the same node at most so often, however it asks: it may have 240 KB."""
ASK_AGAIN_S = 1.0
"""So long one node has to send a list before another one is asked for it."""
FLOOD_LINKS = 8
"""With up to so many neighbours all of them are sent it at once."""
REFUSED_FOR_S = 600.0
"""A revoked node that was sent the list is not let in again for so long: longer than it needs to read it."""
_MAX_TOLD = 1024


class Spreading:
    """`keeper` has the list. What was learned is told as `TrustLearned`, for the file, and `TrustChanged`."""

    def __init__(self, keeper: TrustKeeper) -> None:
        self._keeper = keeper
        self._sent: dict[NodeId, tuple[int, float]] = {}
        """Version and time of the list that was sent last to a connected node."""
        self._theirs: dict[NodeId, int] = {}
        """The version that a connected node is known to have."""
        self._told: dict[NodeId, float] = {}
        """When revoked nodes were sent the list."""
        self._to_remind: list[NodeId] = []
        self._asked = (0, -math.inf)
        """Which later list was asked for last, and when."""

    # --- connections ---

    def connected(self, node: NodeId, outputs: list[Output]) -> None:
        """A connection with the node is open, another process of it maybe: what it has is unknown."""
        self.disconnected(node)
        self._say_version(node, outputs)

    def disconnected(self, node: NodeId) -> None:
        self._sent.pop(node, None)
        self._theirs.pop(node, None)

    def remind(self, neighbors: Iterable[NodeId], outputs: list[Output]) -> None:
        """Tell one neighbour, each in turn, which list is here. To be called every now and then."""
        if not self._keeper.version:
            return
        present = dict.fromkeys(neighbors)
        if not any(node in present for node in self._to_remind):
            self._to_remind = list(present)
        while self._to_remind:
            node = self._to_remind.pop()
            if node in present:
                outputs.append(SendFrame(node, TrustVersion(version=self._keeper.version)))
                return

    # --- frames ---

    def on_version(self, node: NodeId, frame: TrustVersion, now: float, outputs: list[Output]) -> None:
        self._theirs[node] = frame.version
        if frame.version < self._keeper.version:
            self._send(node, now, outputs)
        elif frame.version > self._keeper.version:
            self._ask(node, frame.version, now, outputs)

    def on_trust(self, node: NodeId, frame: Trust, now: float, outputs: list[Output]) -> None:
        if len(frame.signed) > limits.MAX_TRUST_SIZE:
            outputs.append(Misbehaved(node, f"a trust list of {len(frame.signed)} bytes"))
            return
        try:
            is_later = self._keeper.take(frame.signed)
        except Forged as forged:
            outputs.append(Misbehaved(node, forged.why))
            return
        if is_later:
            self._theirs[node] = self._keeper.version
            outputs.append(TrustLearned(frame.signed))
            outputs.append(TrustChanged(node))

    def spread(
        self,
        neighbors: Collection[NodeId],
        eager: Container[NodeId],
        source: NodeId | None,
        now: float,
        outputs: list[Output],
    ) -> None:
        """The own list has changed: send it to all that may not have it.

        In a large mesh it goes along the tree of broadcasts, `eager`; the other neighbours are told that it is here.
        """
        for node in neighbors:
            if node == source or self._theirs.get(node, -1) >= self._keeper.version:
                continue
            if node in eager or len(neighbors) <= FLOOD_LINKS:
                self._send(node, now, outputs)
            else:
                self._say_version(node, outputs)

    def _ask(self, node: NodeId, version: int, now: float, outputs: list[Output]) -> None:
        """Ask for a later list, one node at a time: all that have it may say so at once."""
        asked, at = self._asked
        if asked < version or now >= at + ASK_AGAIN_S:
            self._asked = version, now
            outputs.append(SendFrame(node, TrustVersion(version=self._keeper.version)))

    def _say_version(self, node: NodeId, outputs: list[Output]) -> None:
        if self._keeper.version:
            outputs.append(SendFrame(node, TrustVersion(version=self._keeper.version)))

    def _send(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        version = self._keeper.version
        sent, at = self._sent.get(node, (0, -math.inf))
        if sent == version and now < at + SEND_AGAIN_S:
            return
        self._sent[node] = version, now
        outputs.append(SendFrame(node, Trust(signed=self._keeper.signed)))

    # --- revoked nodes ---

    def tell(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """Send a revoked node the list, by which it knows that it must stop."""
        self._told.pop(node, None)
        self._told[node] = now
        if len(self._told) > _MAX_TOLD:
            del self._told[next(iter(self._told))]
        outputs.append(SendFrame(node, Trust(signed=self._keeper.signed)))

    def was_told(self, node: NodeId, now: float) -> bool:
        """Whether a revoked node was sent the list a short while ago."""
        return now < self._told.get(node, -math.inf) + REFUSED_FOR_S
