"""A share of the event loop's time for one kind of work: a token bucket of seconds. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["WorkBudget"]

BURST_S: Final = 0.1
"""Work that may be done at once after a quiet time: a tenth of a second is what a person does not notice."""


class WorkBudget:
    """`share` of the time that passes may be spent. What one piece of work takes too much is paid off first.

    Work is measured by the caller, after it was done: nobody knows before how long a handshake takes.
    """

    __slots__ = ("_at", "_left", "share")

    def __init__(self, share: float, now: float) -> None:
        self.share = share
        self._left = BURST_S
        self._at = now

    def allows(self, now: float) -> bool:
        """Whether one more piece of work may begin."""
        self._left = min(BURST_S, self._left + (now - self._at) * self.share)
        self._at = now
        return self._left > 0

    def spent(self, seconds: float) -> None:
        self._left -= seconds
