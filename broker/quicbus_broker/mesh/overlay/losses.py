"""When a connection that broke, or could not be opened, makes a member a suspect.

The detector watches neighbours only. A neighbour whose connection broke is none any more, and a member all of whose
neighbours failed with it is watched by nobody: for both the judgement is a dial that fails.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus_broker.mesh.outputs import State

if TYPE_CHECKING:
    from random import Random

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.outputs import NodeId
    from quicbus_broker.mesh.overlay.targets import Targets

__all__ = ["Losses"]

_GRACE_S = 2.0
"""A lost neighbour that only it can dial may take so long to come back."""


class Losses:
    """Lost neighbours, and members that were accused because nothing answered at their addresses."""

    def __init__(self, table: MemberTable, targets: Targets, config: MeshConfig, rng: Random) -> None:
        self._table = table
        self._targets = targets
        self._config = config
        self._rng = rng
        # When to dial it, or to accuse it where that is not possible; infinite while it is being dialed.
        self._lost: dict[NodeId, float] = {}
        self._accused: dict[NodeId, None] = {}

    def lose(self, node: NodeId, now: float) -> None:
        """A neighbour's connection broke."""
        entry = self._table.get(node)
        if entry is not None and self._targets.can_dial(entry):
            self._lost[node] = now + self._rng.uniform(0.0, self._config.redial_min_s)
        else:
            self._lost[node] = now + _GRACE_S

    def connected(self, node: NodeId) -> None:
        self._lost.pop(node, None)
        self._accused.pop(node, None)

    def moved(self, node: NodeId) -> None:
        """What was in vain at its old addresses says nothing about the new ones."""
        self._accused.pop(node, None)

    def refuted(self, node: NodeId) -> None:
        """It was taken for failed and lives, only not within reach: this node does not accuse it again."""
        self._accused[node] = None

    def forget(self, node: NodeId) -> None:
        self._lost.pop(node, None)
        self._accused.pop(node, None)

    def clear(self) -> None:
        self._lost.clear()

    def next_timer(self) -> float:
        return min(self._lost.values()) if self._lost else math.inf

    def due(self, now: float) -> list[NodeId]:
        """Return the lost neighbours to dial now; `undialable` is for those where that cannot be done."""
        due = [node for node, until in self._lost.items() if until <= now]
        for node in due:
            self._lost[node] = math.inf
        return due

    def undialable(self, node: NodeId) -> bool:
        """Return whether to accuse a lost neighbour that did not come back by itself."""
        del self._lost[node]
        return node in self._table

    def unreached(self, node: NodeId, *, is_final: bool, is_late: bool, is_isolated: bool) -> bool:
        """All addresses failed; return whether to accuse the node.

        One that was no neighbour only once, since it may be unreachable from here alone; and not by a node without
        neighbours, which is rather itself the one that nobody can reach. Nobody is accused by a dial that failed long
        after its time: this process stood still.
        """
        was_lost = self._lost.pop(node, None) is not None
        if is_late or not (was_lost or self._is_suspicious(node, is_final=is_final, is_isolated=is_isolated)):
            return False
        self._accused[node] = None
        return True

    def _is_suspicious(self, node: NodeId, *, is_final: bool, is_isolated: bool) -> bool:
        if is_final or is_isolated or node in self._accused:
            return False
        entry = self._table.get(node)
        return entry is not None and entry.state in (State.ALIVE, State.SUSPECT)
