"""When a broker process looks for cycles of objects: in quiet moments, and a little at a time while it is busy.

A full collection visits all objects that live, and nothing else happens meanwhile: 49 ms for what is there after the
start, four times that beside 50,000 subscriptions (measured). Python decides by how many objects were made, that is,
while the broker is busiest. Here a busy broker visits only what it made since the last time, and what outlives that is
set aside (`gc.freeze`) until there is a quiet moment to visit all of it.

Only for a process that is nothing else: a broker within an application leaves that one's collector alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Collections", "Scope", "collect_all", "collecting_in_quiet_moments"]

LOOK_S = 0.1
LOOK_WHEN_BUSY_S = 0.02
"""So often it is looked what is due."""
QUIET_SHARE = 0.02
"""Of a processor: a broker that took less in the last `LOOK_S` is idle. 200 messages a second take it 0.04 to 0.1."""
PENDING = 1
"""Collections of younger objects since the last one of this kind, each after some 7,000 objects more, which are visited
in 1 to 2 ms: for less than that there is nothing to find."""
REST = 100
REST_WHEN_BUSY = 20
REST_FROM_ALL_WHEN_BUSY = 500
"""As many times as long as the last one took nothing is collected: at most 1 %, 5 % and 0.2 % of the time. While it is
busy a longer rest would only make the next one longer: a flood of connections makes 250,000 objects a second."""
FIRST_TOOK_S = 0.05
"""Taken for what all of it would have taken at the start, where a collection would be a good part of that."""
_NEVER = 1 << 30
_sets_aside = False
"""Of this process, as the collector is: what outlives a collection is not visited by the next one."""


class Scope(enum.Enum):
    NEW = "what was made since the last collection"
    ALL = "all that was made since the start"


class Collections:
    """Tells what to collect when. Pure; times in seconds."""

    def __init__(self, now: float) -> None:
        self._ended_at = dict.fromkeys(Scope, now)
        self._took_s = {Scope.NEW: 0.0, Scope.ALL: FIRST_TOOK_S}
        self._set_aside = 0
        """Of what was pending, since all of it was visited."""

    def due(self, pending: int, busy_share: float, now: float) -> Scope | None:
        """`pending`: collections of younger objects since the last one; `busy_share`: of a processor."""
        rest = REST if busy_share < QUIET_SHARE else REST_FROM_ALL_WHEN_BUSY
        if pending + self._set_aside >= PENDING and self._has_rested(Scope.ALL, rest, now):
            return Scope.ALL
        if pending >= PENDING and self._has_rested(Scope.NEW, REST_WHEN_BUSY, now):
            return Scope.NEW
        return None

    def _has_rested(self, scope: Scope, times: int, now: float) -> bool:
        return now - self._ended_at[scope] >= times * self._took_s[scope]

    def collected(self, scope: Scope, now: float, took_s: float) -> None:
        self._ended_at[scope] = now
        self._took_s[scope] = took_s
        self._set_aside = 0 if scope is Scope.ALL else self._set_aside + PENDING


@contextlib.asynccontextmanager
async def collecting_in_quiet_moments() -> AsyncIterator[None]:
    """Within this, old objects are visited as `Collections` tells; those of Python's own rule are not."""
    global _sets_aside
    thresholds = gc.get_threshold()
    _sets_aside = True
    gc.freeze()
    gc.set_threshold(*thresholds[:2], _NEVER)
    task = asyncio.create_task(_collect_in_quiet_moments(Collections(time.monotonic())), name="collecting")
    try:
        yield
    finally:
        task.cancel()
        _sets_aside = False
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _collect_in_quiet_moments(collections: Collections) -> None:
    measured_at, busy_s, busy_share = time.monotonic(), time.process_time(), 0.0
    while True:
        await asyncio.sleep(LOOK_S if busy_share < QUIET_SHARE else LOOK_WHEN_BUSY_S)
        now = time.monotonic()
        if now - measured_at >= LOOK_S:
            busy_now_s = time.process_time()
            busy_share = (busy_now_s - busy_s) / (now - measured_at)
            measured_at, busy_s = now, busy_now_s
        scope = collections.due(gc.get_count()[2], busy_share, now)
        if scope is not None:
            began = time.perf_counter()
            if scope is Scope.ALL:
                collect_all()
            else:
                _collect_new()
            collections.collected(scope, time.monotonic(), time.perf_counter() - began)


def collect_all() -> None:
    """Collect whatever no longer lives, also of what this module has set aside."""
    if _sets_aside:
        gc.unfreeze()
    _collect_new()


def _collect_new() -> None:
    gc.collect()
    if _sets_aside:
        gc.freeze()
