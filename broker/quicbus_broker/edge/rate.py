"""A limit on messages per second."""

from __future__ import annotations

__all__ = ["RateLimit"]


class RateLimit:
    """A token bucket of one second. A batch passes whole or not at all; what it takes too much is paid off first."""

    __slots__ = ("_at", "_tokens", "per_second")

    def __init__(self, per_second: int, now: float) -> None:
        self.per_second = per_second
        self._tokens = float(per_second)
        self._at = now

    def admit(self, messages: int, now: float) -> float:
        """Return 0.0 when the messages may pass, else after how many seconds to try again."""
        self._tokens = min(float(self.per_second), self._tokens + (now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.per_second
        self._tokens -= messages
        return 0.0
