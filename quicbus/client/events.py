"""What `bus.events()` tells."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from quicbus.feeds import Feed, Feeds

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Closed",
    "Connected",
    "CredentialExpiring",
    "CredentialRejected",
    "CredentialRenewed",
    "Disconnected",
    "Event",
    "EventFeed",
    "EventFeeds",
    "Gap",
    "GoingAway",
    "HandlerFailed",
    "MessagesDropped",
    "MessagesRefused",
    "Reconnecting",
    "Status",
    "SubscriptionFailed",
]


class Status(StrEnum):
    """What `bus.status` tells."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    REFUSED = "refused"
    """The credential was refused: nothing is tried any more."""
    CLOSED = "closed"


class Event(msgspec.Struct, frozen=True):
    """Base of all events."""


class Connected(Event, frozen=True):
    url: str
    node: str
    """The broker's node id."""
    reconnects: int
    """0: the first connection of this client."""


class Disconnected(Event, frozen=True):
    reason: str
    code: int | None
    """QUIC close code; `None` when the broker fell silent."""
    possibly_lost: int
    """Messages that were on their way and that the broker had not told of."""


class Reconnecting(Event, frozen=True):
    attempt: int
    delay_s: float
    cause: str


class Gap(Event, frozen=True):
    """A subscription goes on over a new connection: what was published in between did not reach it."""

    filter: str
    group: str | None
    duration_s: float
    """From the last sign of life of the old connection to the new one."""


class MessagesDropped(Event, frozen=True):
    """The subscriber is slow: the overflow policy drops. Once for each time that it falls behind."""

    filter: str
    group: str | None
    dropped: Mapping[str, int]
    """In all, by reason."""


class MessagesRefused(Event, frozen=True):
    """The broker refused messages that this client published; `flush` raises it."""

    topic: str
    messages: int
    reason: str
    detail: str
    retry_after_s: float | None = None
    """With the reason `rate`: when more may be published."""


class SubscriptionFailed(Event, frozen=True):
    filter: str
    group: str | None
    error: Exception


class HandlerFailed(Event, frozen=True):
    """A handler raised; it goes on with the next message. `topic` is empty when its subscription failed."""

    handler: str
    topic: str
    error: BaseException


class GoingAway(Event, frozen=True):
    """The broker stops within `deadline_s`; the client connects again by itself."""

    reason: str
    deadline_s: float


class CredentialRejected(Event, frozen=True):
    error: Exception


class CredentialRenewed(Event, frozen=True):
    """The credential was renewed, and the session goes on."""

    expires_in_s: float
    path: str | None
    """The file that was rewritten; `None` where none was, and the next start has the old one."""
    why: str
    """Why none could be rewritten; empty where none had to be."""


class CredentialExpiring(Event, frozen=True):
    """The credential ends soon and could not be renewed so far. Told 30, 7 and 1 days before, where its life allows."""

    expires_in_s: float
    why: str
    """What the last attempt met; empty before the first."""


class Closed(Event, frozen=True):
    """The client was closed; the last event."""


EventFeed = Feed[Event]
"""What `bus.events()` returns: it ends when the client is closed."""


class EventFeeds(Feeds[Event]):
    """All feeds of one client."""

    def close(self, last: Event | None = None) -> None:
        super().close(last or Closed())
