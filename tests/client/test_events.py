"""Feeds of events: bounded, one for each reader, ended with the client."""

from __future__ import annotations

import asyncio

import pytest

from quicbus import limits
from quicbus.client.events import Closed, Event, EventFeeds, GoingAway
from tests.client.scripted_broker import settle


def event(number: int) -> Event:
    return GoingAway(str(number), 1.0)


async def test_each_feed_gets_what_comes_after_it_was_opened() -> None:
    feeds = EventFeeds()
    first = feeds.open()
    feeds.put(event(1))
    second = feeds.open()
    feeds.put(event(2))
    feeds.close()
    assert [each async for each in first] == [event(1), event(2), Closed()]
    assert [each async for each in second] == [event(2), Closed()]
    assert [each async for each in feeds.open()] == []


async def test_a_feed_that_nobody_reads_drops_the_oldest_and_counts() -> None:
    feeds = EventFeeds()
    feed = feeds.open()
    for number in range(limits.EVENTS_BUFFER + 3):
        feeds.put(event(number))
    assert feed.missed == 3
    assert await anext(feed) == event(3)


async def test_a_cancelled_reader_takes_nothing_along() -> None:
    feeds = EventFeeds()
    async with feeds.open() as feed:
        first, second = asyncio.create_task(anext(feed, None)), asyncio.create_task(anext(feed, None))
        await settle()
        first.cancel()
        await asyncio.wait((first,))
        feeds.put(event(1))
        assert await second == event(1)
    with pytest.raises(StopAsyncIteration):
        await anext(feed)
