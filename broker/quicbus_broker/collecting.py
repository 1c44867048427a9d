"""When a process that is a broker looks for cycles of objects: in quiet moments, and seldom while it is busy.

A full collection visits all objects that live, and nothing else happens meanwhile: 49 ms for what is there after the
start, four times that beside 50,000 subscriptions (measured). Python decides by how many objects were made, that is,
while the broker is busiest.

Only for a process that is nothing else: a broker within an application leaves that one's collector alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["FullCollections", "collecting_in_quiet_moments"]

LOOK_S = 0.5
"""So often a quiet moment is looked for."""
QUIET_SHARE = 0.05
"""Of a processor: a broker that took less since the last look is idle. 200 messages a second take it 0.06."""
PENDING = 1
"""Collections of younger objects since the last full one, each after some 7,000 objects more: for less than that
there is nothing to find."""
PENDING_WHEN_BUSY = 20
"""140,000 objects, tens of megabytes. Python's own rule is 10, and a quarter of what lives."""
REST = 20
REST_WHEN_BUSY = 200
"""As many times as long as the last one took nothing is collected: at most 5 % and 0.5 % of the time goes there."""
_NEVER = 1 << 30


class FullCollections:
    """Tells when to collect. Pure; times in seconds."""

    def __init__(self, now: float) -> None:
        self._ended_at = now
        self._took_s = 0.0

    def is_due(self, pending: int, busy_share: float, now: float) -> bool:
        """`pending`: collections of younger objects since the last full one; `busy_share`: of a processor."""
        rested_s = now - self._ended_at
        if busy_share < QUIET_SHARE:
            return pending >= PENDING and rested_s >= REST * self._took_s
        return pending >= PENDING_WHEN_BUSY and rested_s >= REST_WHEN_BUSY * self._took_s

    def collected(self, now: float, took_s: float) -> None:
        self._ended_at = now
        self._took_s = took_s


@contextlib.asynccontextmanager
async def collecting_in_quiet_moments() -> AsyncIterator[None]:
    """Within this, full collections are made by `FullCollections`. What lives at its beginning is not visited again."""
    thresholds = gc.get_threshold()
    gc.freeze()  # without collecting first: that would take as long as a good part of the start
    gc.set_threshold(*thresholds[:2], _NEVER)
    task = asyncio.create_task(_collect_in_quiet_moments(FullCollections(time.monotonic())), name="collecting")
    try:
        yield
    finally:
        task.cancel()
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _collect_in_quiet_moments(collections: FullCollections) -> None:
    looked_at, busy_s = time.monotonic(), time.process_time()
    while True:
        await asyncio.sleep(LOOK_S)
        now, busy_now_s = time.monotonic(), time.process_time()
        busy_share = (busy_now_s - busy_s) / max(now - looked_at, 1e-9)
        if collections.is_due(gc.get_count()[2], busy_share, now):
            took_s = _collect()
            collections.collected(time.monotonic(), took_s)
        looked_at, busy_s = time.monotonic(), time.process_time()


def _collect() -> float:
    """Collect fully; returns how long that took."""
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began
