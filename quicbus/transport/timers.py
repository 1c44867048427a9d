"""The deadlines of many connections behind one timer of the event loop: a heap with lazy deletion. Pure."""

from __future__ import annotations

import heapq
import math
import sys
from typing import Final, Generic, TypeVar

__all__ = ["TimerQueue", "to_tick"]

T = TypeVar("T")

COMPACT_ABOVE: Final = 64
"""Entries out of date beyond as many as are in use, plus this: the heap is made anew."""

TICKS_PER_S: Final = 1000


def to_tick(when: float) -> float:
    """Return the next whole millisecond from `when` on: what to set the event loop's timer to.

    uvloop's clock knows no less, and its timers are rounded to it: one that comes half of it too early would be set
    again, and come again, a thousand times until its time has come. epoll waits for whole milliseconds anyway.
    """
    ticks = math.ceil(when * TICKS_PER_S)
    tick = ticks / TICKS_PER_S
    return tick if tick >= when else (ticks + 1) / TICKS_PER_S  # The product can be rounded down to a whole number.


class TimerQueue(Generic[T]):
    """At most one wake-up for each owner.

    A deadline that moves further away (nearly all do: each datagram pushes the idle time-out) costs one comparison: the
    old wake-up stays, comes too early, and the owner is asked again. Only one that moves nearer costs a push.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._wake_at: dict[T, float] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._wake_at)

    def schedule(self, owner: T, when: float) -> bool:
        """Wake `owner` at `when` or earlier. Returns whether this may have changed `earliest`."""
        present = self._wake_at.get(owner)
        if present is not None and present <= when:
            return False
        self._wake_at[owner] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, owner))
        if len(self._heap) > 2 * len(self._wake_at) + COMPACT_ABOVE:
            self._compact()
        return self._heap[0][0] == when

    def cancel(self, owner: T) -> None:
        self._wake_at.pop(owner, None)

    def earliest(self) -> float | None:
        heap = self._heap
        while heap and self._wake_at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float, most: int = sys.maxsize) -> list[T]:
        """Return the owners whose wake-up has come, earliest first, at most `most`; each has to be scheduled anew."""
        due: list[T] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(due) < most:
            when, _, owner = heapq.heappop(heap)
            if self._wake_at.get(owner) == when:
                del self._wake_at[owner]
                due.append(owner)
        return due

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._wake_at.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)
