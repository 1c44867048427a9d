"""How many lines of one kind may stand in the log, however often what they tell of happens. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LineBudget"]


class LineBudget:
    """`lines` in each `period_s`."""

    def __init__(self, lines: int, period_s: float, clock: Callable[[], float]) -> None:
        self._lines = lines
        self._period_s = period_s
        self._clock = clock
        self._left = lines
        self._from = clock()

    def spend(self) -> bool:
        """Whether a line may be written now; then it counts."""
        now = self._clock()
        if now >= self._from + self._period_s:
            self._from, self._left = now, self._lines
        if not self._left:
            return False
        self._left -= 1
        return True
