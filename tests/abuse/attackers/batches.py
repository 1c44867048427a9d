"""Attacks by clients that were let in: what they publish, and the frames they write."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.batch import FLAG_HEADERS, encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Flush, Flushed, Ping, Pong, SubscriptionCredit, encode_frame
from quicbus.wire.records import encode_publish
from tests.abuse.attackers.attack import Attack
from tests.abuse.attackers.streams import answered
from tests.abuse.crafted import loopback
from tests.abuse.good_pair import GOOD_TOPIC
from tests.abuse.shapes import subscribe

if TYPE_CHECKING:
    from tests.abuse.world import World
    from tests.system.stranger import Stranger

__all__ = ["ATTACKS"]

WISHES = 200
"""Subscriptions in one write."""
LIES = (
    struct.pack("<HH", 0xFFFF, 0xFFFF),
    struct.pack("<HH", 0, 0),
    struct.pack("<HH", 3, 3),
    struct.pack("<HH", 0xFFFF, 6),
)


def lying(table: bytes, count: int = 2) -> bytes:
    """A batch of two messages whose table, or count, says something else."""
    body = bytearray(encode_body(b"lies", [b"abc", b"de"], number=1))
    at = body.index(b"\x03\x00\x02\x00abcde")
    body[at : at + 4] = table
    body[5:9] = count.to_bytes(4, "little")
    return encode_publish(bytes(body))


async def lying_tables(world: World) -> None:
    """Each lie closes its connection: come again and lie again."""
    credential = world.authority.issue_client("liar")
    batches = [lying(table) for table in LIES] + [lying(struct.pack("<HH", 3, 2), 0xFFFFFFFF)]
    async with world.strangers(*world.crowd_hosts(11)) as strangers:
        await world.go()
        async for number in world.paced(50, 15):
            stranger = await strangers.proven(credential)
            stranger.open_lane(batches[number % len(batches)])
            world.made["batches"] += 1
            await strangers.ended(stranger)


async def undecodable(world: World) -> None:
    """Publish what only the good subscriber can see to be nothing: headers that are none."""
    credential = world.authority.issue_client("mumbler")
    async with world.strangers(loopback(12)) as strangers:
        stranger = await strangers.proven(credential)
        topic = GOOD_TOPIC.encode()
        lane = stranger.open_lane()
        await world.go()
        async for number in world.paced(500, 100):
            junk = struct.pack("<H", 40) + world.random.randbytes(40) + b"payload"
            cut = struct.pack("<H", 0xFFFF) + b"short"
            stranger.connection.send(
                lane, encode_publish(encode_body(topic, [junk, cut, b""], number=number + 1, flags=FLAG_HEADERS))
            )
            world.made["messages"] += 3
        stranger.write(Flush(id=1, batches=number + 1))
        flushed = await stranger.wait_frame(Flushed)
        world.made["accepted"] += flushed.accepted
        stranger.connection.close(CloseCode.GOODBYE, "")


async def tiny_frames(world: World) -> None:
    """Write the smallest frames without end: Pings, credit of nobody, types that nobody knows."""
    credential = world.authority.issue_client("gnat")
    unknown = b"\x3e\x00"
    async with world.strangers(loopback(13)) as strangers:
        gnats = [await strangers.proven(credential) for _ in range(world.chosen(1, 4))]
        pairs = world.chosen(50, 125)
        await world.go()
        async for number in world.paced(100, 20):
            for stranger in gnats:
                kinds = (encode_frame(Ping(id=number)), encode_frame(SubscriptionCredit(id=9, messages=0, size=0)))
                stranger.write_control((kinds[number % 2] + unknown) * pairs)
                world.made["frames"] += 2 * pairs
            if world.is_small:
                await answered(strangers, gnats[0], 1_000 + number)
            else:
                for stranger in gnats:
                    stranger.frames.clear()
        for stranger in gnats:
            await answered(strangers, stranger, 1 << 40)
            world.made["pongs"] += sum(isinstance(frame, Pong) for frame in stranger.frames)
            world.count_end(stranger)
            stranger.connection.close(CloseCode.GOODBYE, "")


def _answered_or_over(stranger: Stranger) -> bool | None:
    return True if len(stranger.frames) >= WISHES or stranger.termination else None


async def unread_frames(world: World) -> None:
    """Have the broker write, and answer none of its Pings: it can't tell that what it writes is read."""
    credential = world.authority.issue_client("deaf")
    # Refused ones are answered with the longest frames.
    wishes = b"".join(encode_frame(subscribe(1 + at, "$quicbus/" + "x" * 200)) for at in range(WISHES))
    async with world.strangers(loopback(14)) as strangers:
        await world.go()
        deaf = await strangers.proven(credential)
        async for _ in world.paced(20, 1_000):
            if deaf.termination is not None:
                world.count_end(deaf)
                if world.is_small:
                    return
                deaf = await strangers.proven(credential)
            deaf.frames.clear()
            deaf.write_control(wishes)
            if world.is_small:
                # What waits for its slice has a bound of its own.
                await deaf.wait(partial(_answered_or_over, deaf))
        world.count_end(deaf)


async def tiny_batches(world: World) -> None:
    """Publish empty messages, each a batch of its own, on topics that nobody wants."""
    credential = world.authority.issue_client("midge")
    async with world.strangers(loopback(15)) as strangers:
        stranger = await strangers.proven(credential)
        lane = stranger.open_lane()
        await world.go()
        number = 0
        async for _ in world.paced(100, 10):
            records = []
            for _ in range(50):
                number += 1
                records.append(encode_publish(encode_body(b"midge/%d" % number, [b""], number=number)))
            stranger.connection.send(lane, b"".join(records))
            if stranger.termination is not None or number * 50 > limits.PUBLISH_WINDOW:
                break
            world.made["batches"] += 50
        if stranger.termination is None:
            stranger.write(Flush(id=1, batches=number))
            flushed = await stranger.wait_frame(Flushed)
            world.made["accepted"] += flushed.accepted
        stranger.connection.close(CloseCode.GOODBYE, "")


async def oversize(world: World) -> None:
    """Send messages over the limit, again and again, until the connection is closed; then come again."""
    credential = world.authority.issue_client("glutton")
    size = world.chosen(1_001, 1024 * 1024 + 1)
    async with world.strangers(loopback(16)) as strangers:
        await world.go()
        async for _ in world.paced(2, 3):
            stranger = await strangers.proven(credential)
            lane = stranger.open_lane()
            for number in range(1, 10):
                stranger.connection.send(lane, encode_publish(encode_body(b"t", [bytes(size)], number=number)))
                world.made["messages"] += 1
                await answered(strangers, stranger, number)
            await strangers.ended(stranger)


ATTACKS = (
    Attack(
        "lying length tables",
        "50 sessions/s, each with a batch whose table says something else than what follows",
        lying_tables,
        made={"batches": 15, "closed protocol_violation": 15},
        counted={"edge.violations": 15},
    ),
    Attack(
        "undecodable batches",
        "1,500 messages/s to the good subscriber that only it finds undecodable",
        undecodable,
        made={"messages": 300, "accepted": 300},
        counted={"good.dropped.undecodable": 300},
    ),
    Attack(
        "tiny frames",
        "100,000 frames/s of four sessions: Pings, credit of nobody, unknown types",
        tiny_frames,
        made={"frames": 2_000, "pongs": 521, "still open": 1},
    ),
    Attack(
        "answers that nobody reads",
        "4,000 refused subscriptions/s of sessions that answer no Ping",
        unread_frames,
        made={"closed stalled": 1},
        counted={"edge.refused.stalled": 1},
    ),
    Attack(
        "tiny batches",
        "5,000 batches/s of one empty message, each on a topic of its own",
        tiny_batches,
        made={"batches": 500, "accepted": 500},
        counted={"books.unmatched": 500},
    ),
    Attack(
        "oversize messages",
        "2 sessions/s that send nine messages over the limit each",
        oversize,
        made={"messages": 27, "closed limit_exceeded": 3},
        counted={"edge.refused.limit_exceeded": 3},
    ),
)
