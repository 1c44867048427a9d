"""An event loop whose clock leaves out the time for which a busy machine let this process wait.

A test can stand still for longer than a connection may be silent. Where both of its ends are in this process neither
could say a word meanwhile: by this clock nothing was late.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COUNTED_S", "PatientSelector", "patient_loop"]

COUNTED_S = 0.05
"""At most so much passes in a turn of the loop, and so much more than it meant to sleep between two turns."""


class PatientSelector(selectors.DefaultSelector):
    """Where the loop sleeps; `now()` is its clock, in seconds. `clock` tells the real time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._since = clock()
        self._left_out_s = 0.0

    def now(self) -> float:
        return min(self._clock(), self._since + COUNTED_S) - self._left_out_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._leave_out_over(COUNTED_S)
        ready = super().select(timeout)
        self._leave_out_over(math.inf if timeout is None else max(timeout, 0.0) + COUNTED_S)
        return ready

    def _leave_out_over(self, expected_s: float) -> None:
        now = self._clock()
        self._left_out_s += max(now - self._since - expected_s, 0.0)
        self._since = now


def patient_loop() -> asyncio.AbstractEventLoop:
    """Return a new loop."""
    selector = PatientSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = selector.now  # type: ignore[method-assign]  # the loop asks itself
    return loop
