"""When `retry = "auto"` demands that strangers prove their address: under a flood, and for a while after it. Pure."""

from __future__ import annotations

import math

__all__ = ["RETRY_QUIET_S", "RetrySwitch"]

RETRY_QUIET_S = 5.0
"""Both measures stay under half of their bounds for so long before Retry is off again: a flood that pauses for a moment
must not get in between, and a client pays one round trip meanwhile."""
_WINDOW_S = 1.0


class RetrySwitch:
    """Turns on at `max_half_open` handshakes that are not proven or `max_rate` Initials without a token in a second.

    `episodes` counts how often it did. Ask `update` now and then: it turns off by itself only when asked.
    """

    __slots__ = ("_count", "_max_half_open", "_max_rate", "_pressed_at", "_previous", "_window_at", "episodes", "is_on")

    def __init__(self, max_half_open: int, max_rate: int) -> None:
        self.is_on = False
        self.episodes = 0
        self._max_half_open = max_half_open
        self._max_rate = max_rate
        self._window_at = -math.inf
        self._count = 0
        self._previous = 0
        self._pressed_at = -math.inf

    def saw_initial(self, now: float) -> None:
        """An Initial without a token came from a stranger, whatever becomes of it."""
        self._move_window(now)
        self._count += 1

    def update(self, half_open: int, now: float) -> bool:
        """Look at both measures; returns whether `is_on` has changed."""
        rate = self.rate(now)
        if 2 * half_open >= self._max_half_open or 2 * rate >= self._max_rate:
            self._pressed_at = now
        was_on = self.is_on
        if not was_on:
            self.is_on = half_open >= self._max_half_open or rate >= self._max_rate
            self.episodes += self.is_on
        else:
            self.is_on = now < self._pressed_at + RETRY_QUIET_S
        return self.is_on is not was_on

    def rate(self, now: float) -> float:
        """Return the Initials of the last second, those of the window before in proportion."""
        self._move_window(now)
        return self._count + self._previous * (1 - (now - self._window_at) / _WINDOW_S)

    def _move_window(self, now: float) -> None:
        passed = now - self._window_at
        if passed >= _WINDOW_S:
            self._previous = self._count if passed < 2 * _WINDOW_S else 0
            self._count = 0
            self._window_at = now if passed >= 2 * _WINDOW_S else self._window_at + _WINDOW_S
