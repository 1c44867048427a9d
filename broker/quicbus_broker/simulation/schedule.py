"""Virtual time: what is to happen when, in one order that depends on nothing but the calls made."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Schedule"]


class Schedule:
    """A clock that jumps from event to event. What is due at one time happens in the order of asking."""

    __slots__ = ("_heap", "_made", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._made = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def happened(self) -> int:
        """How many events have been performed so far."""
        return self._made - len(self._heap)

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do this at `time`; a time in the past means now."""
        self._made += 1
        heappush(self._heap, (time, self._made, action, arguments))

    def after(self, delay_s: float, action: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + delay_s, action, *arguments)

    def run_until(self, time: float) -> None:
        """Perform everything up to and at `time`, which is the clock's time afterwards."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            due, _, action, arguments = heappop(heap)
            if due > self.now:
                self.now = due
            action(*arguments)
        self.now = max(self.now, time)

    def run_for(self, duration_s: float) -> None:
        self.run_until(self.now + duration_s)

    def run_while(self, condition: Callable[[], bool], limit_s: float, step_s: float = 0.1) -> float:
        """Run until `condition` no longer holds, asking every `step_s`; returns the time it took, inf if too long."""
        start = self.now
        while condition():
            if self.now - start >= limit_s:
                return math.inf
            self.run_for(step_s)
        return self.now - start
