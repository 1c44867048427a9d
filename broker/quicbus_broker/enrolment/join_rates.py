"""How many requests with join tokens a node passes to the authority: token buckets, for all and for one address. Pure.

Anybody may send one, and only the authority can tell whether the token is genuine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.transport.address_limits import address_key

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JoinRates"]


class _Bucket:
    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = self._most
        self._at = now

    @property
    def _most(self) -> float:
        return max(1.0, self._rate * limits.JOIN_BURST_S)

    def wait_s(self, now: float) -> float:
        """Return after how long the next request may pass."""
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1.0 - self._left) / self._rate)

    def take(self) -> None:
        self._left -= 1.0


class JoinRates:
    """`per_s`: requests a second of all; one address (IPv6: a network of 64 bits) has `limits.JOIN_ADDRESS_SHARE`."""

    def __init__(self, per_s: int, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._clock = clock
        self._all = _Bucket(per_s, clock())
        self._addresses: dict[str, _Bucket] = {}

    def wait_s(self, host: str) -> float:
        """Let a request of `host` pass and return 0, or return after how many seconds it may come again."""
        now, key = self._clock(), address_key(host)
        # An address that is forgotten begins anew, and all of them together are held by the other bucket.
        own = self._addresses.pop(key, None) or _Bucket(self._per_s * limits.JOIN_ADDRESS_SHARE, now)
        self._addresses[key] = own
        if len(self._addresses) > limits.JOIN_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        wait_s = max(own.wait_s(now), self._all.wait_s(now))
        if not wait_s:
            own.take()
            self._all.take()
        return wait_s
