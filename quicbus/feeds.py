"""Bounded feeds of events: async iterators that never hold up who reports, and count what they had to let go."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Self, TypeVar

from quicbus import limits

__all__ = ["Feed", "Feeds"]

E = TypeVar("E")


class Feed(Generic[E]):
    """Events from now on, as an async iterator; it ends when what it tells of is closed."""

    def __init__(self, feeds: Feeds[E]) -> None:
        self.missed = 0
        """Events that went because nobody read them in time; the oldest go first."""
        self._feeds = feeds
        self._events: deque[E] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, event: E) -> None:
        if len(self._events) >= limits.EVENTS_BUFFER:
            self._events.popleft()
            self.missed += 1
        self._events.append(event)
        self._wake()

    def take(self) -> E | None:
        """Return the oldest unread event, or `None`; never waits."""
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """End the iteration after what is buffered."""
        self._is_closed = True
        self._feeds.discard(self)
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
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


class Feeds(Generic[E]):
    """All feeds of one client, or of one broker."""

    def __init__(self) -> None:
        self._feeds: dict[Feed[E], None] = {}
        self._is_closed = False

    def open(self) -> Feed[E]:
        feed = Feed(self)
        if self._is_closed:
            feed.close()
        else:
            self._feeds[feed] = None
        return feed

    def put(self, event: E) -> None:
        for feed in list(self._feeds):
            feed.put(event)

    def discard(self, feed: Feed[E]) -> None:
        self._feeds.pop(feed, None)

    def close(self, last: E | None = None) -> None:
        """End all feeds after what they hold, and after `last`; those that are opened later are empty."""
        self._is_closed = True
        for feed in list(self._feeds):
            if last is not None:
                feed.put(last)
            feed.close()
