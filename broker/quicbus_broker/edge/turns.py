"""Work by the slice: a session deals with a bounded part of its input a turn; who has more waits for a further slice.

Pure: the clock measures work, and `call_soon` has the event loop call back after what else is due. Those who wait share
one slice of each turn of the loop, round robin: however many they are, the messages of all others go in between. What
comes in one turn shares another, which is none while some wait, and each session has a little of its own: a message or
two need not wait for floods.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

from quicbus import limits

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Turns", "Waiter"]


class Waiter(Protocol):
    """A session with work left over."""

    def work(self) -> bool:
        """Do one slice; tells whether there is more to do. Does not raise."""
        ...


class Turns:
    """Of all sessions of an edge. Without `call_soon` slices have no end, and nobody waits."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.clock = clock
        self._first_end: float | None = None
        """Of the slice that what came in this turn shares; `None` until something takes it."""
        self._has_begun_slice = False
        """What came in the turn before had a slice: those who wait let what else arrived go first."""
        self._call_soon = call_soon
        self._waiting: dict[Waiter, None] = {}
        self._is_called = False
        self._end: float | None = None
        """Of the slice that those who wait share now."""

    def slice_end(self) -> float:
        """Return when a slice that begins now is over, by the clock."""
        if self._end is not None:
            return self._end
        if self._call_soon is None:
            return math.inf
        now = self.clock()
        if self._first_end is None:
            self._has_begun_slice = not self._waiting
            self._first_end = now + limits.SLICE_S if self._has_begun_slice else now
        return max(self._first_end, now + limits.LEAST_SLICE_S)

    def turn_ended(self) -> None:
        """All that came in this turn was dealt with, or waits."""
        self._first_end = None

    def wait(self, waiter: Waiter) -> None:
        """Give `waiter` further slices until it has nothing left. Again is once."""
        self._waiting[waiter] = None
        self._ask()

    def finish(self) -> None:
        """Let all who wait do what is left, at once."""
        self._end = math.inf
        try:
            while self._waiting:
                self._next()
        finally:
            self._end = None

    def _ask(self) -> None:
        if self._call_soon is not None and not self._is_called:
            self._is_called = True
            self._call_soon(self._run)

    def _run(self) -> None:
        self._is_called = False
        if self._has_begun_slice:
            self._has_begun_slice = False
            self._ask()
            return
        self._end = self.clock() + limits.SLICE_S
        try:
            while self._waiting:
                self._next()
                if self.clock() >= self._end:
                    break
        finally:
            self._end = None
            if self._waiting:
                self._ask()

    def _next(self) -> None:
        waiter = next(iter(self._waiting))
        del self._waiting[waiter]
        if waiter.work():
            self._waiting[waiter] = None
