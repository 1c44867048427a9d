"""Messages that wait for one subscription, in order: whole batches and parts of them, with their expiry.

Costs are per batch, not per message, and amortised constant: what expired in the middle is marked, and swept out once
it outweighs what is alive.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, Final, final

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quicbus_broker.routing.outputs import Batch

__all__ = ["Backlog", "Waiting", "fitting"]

_SWEEP_SLACK: Final = 64
"""Expired entries that may stay among living ones before they are swept out."""


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class Waiting:
    """Messages `start` to `stop` (exclusive) of a batch. `size` are their bytes as the table counts.

    The collector does not know it: a subscription that ends lets go of what waits.
    """

    __slots__ = ("batch", "size", "start", "stop")
    __deletable__ = ("batch",)

    def __init__(self, batch: Batch, start: int, stop: int, size: int) -> None:
        self.batch = batch
        self.start = start
        self.stop = stop
        self.size = size

    @property
    def count(self) -> int:
        return self.stop - self.start


class Backlog:
    """`messages` and `size` (bytes) are what waits."""

    __slots__ = ("_dead", "_entries", "_expiries", "_insertions", "messages", "size")

    def __init__(self) -> None:
        self.messages = 0
        self.size = 0
        self._entries: deque[Waiting] = deque()
        self._expiries: list[tuple[float, int, Waiting]] = []
        self._insertions = 0
        self._dead = 0

    def append(self, batch: Batch, start: int, stop: int, size: int) -> None:
        """Let messages of a batch wait. A small part of a large batch is copied, so as not to keep all of it."""
        if 2 * (stop - start) < batch.body.count:
            batch = batch.part(start, stop)
            start, stop = 0, stop - start
        entry = Waiting(batch, start, stop, size)
        self._entries.append(entry)
        self.messages += stop - start
        self.size += size
        if batch.expires_at < math.inf:
            self._insertions += 1
            heapq.heappush(self._expiries, (batch.expires_at, self._insertions, entry))

    def take(self, messages: int, size: int, *, at_least_one: bool) -> Waiting | None:
        """Take the oldest messages, all of one batch, that fit in `messages` and `size`; `None` when none does.

        `at_least_one`: a message that is larger than `size` goes alone.
        """
        entry = self._front()
        if entry is None:
            return None
        if entry.count <= messages and entry.size <= size:
            self._entries.popleft()
            return self._leave(entry)
        count, taken = fitting(entry.batch.body.sizes, entry.start, entry.stop, messages, size)
        if not count:
            if not at_least_one or messages < 1:
                return None
            count, taken = 1, entry.batch.body.sizes[entry.start]
        return self._cut(entry, count, taken)

    def drop(self, messages: int, size: int) -> Waiting | None:
        """Take the oldest messages of one batch: as few as free `messages` messages and `size` bytes, or all of it.

        One of the two is positive.
        """
        entry = self._front()
        if entry is None:
            return None
        if entry.count <= messages or 0 < size >= entry.size:
            self._entries.popleft()
            return self._leave(entry)
        sizes = entry.batch.body.sizes
        count = freed = 0
        while count < messages or freed < size:
            freed += sizes[entry.start + count]
            count += 1
        return self._cut(entry, count, freed)

    def expire(self, now: float) -> int:
        """Drop what is due by `now`; returns the number of messages."""
        expired = 0
        while self._expiries and self._expiries[0][0] <= now:
            entry = heapq.heappop(self._expiries)[2]
            if entry.count:
                expired += entry.count
                self._dead += 1
                self._leave(entry)
        if expired:
            self._sweep()
        return expired

    def next_expiry(self) -> float:
        """Return a time before which nothing expires, infinite when nothing will."""
        return self._expiries[0][0] if self._expiries else math.inf

    def clear(self) -> list[Waiting]:
        """Take everything, oldest first."""
        entries = [entry for entry in self._entries if entry.count]
        self._entries.clear()
        self._expiries.clear()
        self._dead = self.messages = self.size = 0
        return entries

    def __iter__(self) -> Iterator[Waiting]:
        return (entry for entry in self._entries if entry.count)

    def _front(self) -> Waiting | None:
        entries = self._entries
        while entries and not entries[0].count:
            entries.popleft()
            self._dead -= 1
        return entries[0] if entries else None

    def _leave(self, entry: Waiting) -> Waiting:
        self.messages -= entry.count
        self.size -= entry.size
        if entry.batch.expires_at == math.inf:
            return entry
        taken = Waiting(entry.batch, entry.start, entry.stop, entry.size)
        _empty(entry)
        if len(self._expiries) > 2 * len(self._entries) + _SWEEP_SLACK:
            self._sweep()
        return taken

    def _cut(self, entry: Waiting, count: int, size: int) -> Waiting:
        """Take the first `count` messages (`size` bytes) of the oldest entry."""
        if count == entry.count:
            self._entries.popleft()
            return self._leave(entry)
        first = Waiting(entry.batch, entry.start, entry.start + count, size)
        entry.start += count
        entry.size -= size
        self.messages -= count
        self.size -= size
        return first

    def _sweep(self) -> None:
        self._front()
        if self._dead > len(self._entries) // 2 + _SWEEP_SLACK:
            self._entries = deque(entry for entry in self._entries if entry.count)
            self._dead = 0
        if len(self._expiries) > 2 * len(self._entries) + _SWEEP_SLACK:
            self._expiries = [expiry for expiry in self._expiries if expiry[2].count]
            heapq.heapify(self._expiries)


def fitting(sizes: Sequence[int], start: int, stop: int, messages: int, size: int) -> tuple[int, int]:
    """Return how many of the messages from `start` on fit in `messages` and `size`, and their bytes."""
    if messages <= 0 or size < 0:
        return 0, 0
    sizes = sizes[start : min(stop, start + messages)]
    total = sum(sizes)
    if total <= size:
        return len(sizes), total
    ends = list(accumulate(sizes))
    count = bisect_right(ends, size)
    return count, ends[count - 1] if count else 0


def _empty(entry: Waiting) -> None:
    """Mark an entry that may still stand in the queue of expiries; it must not keep the bytes of its batch."""
    entry.start = entry.stop
    entry.size = 0
    del entry.batch
