"""Nodes that refused to be neighbours, or were dropped: not asked again for a while."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Avoided"]

_AVOID_S = 10.0
"""A node that refused, or that was dropped, is not asked again for about so long."""

_MAX_AVOIDED = 256


class Avoided:
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._until: dict[NodeId, float] = {}

    def add(self, node: NodeId, now: float) -> None:
        self._until.pop(node, None)
        self._until[node] = now + self._rng.uniform(0.5, 1.0) * _AVOID_S
        if len(self._until) > _MAX_AVOIDED:
            del self._until[next(iter(self._until))]

    def forget(self, node: NodeId) -> None:
        self._until.pop(node, None)

    def has(self, node: NodeId, now: float) -> bool:
        return self._until.get(node, -math.inf) > now
