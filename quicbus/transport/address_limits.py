"""What one address takes of a listener: connections, handshakes under way, handshakes a second. Pure.

An address is an IPv4 address or an IPv6 network of 64 bits, the least that one host is given (RFC 6177).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

__all__ = ["AddressLimits", "AddressUse", "address_key"]

REMEMBERED = 16_384
"""Addresses without a connection whose handshakes are remembered, about 200 bytes each: those of the last second."""


@lru_cache(maxsize=4096)
def address_key(host: str) -> str:
    """Return what is counted as one address; what is no IP address (networks in memory) stands for itself."""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False).network_address) + "/64"
    except ValueError:
        return host


class AddressUse:
    """What one address has now."""

    __slots__ = ("_at", "_tokens", "connections", "unproven")

    def __init__(self, burst: float, now: float) -> None:
        self.connections = 0
        self.unproven = 0
        self._tokens = burst
        self._at = now

    def refill(self, rate: float, now: float) -> float:
        """Return how many handshakes it may begin now; a second's worth gathers."""
        self._tokens = min(rate, self._tokens + (now - self._at) * rate)
        self._at = now
        return self._tokens

    def take(self) -> None:
        self._tokens -= 1

    def is_idle(self, rate: float, now: float) -> bool:
        return not self.connections and self.refill(rate, now) >= rate


class AddressLimits:
    """The addresses of one listener. `max_rate`: handshakes a second of each."""

    def __init__(self, max_rate: int) -> None:
        self._rate = float(max_rate)
        self._uses: dict[str, AddressUse] = {}

    def __len__(self) -> int:
        return len(self._uses)

    def use(self, host: str) -> AddressUse | None:
        """Return what `host` and its neighbours have, or `None` where that is nothing."""
        return self._uses.get(address_key(host))

    def may_begin(self, host: str, now: float) -> bool:
        """Whether `host` may begin a handshake."""
        use = self._uses.get(address_key(host))
        return use is None or use.refill(self._rate, now) >= 1

    def is_half_used(self, host: str, now: float) -> bool:
        """Whether `host` has used up half of what it may begin in a second: from then on it has to prove that it is
        `host`, so that who forges addresses cannot use up those of others."""
        use = self._uses.get(address_key(host))
        return use is not None and 2 * use.refill(self._rate, now) < self._rate

    def accepted(self, host: str, now: float) -> AddressUse:
        """Count a connection of `host`, in its handshake."""
        key = address_key(host)
        use = self._uses.get(key)
        if use is None:
            if len(self._uses) >= REMEMBERED:
                self._sweep(now)
            use = self._uses[key] = AddressUse(self._rate, now)
        use.connections += 1
        use.unproven += 1
        use.refill(self._rate, now)
        use.take()
        return use

    def gone(self, host: str, use: AddressUse, now: float) -> None:
        """A connection of `host` is forgotten."""
        use.connections -= 1
        if use.is_idle(self._rate, now):
            self._uses.pop(address_key(host), None)

    def _sweep(self, now: float) -> None:
        """Forget who has no connection: first those who may begin as many handshakes as ever, then all."""
        self._uses = {key: use for key, use in self._uses.items() if not use.is_idle(self._rate, now)}
        if len(self._uses) >= REMEMBERED:
            self._uses = {key: use for key, use in self._uses.items() if use.connections}
