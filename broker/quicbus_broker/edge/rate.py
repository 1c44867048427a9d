"""How fast one client may publish: what is over a rate is first delayed, then refused. Pure.

A token bucket of one second for each rate. What comes too fast is taken and owed: until that is paid off the client
gets no further credit, so that it waits. Who goes on regardless and owes more than `limits.MAX_PUBLISH_DELAY_S` is
refused, with when to try again. A client that keeps to the announced rates owes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from quicbus import limits

if TYPE_CHECKING:
    from quicbus_broker.edge.edge_limits import EdgeLimits

__all__ = ["Excess", "PublishRates"]


class Excess(NamedTuple):
    """Why a batch was refused: `current` of what came within a second, where `allowed` may."""

    limit: str
    current: int
    allowed: int
    retry_after_s: float


class _Bucket:
    __slots__ = ("_at", "_left", "limit", "rate")

    def __init__(self, limit: str, rate: int, now: float) -> None:
        self.limit = limit
        self.rate = rate
        self._left = float(rate)
        self._at = now

    def excess(self, units: int, now: float, *, is_single: bool) -> Excess | None:
        """Return why `units` may not pass now. A single message passes, however large, when nothing is owed."""
        rate = self.rate
        self._left = min(float(rate), self._left + (now - self._at) * rate)
        self._at = now
        left = self._left - units
        if left >= -rate * limits.MAX_PUBLISH_DELAY_S or (is_single and self._left > 0):
            return None
        retry_after_s = max((min(units, rate) - self._left) / rate, 0.0)
        return Excess(self.limit, round(rate - left), rate, retry_after_s)

    def take(self, units: int) -> None:
        self._left -= units

    def delay(self, now: float) -> float:
        owed_s = -self._left / self.rate - (now - self._at)
        return owed_s if owed_s > limits.PUBLISH_SLACK_S else 0.0


class PublishRates:
    """The rates of one client. Sizes are those of records, as credit counts them."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, messages_per_s: int, bytes_per_s: int, now: float) -> None:
        self._messages = _Bucket("max_publish_rate", messages_per_s, now) if messages_per_s else None
        self._bytes = _Bucket("max_publish_bytes", bytes_per_s, now) if bytes_per_s else None

    @classmethod
    def of(cls, edge_limits: EdgeLimits, now: float) -> PublishRates | None:
        """Return the rates of a client that begins now; `None` where there is none."""
        rates = edge_limits.max_publish_rate, edge_limits.max_publish_bytes
        return cls(*rates, now) if any(rates) else None

    def admit(self, messages: int, size: int, now: float) -> Excess | None:
        """Take a batch, whole or not at all; returns why not."""
        is_single = messages == 1
        by_messages, by_bytes = self._messages, self._bytes
        excess = by_messages.excess(messages, now, is_single=False) if by_messages is not None else None
        if excess is None and by_bytes is not None:
            excess = by_bytes.excess(size, now, is_single=is_single)
        if excess is None:
            if by_messages is not None:
                by_messages.take(messages)
            if by_bytes is not None:
                by_bytes.take(size)
        return excess

    def delay(self, now: float) -> tuple[float, str]:
        """Return for how many seconds the client is to get no credit, and for which limit; 0: it owes nothing."""
        owed = [(bucket.delay(now), bucket.limit) for bucket in (self._messages, self._bytes) if bucket is not None]
        return max(owed)
