"""What `bus.statistics()` and `subscription.statistics()` return: the books, frozen at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quicbus.client.events import Status
    from quicbus.transport.connection import ConnectionStatistics

__all__ = ["ClientStatistics", "SubscriptionStatistics"]


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """Messages of one subscription, over all its connections.

    For one connection: handed over by the broker = `received` + Σ `dropped_here` + in flight.
    """

    filter: str
    group: str | None
    received: int
    """Read by the application, or `pending`."""
    pending: int
    dropped: Mapping[str, int]
    """By reason: by the broker and here."""
    dropped_by_broker: Mapping[str, int]
    dropped_here: Mapping[str, int]
    gaps: int
    """How many times the connection was lost and made again."""


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Messages since the client began.

    `published = accepted + Σ refused[reason] + dropped_while_disconnected + possibly_lost + in_flight + buffered`
    """

    status: Status
    published: int
    accepted: int
    refused: Mapping[str, int]
    dropped_while_disconnected: int
    possibly_lost: int
    in_flight: int
    buffered: int
    reconnects: int
    subscriptions: tuple[SubscriptionStatistics, ...]
    """Of the subscriptions that are open now."""
    connection: ConnectionStatistics | None
    """Of the transport; `None` while disconnected."""
    cert_expires_in_seconds: float | None = None
    """Of the credential, negative once it has ended; `None` for a client inside the broker's process."""
