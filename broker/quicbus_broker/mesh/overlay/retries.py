"""Members that could not be reached, dialed again for ever: one at a time, however many there are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus_broker.mesh.outputs import State
from quicbus_broker.mesh.overlay.redial import Redial

if TYPE_CHECKING:
    from random import Random

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import Entry, MemberTable
    from quicbus_broker.mesh.outputs import NodeId
    from quicbus_broker.mesh.overlay.targets import Targets

__all__ = ["PICK_TRIES", "Retries"]

_SCHEDULE_MAX = 256
"""Members with a time of their own. When more have failed, random ones of the others are tried in between."""

PICK_TRIES = 64
"""Below so many members every suitable one is found, beyond it nearly always one."""


class Retries:
    """Each member has its growing pauses; all of them together are not tried more often than `pace` says."""

    def __init__(self, table: MemberTable, targets: Targets, config: MeshConfig, rng: Random) -> None:
        self._table = table
        self._targets = targets
        self._config = config
        self._rng = rng
        self._redial: Redial[NodeId] = Redial(config, rng, _SCHEDULE_MAX)
        # Some failed members have no time of their own.
        self._has_more = False
        self._is_turn_of_more = False
        self._not_before = -math.inf

    def __len__(self) -> int:
        return len(self._redial)

    def failed(self, node: NodeId, now: float, *, is_final: bool = False) -> None:
        if not self._redial.failed(node, now, is_final=is_final):
            self._has_more = True

    def soon(self, node: NodeId, now: float) -> None:
        self._redial.soon(node, now, spread_s=self._config.redial_min_s)

    def hurry(self, now: float) -> None:
        """Try all that have a time of their own soon, without regard to earlier failures."""
        for node in self._redial.keys():  # noqa: SIM118 (no dict)
            self.soon(node, now)

    def forget(self, node: NodeId) -> None:
        self._redial.forget(node)

    def is_waiting(self, node: NodeId) -> bool:
        return self._redial.is_waiting(node)

    def clear(self) -> None:
        self._redial = Redial(self._config, self._rng, _SCHEDULE_MAX)
        self._has_more = False

    def pace(self, now: float, *, is_isolated: bool) -> None:
        """One is being dialed: the next one not before a while."""
        self._not_before = now + (self._config.redial_min_s if is_isolated else self._config.probe_interval_s)

    def next_timer(self) -> float:
        return self._not_before if self._has_more else max(self._redial.next_timer(), self._not_before)

    def pop_due(self, now: float) -> NodeId | None:
        """Return whom to try now; call `failed` or `forget` for it, and `pace` where it is dialed."""
        if now < self._not_before:
            return None
        if not self._has_more:
            return self._redial.pop_due(now)
        self._is_turn_of_more = not self._is_turn_of_more
        node = None if self._is_turn_of_more else self._redial.pop_due(now)
        if node is None:
            node = self._table.pick(self._rng, self._is_left_out, PICK_TRIES)
        if node is None:
            self._schedule_rest(now)
            self.pace(now, is_isolated=False)
        return node

    def _is_left_out(self, entry: Entry) -> bool:
        return entry.state is State.FAILED and self._targets.can_dial(entry) and entry.record.node not in self._redial

    def _schedule_rest(self, now: float) -> None:
        """Few are left without a time of their own; see whether they all get one."""
        self._has_more = False
        for node in self._table.nodes():
            entry = self._table.get(node)
            if entry is not None and self._is_left_out(entry):
                self.failed(node, now)
                if self._has_more:
                    return
