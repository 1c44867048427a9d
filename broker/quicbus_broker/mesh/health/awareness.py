"""How far a node trusts its own judgement of others (Lifeguard, Dadgar et al., 2018, "Local Health Multiplier")."""

from __future__ import annotations

__all__ = ["Awareness"]


class Awareness:
    """A score from 0 (healthy) up. `factor` multiplies the node's own time-outs: who is late gives others more time."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.score = 0

    @property
    def factor(self) -> int:
        return self.score + 1

    def change(self, by: int) -> None:
        self.score = max(0, min(self._maximum, self.score + by))
