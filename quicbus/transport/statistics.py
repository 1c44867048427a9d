"""What an endpoint counts: one mutable set of counters inside, one frozen record outside."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIMITS", "Counters", "EndpointStatistics", "total_of"]

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


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """Counters of an endpoint since it was opened. Sizes in bytes."""

    connections: int
    """Open now, half-open ones included."""
    half_open: int
    """Accepted, but they have not proved who they are: their handshake or their proof is not complete."""
    accepted: int
    dialed: int
    closed: Mapping[str, int]
    """By cause: `local`, `peer`, or why the endpoint itself closed them (`undelivered`, `handshake_timeout` ...)."""
    datagrams_received: int
    datagrams_sent: int
    bytes_received: int
    bytes_sent: int
    dropped: Mapping[str, int]
    """Datagrams that came and were dropped, by reason: `garbage`, `unknown_connection`, `token_invalid` ..."""
    send_errors: Mapping[str, int]
    """Datagrams that could not be sent, by the name of the error (`EMSGSIZE` ...) or `queue_full`."""
    limits: Mapping[str, int]
    """How many times each limit on strangers was met, by the name of its setting; `retry_auto`: floods."""
    retries_sent: int
    version_negotiations_sent: int
    address_changes: int
    key_updates: int
    handler_errors: int


def total_of(one: EndpointStatistics, other: EndpointStatistics) -> EndpointStatistics:
    """Return the counters of two endpoints added up."""
    return EndpointStatistics(
        **{each.name: _sum(getattr(one, each.name), getattr(other, each.name)) for each in fields(EndpointStatistics)}
    )


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, int):
        return one + other
    return MappingProxyType({key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}})


@dataclass(slots=True)
class Counters:
    """The counters themselves; `EndpointStatistics` says what they mean."""

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
