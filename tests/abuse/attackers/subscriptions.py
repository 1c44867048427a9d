"""Attacks on the table of subscriptions: as many as there may be, as slow to match as they can be made."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping, Subscribed, SubscriptionClosed, Unsubscribe
from quicbus.wire.records import encode_publish
from tests.abuse.attackers.attack import Attack
from tests.abuse.attackers.streams import answered
from tests.abuse.crafted import loopback
from tests.abuse.shapes import subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.abuse.world import World
    from tests.system.stranger import Stranger

__all__ = ["ATTACKS"]


def count_answers(world: World, stranger: Stranger) -> None:
    for frame in stranger.frames:
        if isinstance(frame, Subscribed):
            world.made["subscribed"] += 1
        elif isinstance(frame, SubscriptionClosed):
            world.made[f"closed {frame.limit or frame.reason}"] += 1
    stranger.frames.clear()


async def bomb(world: World) -> None:
    """Subscribe to twice as much as is allowed, with wildcards, and end and renew one of them over and over."""
    credential = world.authority.issue_client("bomber")
    clients = world.chosen(1, 5)
    async with world.strangers(loopback(20)) as strangers:
        bombers = [await strangers.proven(credential) for _ in range(clients)]
        await world.go()
        each = world.chosen(120, 20_000)
        pace = world.paced(each / world.orders.seconds / 50 * 1.2 if not world.is_small else 1, 100_000)
        sent = 0
        async for _ in pace:
            if sent >= each:
                break
            for at, stranger in enumerate(bombers):
                stranger.write(*[subscribe(1 + sent + n, f"bomb/{at}/+/{sent + n}/#") for n in range(40)])
            sent += 40
            await answered(strangers, bombers[0], sent)
        for stranger in bombers:
            await answered(strangers, stranger, 1 << 40)
            count_answers(world, stranger)
            world.count_end(stranger)
            stranger.connection.close(CloseCode.GOODBYE, "")


async def churn(world: World) -> None:
    """Subscribe with a wildcard and unsubscribe at once: whatever was remembered of topics is forgotten each time."""
    credential = world.authority.issue_client("fickle")
    async with world.strangers(loopback(21)) as strangers:
        stranger = await strangers.proven(credential)
        await world.go()
        async for number in world.paced(1_000, 150):
            stranger.write(subscribe(number + 1, "fickle/+/#"), Unsubscribe(id=number + 1))
            world.made["subscriptions"] += 1
        await answered(strangers, stranger, 1 << 40)
        count_answers(world, stranger)
        stranger.connection.close(CloseCode.GOODBYE, "")


def slow_filters(depth: int) -> Iterator[str]:
    """All filters of `depth` levels that are each `a` or `+`, but the last: a topic of a's goes down every way."""
    for levels in itertools.product("a+", repeat=depth):
        yield "/".join(levels) + "/z"


async def slow_match(world: World) -> None:
    """Fill the table with filters that share every way of a topic, and publish topics that are new each time."""
    credential = world.authority.issue_client("maze")
    depth = world.chosen(6, 13)
    topic = "/".join("a" * depth)
    async with world.strangers(loopback(22)) as strangers:
        stranger = await strangers.proven(credential)
        filters = list(slow_filters(depth))
        for start in range(0, len(filters), 200):
            part = filters[start : start + 200]
            stranger.write(*[subscribe(1 + start + at, each) for at, each in enumerate(part)])
            await answered(strangers, stranger, start + 1)
        count_answers(world, stranger)
        lane = stranger.open_lane()
        await world.go()
        number = 0
        async for _ in world.paced(100, 50):
            number += 1
            body = encode_body(f"{topic}/{number}".encode(), [b"x"], number=number)
            stranger.connection.send(lane, encode_publish(body))
            world.made["topics"] += 1
            if number % 20 == 0:
                await answered(strangers, stranger, 1_000_000 + number)
        await answered(strangers, stranger, 1 << 40)
        world.count_end(stranger)
        stranger.connection.close(CloseCode.GOODBYE, "")


async def long_filters(world: World) -> None:
    """Filters of 60,000 bytes and 30,000 levels that all match, and topics that match them to their end."""
    credential = world.authority.issue_client("serpent")
    async with world.strangers(loopback(23)) as strangers:
        snakes = [await strangers.proven(credential) for _ in range(world.chosen(1, 5))]
        for stranger in snakes:
            for at in range(40):
                stranger.write(subscribe(1 + at, "+/" * 29_990 + f"{at:02}"))
            await answered(strangers, stranger, 1)
            count_answers(world, stranger)
        await world.go()
        lanes = {stranger: stranger.open_lane() for stranger in snakes}
        numbers = dict.fromkeys(snakes, 0)
        async for turn in world.paced(20, 10):
            stranger = snakes[turn % len(snakes)]
            numbers[stranger] += 1
            body = encode_body(b"a/" * 29_990 + b"%d" % turn, [b""], number=numbers[stranger])
            stranger.connection.send(lanes[stranger], encode_publish(body))
            world.made["topics"] += 1
            await answered(strangers, stranger, 1_000 + turn)
        for stranger in snakes:
            stranger.connection.close(CloseCode.GOODBYE, "")


async def slow_reader(world: World) -> None:
    """Subscribe to what the attacker publishes itself, much of it, and consume nothing."""
    credential = world.authority.issue_client("miser")
    async with world.strangers(loopback(24)) as strangers:
        misers = [await strangers.proven(credential) for _ in range(world.chosen(2, 20))]
        for stranger in misers:
            stranger.write(subscribe(1, "hoard/#"))
            await answered(strangers, stranger, 1)
        publisher = await strangers.proven(credential)
        lane = publisher.open_lane()
        await world.go()
        sent = number = 0
        payload = bytes(1_000)
        async for _ in world.paced(200, 40):
            if sent > 4_000_000:
                await asyncio.sleep(0.05)
                continue
            number += 1
            record = encode_publish(encode_body(b"hoard/x", [payload] * 20, number=number))
            sent += len(record)
            publisher.connection.send(lane, record)
            world.made["messages"] += 20
        publisher.write(Ping(id=1))
        await answered(strangers, publisher, 2)
        for stranger in (*misers, publisher):
            world.count_end(stranger)
            stranger.connection.close(CloseCode.GOODBYE, "")


ATTACKS = (
    Attack(
        "subscription bombs",
        "five sessions that ask for 20,000 subscriptions with wildcards each",
        bomb,
        made={"subscribed": 100, "closed max_subscriptions": 20, "still open": 1},
        counted={},
    ),
    Attack(
        "subscription churn",
        "1,000 subscriptions/s with wildcards that end at once",
        churn,
        made={"subscriptions": 150, "subscribed": 150, "closed unsubscribed": 150},
    ),
    Attack(
        "filters slow to match",
        "8,192 filters that share every way of a topic, 100 new topics/s that take all of them",
        slow_match,
        made={"subscribed": 64, "topics": 50, "still open": 1},
        counted={"books.unmatched": 50},
    ),
    Attack(
        "filters of 30,000 levels",
        "five sessions with 17 filters of 60 KB each, 20 topics/s that match them to their last level",
        long_filters,
        made={"subscribed": 17, "closed max_filters_size": 23, "topics": 10},
        counted={"books.unmatched": 10},
    ),
    Attack(
        "subscribers that consume nothing",
        "20 subscriptions to 4 MB of messages that nobody takes",
        slow_reader,
        made={"messages": 800, "still open": 3},
    ),
)
