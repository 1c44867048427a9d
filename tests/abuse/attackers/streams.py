"""Attacks below and inside the streams: bytes that never come out of them, and those that come one at a time."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, cast

from aioquic.quic.rangeset import RangeSet

from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping, Pong, encode_frame
from tests.abuse.attackers.attack import Attack
from tests.abuse.crafted import loopback
from tests.system.stranger import hello

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.abuse.world import Strangers, World
    from tests.system.stranger import Stranger

__all__ = ["ATTACKS"]

MIB = 1024 * 1024


def send_without_first_byte(stranger: Stranger, size: int) -> None:
    """Have an aioquic connection send bytes 1 to `size` of a new stream: nothing of it comes out at the other end."""
    stream_id = stranger.connection.open_stream()
    stranger.connection.send(stream_id, bytes(size))
    library = cast("Any", stranger.connection)._quic._quic
    library._streams[stream_id].sender._pending = RangeSet([range(1, size)])


async def without_first_byte(world: World) -> None:
    """Before the proof, where 64 KiB are allowed, and after it, where a client's credit and 1 MiB are."""
    credential = world.authority.issue_client("headless")
    async with world.strangers(*world.crowd_hosts(6), engine="aioquic") as strangers:
        await world.go()
        unproven: list[Stranger] = []
        proven: list[Stranger] = []
        async for number in world.paced(10, 8):
            stranger = await strangers.connected()
            world.made["connections"] += 1
            if number % 4 == 3:
                await stranger.prove(credential)
                proven.append(stranger)
                for _ in range(8):
                    send_without_first_byte(stranger, MIB)
            else:
                unproven.append(stranger)
                for _ in range(2):
                    send_without_first_byte(stranger, 48 * 1024)
        await strangers.ended(*unproven)
        # An aioquic broker lets a stream have 64 KiB, a qh3 one more than the bound.
        for stranger in proven:
            stranger.connection.close(CloseCode.GOODBYE, "")


async def slow_loris(world: World) -> None:
    """Write a Hello one byte at a time, and one byte a second of a frame after the proof."""
    credential = world.authority.issue_client("loris")
    async with world.strangers(*world.crowd_hosts(7)) as strangers:
        await world.go()
        trickles: list[tuple[Stranger, Iterator[bytes]]] = []

        async def begin(number: int) -> None:
            stranger = await strangers.connected()
            world.made["connections"] += 1
            if number % 4 == 3:
                await stranger.prove(credential)
                world.made["sessions"] += 1
                trickles.append((stranger, single_bytes(encode_frame(Ping(id=number)))))
            else:
                trickles.append((stranger, single_bytes(encode_frame(hello(credential, stranger.binding)))))

        writing = asyncio.create_task(trickle(trickles, 0.05 if world.is_small else 0.5))
        async for number in world.paced(50, 12):
            await begin(number)
        await strangers.ended(*[stranger for stranger, _ in trickles if not has_proved(stranger)])
        proved = [stranger for stranger, _ in trickles if has_proved(stranger)]
        for stranger in proved:
            await stranger.wait_frame(Pong)
        writing.cancel()
        for stranger in proved:
            assert stranger.termination is None
            world.made["sessions still open"] += 1
            stranger.connection.close(CloseCode.GOODBYE, "")


def has_proved(stranger: Stranger) -> bool:
    return len(stranger.frames) > 1  # Welcome, Accepted


async def trickle(trickles: list[tuple[Stranger, Iterator[bytes]]], pause_s: float) -> None:
    while True:
        for stranger, text in trickles:
            if stranger.termination is None:
                stranger.write_control(next(text))
        await asyncio.sleep(pause_s)


def single_bytes(text: bytes) -> Iterator[bytes]:
    """The bytes of a text one by one, over and over."""
    return itertools.cycle(text[at : at + 1] for at in range(len(text)))


async def never_ending(world: World) -> None:
    """A record of 4 GiB, and a frame of an unknown type that is longer than any stream."""
    credential = world.authority.issue_client("endless")
    async with world.strangers(loopback(8)) as strangers:
        both = [await strangers.proven(credential) for _ in range(2)]
        lane = both[0].open_lane(b"\xff\xff\xff\xff\x01" + encode_body(b"t", [b""], number=1))
        both[1].write_control(b"\x3f\xff\xff\xff\xff\xff\xff\xff\xff"[:9])
        await world.go()
        chunk = bytes(64 * 1024)
        async for number in world.paced(100, 100):
            if world.is_small and number % 50 == 49:
                await answered(strangers, both[0], number)
            both[0].connection.send(lane, chunk)
            both[1].write_control(chunk)
            world.made["chunks of 64 KiB"] += 2
        for stranger in both:
            world.count_end(stranger)
            stranger.connection.close(CloseCode.GOODBYE, "")


async def answered(strangers: Strangers, stranger: Stranger, id: int) -> None:
    """Wait until the broker has read what `stranger` wrote on its control stream so far."""
    stranger.write(Ping(id=id))
    async with asyncio.timeout(30.0):
        await stranger.wait(lambda: True if Pong(id=id) in stranger.frames[-64:] or stranger.termination else None)


async def many_streams(world: World) -> None:
    """Open streams of unknown types, end them before their type, reset them: each closes its connection."""
    credential = world.authority.issue_client("streams")
    async with world.strangers(*world.crowd_hosts(10)) as strangers:
        await world.go()
        async for number in world.paced(50, 12):
            stranger = await strangers.proven(credential)
            world.made["connections"] += 1
            connection = stranger.connection
            match number % 3:
                case 0:
                    connection.send(connection.open_stream(), b"\x7fabc")
                case 1:
                    connection.send(connection.open_stream(), b"", end=True)
                case _:
                    connection.send(connection.open_stream(), b"\x01")
            await strangers.ended(stranger)


ATTACKS = (
    Attack(
        "streams without first byte",
        "10 connections/s, each with all of its windows full of bytes that never come out of a stream",
        without_first_byte,
        made={"connections": 8, "closed limit_exceeded": 6},
        counted={"edge.accepted": 2},
    ),
    Attack(
        "slow loris",
        "50 connections/s that write two bytes a second on their control streams",
        slow_loris,
        made={
            "connections": 12,
            "sessions": 3,
            "sessions still open": 3,
            "closed handshake_timeout": 9,
        },
        counted={"edge.refused.handshake_timeout": 9, "edge.accepted": 3},
    ),
    Attack(
        "never-ending messages",
        "a record of 4 GiB and an endless frame, 6.4 MB/s each",
        never_ending,
        made={"chunks of 64 KiB": 200, "still open": 2},
    ),
    Attack(
        "streams of no type",
        "50 sessions/s that open streams of unknown types, none, or a second control stream",
        many_streams,
        made={"connections": 12, "closed protocol_violation": 12},
        counted={"edge.violations": 12},
    ),
)
