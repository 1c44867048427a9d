"""When to dial again what did not answer: seeds, failed members and whoever else could not be reached."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from random import Random

    from quicbus_broker.mesh.config import MeshConfig

__all__ = ["Redial", "redial_pause_s"]

_DOUBLINGS_MAX = 32
"""Beyond that the pause is at its maximum for any sensible configuration; the power stays a small number."""

Key = TypeVar("Key", str, bytes)


def redial_pause_s(config: MeshConfig, failures: int, rng: Random) -> float:
    """Return a pause after so many failures in a row: full jitter below a bound that doubles, from the minimum up."""
    bound = config.redial_min_s * 2 ** min(failures, _DOUBLINGS_MAX)
    return rng.uniform(config.redial_min_s, min(config.redial_max_s, bound))


class Redial(Generic[Key]):
    """A schedule of keys (addresses or node ids), each with growing, jittered pauses, at most `size_max` of them.

    A key stands in it until it is forgotten. While it is being dialed it has no time: `failed` gives it the next one.
    """

    def __init__(self, config: MeshConfig, rng: Random, size_max: int) -> None:
        self._config = config
        self._rng = rng
        self._size_max = size_max
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        # Lazily cleaned: an item counts if `_due` still says the same. The number keeps the order of equal times.
        self._heap: list[tuple[float, int, Key]] = []
        self._number = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._failures

    def __len__(self) -> int:
        return len(self._failures)

    def keys(self) -> list[Key]:
        return list(self._failures)

    def is_waiting(self, key: Key) -> bool:
        """Return whether the key has a time that has not been popped yet."""
        return key in self._due

    def soon(self, key: Key, now: float, spread_s: float = 0.0) -> bool:
        """Dial the key for the first time, or without regard to earlier failures; False where the schedule is full."""
        if key not in self._failures and len(self._failures) >= self._size_max:
            return False
        self._failures[key] = 0
        self._arm(key, now + (self._rng.uniform(0.0, spread_s) if spread_s else 0.0))
        return True

    def failed(self, key: Key, now: float, *, is_final: bool = False) -> bool:
        """Give the key its next time; `is_final`: with the longest pause. False where the schedule is full."""
        if key not in self._failures and len(self._failures) >= self._size_max:
            return False
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        pause = self._config.redial_max_s if is_final else redial_pause_s(self._config, failures, self._rng)
        self._arm(key, now + pause)
        return True

    def clear(self) -> None:
        self._failures.clear()
        self._due.clear()
        self._heap.clear()

    def forget(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._due.pop(key, None)

    def next_timer(self) -> float:
        if not self._heap:
            return math.inf
        self._clean()
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Key | None:
        """Return a key whose time has come; it has no time until `soon` or `failed` gives it one."""
        self._clean()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heappop(self._heap)[2]
        del self._due[key]
        return key

    def _arm(self, key: Key, due: float) -> None:
        self._due[key] = due
        self._number += 1
        heappush(self._heap, (due, self._number, key))
        if len(self._heap) > 2 * len(self._due) + 16:
            self._heap = [item for item in self._heap if self._due.get(item[2]) == item[0]]
            heapify(self._heap)

    def _clean(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
