"""How fast a client publishes: the rates that its broker announced, kept here so that nothing is refused there. Pure.

Two token buckets of one second, as the broker has (`quicbus_broker.edge.rate`). The broker forgives two seconds' worth
more, so that batches may arrive in bursts; whoever keeps to this never meets that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.wire.frames import Limits

__all__ = ["Pace", "pace_of"]

WAKE_S: Final = 0.01
"""Who waits is let on in steps of this, so that what a step brings goes out together."""


class _Bucket:
    """`rate` units a second, of which one second's worth gathers; 0 is no limit."""

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._left = float(rate)
        self._at = now

    def left(self, now: float) -> int:
        """Return what may pass now; negative while something that was too large is paid off."""
        if not self.rate:
            return sys.maxsize
        self._left = min(float(self.rate), self._left + (now - self._at) * self.rate)
        self._at = now
        return int(self._left // 1)

    def is_full(self, now: float) -> bool:
        return not self.rate or self.left(now) >= self.rate

    def take(self, units: int) -> None:
        self._left -= units

    def wait(self, units: int, now: float) -> float:
        """Return in how many seconds `units` may pass, or the largest part of them."""
        if not self.rate:
            return 0.0
        return max(0.0, (min(units, self.rate) - self.left(now)) / self.rate)


class Pace:
    """Of one session. Sizes are those of records."""

    def __init__(self, messages_per_s: int, bytes_per_s: int, clock: Callable[[], float]) -> None:
        now = clock()
        self._clock = clock
        self._messages = _Bucket(messages_per_s, now)
        self._bytes = _Bucket(bytes_per_s, now)

    def messages_left(self) -> int:
        return self._messages.left(self._clock())

    def size_left(self) -> int:
        return self._bytes.left(self._clock())

    def fitting(self, sizes: Sequence[int], overhead: int) -> int:
        """Return how many messages of `sizes` may be sent now, in a record with `overhead` bytes beside them.

        A message over a second's worth goes alone, once a second's worth has gathered.
        """
        now = self._clock()
        count = min(len(sizes), max(0, self._messages.left(now)))
        left = self._bytes.left(now) - overhead
        if sum(sizes[:count]) > left:
            fits = 0
            for size in sizes[:count]:
                left -= size
                if left < 0:
                    break
                fits += 1
            count = fits
        if not count and self._messages.left(now) >= 1 and self._bytes.is_full(now):
            return 1
        return count

    def sent(self, messages: int, size: int) -> None:
        self._messages.take(messages)
        self._bytes.take(size)

    def wait(self, size: int = 1) -> float:
        """Return in how many seconds to look again whether a message of `size` may be sent."""
        now = self._clock()
        return max(WAKE_S, self._messages.wait(1, now), self._bytes.wait(size, now))


def pace_of(limits: Limits, clock: Callable[[], float]) -> Pace | None:
    """Return the pace of a session with a broker of these limits; `None` where it limits neither rate."""
    if not limits.max_publish_rate and not limits.max_publish_bytes:
        return None
    return Pace(limits.max_publish_rate, limits.max_publish_bytes, clock)
