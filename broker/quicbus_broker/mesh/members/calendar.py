"""When which members are to be looked at again, in the order of time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sortedcontainers import SortedDict

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Calendar"]

SLOT_S = 0.1
"""Times are rounded up to this: thousands of members that fail together then cost one step, not one each."""


class Calendar:
    """Members by the time when they are due. One that is due no longer stays: who takes it out looks at it anew."""

    __slots__ = ("_next", "_slots")

    def __init__(self) -> None:
        self._slots: SortedDict[int, list[NodeId]] = SortedDict()
        self._next = math.inf

    def add(self, node: NodeId, at: float) -> None:
        slot = math.ceil(at / SLOT_S)
        nodes = self._slots.get(slot)
        if nodes is None:
            self._slots[slot] = [node]
            self._next = min(self._next, slot * SLOT_S)
        else:
            nodes.append(node)

    def next_timer(self) -> float:
        """Return when the next is due, infinite where none is."""
        return self._next

    def due(self, now: float) -> list[NodeId]:
        """Take out all whose time has come, the earliest first."""
        nodes: list[NodeId] = []
        while self._next <= now:
            nodes += self._slots.popitem(0)[1]
            self._next = self._slots.peekitem(0)[0] * SLOT_S if self._slots else math.inf
        return nodes
