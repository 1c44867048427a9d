"""What waits in one lane of one origin for what is missing before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus.wire.bundles import BundleBatch

__all__ = ["AFTER_SIZE", "HELD_OVERHEAD", "MAX_SKIPS", "Held", "Lane", "Ranges"]

HELD_OVERHEAD = 512
"""Bytes that a batch that waits costs beside its body."""
AFTER_SIZE = 176
"""Bytes of memory of each number that a batch names."""
MAX_SKIPS = 64
"""Ranges that are remembered of a lane; what is beyond is found out by the time-out."""


class Held:
    """A batch that waits. It came at `at`."""

    __slots__ = ("age_ms", "at", "batch", "hops")

    def __init__(self, batch: BundleBatch, age_ms: int, hops: int, at: float) -> None:
        self.batch = batch
        self.age_ms = age_ms
        self.hops = hops
        self.at = at

    @property
    def size(self) -> int:
        batch = self.batch
        return HELD_OVERHEAD + len(batch.body) + AFTER_SIZE * len(batch.after) + len(batch.group) + len(batch.filter)


class Ranges:
    """A few ranges of numbers, both ends included. Of too many the newest is not taken, or the oldest forgotten."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._ranges)

    def add(self, first: int, last: int) -> None:
        """Take a range, joined with those that it touches; nothing happens where there are too many."""
        apart = []
        for other in self._ranges:
            if other[1] + 1 < first or last + 1 < other[0]:
                apart.append(other)
            else:
                first, last = min(first, other[0]), max(last, other[1])
        if len(apart) < MAX_SKIPS:
            self._ranges = [*apart, (first, last)]

    def push(self, first: int, last: int) -> None:
        """Take a range in place of the oldest one."""
        self._ranges.append((first, last))
        del self._ranges[:-MAX_SKIPS]

    def end_of(self, number: int) -> int:
        """Return the last number of the range that `number` is in; 0: in none."""
        return next((last for first, last in self._ranges if first <= number <= last), 0)

    def count_in(self, first: int, last: int) -> int:
        """Return how many of these numbers are in the ranges, which must be apart."""
        return sum([max(0, min(last, b) - max(first, a) + 1) for a, b in self._ranges])

    def discard_below(self, number: int) -> None:
        self._ranges = [each for each in self._ranges if each[1] >= number]


class Lane:
    """Batches by number in the order in which they came, and the numbers that will not come."""

    __slots__ = ("held", "is_timed", "skips")

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        self.skips = Ranges()
        self.is_timed = False

    @property
    def oldest_at(self) -> float:
        """When the batch that has waited longest came."""
        for held in self.held.values():
            return held.at
        return math.inf
