"""What an endpoint has counted since it was opened."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EndpointStatistics", "total_of"]


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
