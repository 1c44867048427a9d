"""What `bus.events()` tells, and the bounded feeds that carry it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from quicbus import limits

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Closed",
    "Connected",
    "CredentialRejected",
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


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Connected(Event):
    url: str
    node: str
    """The broker's node id."""
    reconnects: int
    """0: the first connection of this client."""


@dataclass(frozen=True, slots=True)
class Disconnected(Event):
    reason: str
    code: int | None
    """QUIC close code; `None` when the broker fell silent."""
    possibly_lost: int
    """Messages that were on their way and that the broker had not told of."""


@dataclass(frozen=True, slots=True)
class Reconnecting(Event):
    attempt: int
    delay_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Gap(Event):
    """A subscription goes on over a new connection: what was published in between did not reach it."""

    filter: str
    group: str | None
    duration_s: float
    """From the last sign of life of the old connection to the new one."""


@dataclass(frozen=True, slots=True)
class MessagesDropped(Event):
    """The subscriber is slow: the overflow policy drops. Once for each time that it falls behind."""

    filter: str
    group: str | None
    dropped: Mapping[str, int]
    """In all, by reason."""


@dataclass(frozen=True, slots=True)
class MessagesRefused(Event):
    """The broker refused messages that this client published; `flush` raises it."""

    topic: str
    messages: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class SubscriptionFailed(Event):
    filter: str
    group: str | None
    error: Exception


@dataclass(frozen=True, slots=True)
class HandlerFailed(Event):
    """A handler raised; it goes on with the next message. `topic` is empty when its subscription failed."""

    handler: str
    topic: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class GoingAway(Event):
    """The broker stops within `deadline_s`; the client connects again by itself."""

    reason: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class CredentialRejected(Event):
    error: Exception


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The client was closed; the last event."""


class EventFeed:
    """Events from now on, as an async iterator; it ends when the client is closed."""

    def __init__(self, feeds: EventFeeds) -> None:
        self.missed = 0
        """Events that went because nobody read them in time; the oldest go first."""
        self._feeds = feeds
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, event: Event) -> None:
        if len(self._events) >= limits.EVENTS_BUFFER:
            self._events.popleft()
            self.missed += 1
        self._events.append(event)
        self._wake()

    def take(self) -> Event | None:
        """Return the oldest unread event, or `None`; never waits."""
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """End the iteration after what is buffered."""
        self._is_closed = True
        self._feeds.discard(self)
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)  # several tasks may wait; the cancelled one takes nobody along
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EventFeeds:
    """All feeds of one client."""

    def __init__(self) -> None:
        self._feeds: dict[EventFeed, None] = {}
        self._is_closed = False

    def open(self) -> EventFeed:
        feed = EventFeed(self)
        if self._is_closed:
            feed.close()
        else:
            self._feeds[feed] = None
        return feed

    def put(self, event: Event) -> None:
        for feed in list(self._feeds):
            feed.put(event)

    def discard(self, feed: EventFeed) -> None:
        self._feeds.pop(feed, None)

    def close(self) -> None:
        self._is_closed = True
        for feed in list(self._feeds):
            feed.put(Closed())
            feed.close()
