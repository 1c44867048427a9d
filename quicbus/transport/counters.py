"""The counters of an endpoint while it is open; `EndpointStatistics` says what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

from quicbus.transport.statistics import EndpointStatistics

__all__ = ["LIMITS", "Counters", "total_size"]

LIMITS = (
    "handshake_share",
    "handshake_timeout_s",
    "max_connections",
    "max_connections_per_address",
    "max_half_open",
    "max_handshakes_per_address",
    "max_unproven_size",
    "max_unproven_total_size",
    "retry_auto",
)
"""Names of the settings that bound strangers: what is never met is shown as 0."""


def total_size(datagrams: list[bytes]) -> int:
    """Return how many bytes they have."""
    size = 0
    for datagram in datagrams:  # Compiled, this calls nothing; `sum` and `map` are looked up and called for each send.
        size += len(datagram)
    return size


@final
@dataclass(slots=True)
class Counters:
    """All that an endpoint counts."""

    accepted: int = 0
    dialed: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    datagrams_received: int = 0
    datagrams_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    send_errors: dict[str, int] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    retries_sent: int = 0
    version_negotiations_sent: int = 0
    address_changes: int = 0
    key_updates: int = 0
    handler_errors: int = 0

    def sent(self, datagrams: list[bytes]) -> None:
        self.datagrams_sent += len(datagrams)
        self.bytes_sent += total_size(datagrams)

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def hit(self, limit: str) -> None:
        self.limits[limit] = self.limits.get(limit, 0) + 1

    def fail_send(self, reason: str, count: int = 1) -> None:
        self.send_errors[reason] = self.send_errors.get(reason, 0) + count

    def close(self, cause: str) -> None:
        self.closed[cause] = self.closed.get(cause, 0) + 1

    def snapshot(self, connections: int, half_open: int) -> EndpointStatistics:
        return EndpointStatistics(
            connections=connections,
            half_open=half_open,
            accepted=self.accepted,
            dialed=self.dialed,
            closed=MappingProxyType(dict(self.closed)),
            datagrams_received=self.datagrams_received,
            datagrams_sent=self.datagrams_sent,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            dropped=MappingProxyType(dict(self.dropped)),
            send_errors=MappingProxyType(dict(self.send_errors)),
            limits=MappingProxyType(dict(self.limits)),
            retries_sent=self.retries_sent,
            version_negotiations_sent=self.version_negotiations_sent,
            address_changes=self.address_changes,
            key_updates=self.key_updates,
            handler_errors=self.handler_errors,
        )
