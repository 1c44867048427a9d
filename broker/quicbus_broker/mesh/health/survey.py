"""All links asked at once whether they are still there: where one neighbour and its helpers are silent, many may be.

Probing one after the other takes a node as many seconds as it has links, and longer the more it doubts itself; a node
that most of its neighbours have left at once must look for others before that. Nobody is accused by a survey.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Survey"]

_INTERVALS = 5
"""Surveys are so many probe intervals apart."""


class Survey:
    """`silent` are the neighbours that have said nothing since they were asked, or failed a probe."""

    def __init__(self, config: MeshConfig) -> None:
        self.silent: dict[NodeId, None] = {}
        self._config = config
        self._asked: dict[NodeId, None] = {}
        self._ends_at = math.inf
        self._not_before = -math.inf

    def begin(self, neighbors: Iterable[NodeId], now: float) -> list[NodeId]:
        """Return who is to be pinged now; nobody where a survey was made lately."""
        if now < self._not_before:
            return []
        self._not_before = now + _INTERVALS * self._config.probe_interval_s
        self._asked = {node: None for node in neighbors if node not in self.silent}
        self._wait(now)
        return list(self._asked)

    def heard(self, node: NodeId) -> bool:
        """Return whether a node that was silent is not any more."""
        self._asked.pop(node, None)
        return self.silent.pop(node, 0) is None

    def forget(self, node: NodeId) -> None:
        self._asked.pop(node, None)
        self.silent.pop(node, None)

    def next_timer(self) -> float:
        return self._ends_at

    def end(self, now: float) -> tuple[list[NodeId], list[NodeId]]:
        """Return who is silent from now on, and whom to ping once more: this process stood still and may not know."""
        if self._config.self_doubt and now - self._ends_at > self._config.probe_interval_s:
            self._wait(now)
            return [], list(self._asked)
        found, self._asked = self._asked, {}
        self._ends_at = math.inf
        self.silent.update(found)
        return list(found), []

    def _wait(self, now: float) -> None:
        self._ends_at = now + 2 * self._config.probe_timeout_s if self._asked else math.inf
