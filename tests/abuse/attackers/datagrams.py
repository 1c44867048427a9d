"""Attacks with single datagrams, from many source addresses: no handshake of them ever completes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.abuse.attackers.attack import Attack
from tests.abuse.crafted import FloodSocket, InitialMaker, bare_initial, loopback, read_retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.abuse.world import World

__all__ = ["ATTACKS"]

RATE = 5_000
ADDRESSES = 50_000
"""From which a flood comes, and how many different packets it has."""
ANSWERED = "transport.retries_sent + transport.dropped.flood"
"""A broker that is short of time for strangers drops what it would answer."""
BEGUN = "transport.accepted + transport.dropped.handshake_share"
ENDED = "transport.closed.handshake_timeout + edge.refused.handshake_timeout + transport.dropped.handshake_share"
SYNC = 25
"""A small attack waits after so many datagrams until they were read: the smallest socket buffers hold more."""


async def flood(world: World, datagrams: Sequence[bytes], name: str, *, small: int) -> None:
    """Send the datagrams in turn, each time from another address."""
    with FloodSocket(world.address) as socket:
        await world.go()
        async for number in world.paced(RATE, small):
            if socket.send(datagrams[number % len(datagrams)], loopback(number % ADDRESSES)):
                world.made[name] += 1
            if world.is_small and number % SYNC == SYNC - 1:
                await socket.heard_all()
        await socket.heard_all()
        # Nobody is answered with more than three times what he sent.
        assert socket.received_size <= 3 * socket.sent_size
        if not world.is_small:
            world.made["answers"] = socket.received


async def garbage(world: World) -> None:
    rng = world.random
    # Long headers would be taken for handshake packets of some version; these are nothing at all, or short headers.
    datagrams = [bytes((rng.randrange(0x80),)) + rng.randbytes(rng.randrange(30, 1_200)) for _ in range(1_000)]
    await flood(world, datagrams, "datagrams", small=200)


async def bare_initials(world: World) -> None:
    rng = world.random
    count = world.chosen(300, 5_000)
    datagrams = [bare_initial(rng.randbytes(8), rng.randbytes(8), payload=rng.randbytes(600)) for _ in range(count)]
    await flood(world, datagrams, "initials", small=count)


async def real_initials(world: World) -> None:
    maker = InitialMaker(world.configuration)
    count = world.chosen(300, 10_000)
    datagrams = [maker.hello(world.random.randbytes(8)) for _ in range(count)]
    await flood(world, datagrams, "initials", small=count)


async def forged_tokens(world: World) -> None:
    rng = world.random
    count = world.chosen(200, 5_000)
    datagrams = [bare_initial(rng.randbytes(8), rng.randbytes(8), rng.randbytes(70)) for _ in range(count)]
    await flood(world, datagrams, "initials", small=count)


async def replayed_tokens(world: World) -> None:
    """Take tokens at one address; use each there, after its connection has ended, elsewhere, and for another id."""
    maker = InitialMaker(world.configuration)
    tokens: list[tuple[bytes, bytes]] = []

    def keep(datagram: bytes, host: str) -> None:
        if (retry := read_retry(datagram)) is not None:
            tokens.append(retry)

    home = "127.0.9.9"
    with FloodSocket(world.address) as socket:
        socket.heard = keep
        await world.go()
        async for number in world.paced(RATE / 5, 40):
            if not tokens:
                socket.send(maker.hello(world.random.randbytes(8)), home)
                await world.until(lambda: bool(tokens), 20.0 if world.is_small else 0.1)
                if not tokens:  # The broker asks for none now.
                    world.made["initials without a token"] += 1
                    continue
                retry, token = tokens[0]
                socket.send(maker.hello(retry, token), home)
                socket.send(maker.close(retry), home)
                await socket.heard_all()
                await world.turned()
                world.made["tokens used"] += 1
            retry, token = tokens[0]
            kind = number % 4
            if kind == 0:
                socket.send(bare_initial(retry, maker.source, token), home)
            elif kind == 1:
                socket.send(bare_initial(retry, maker.source, token), loopback(number))
            elif kind == 2:
                socket.send(bare_initial(world.random.randbytes(8), maker.source, token), home)
            else:
                at = number % len(token)
                changed = token[:at] + bytes((token[at] ^ 1,)) + token[at + 1 :]
                socket.send(bare_initial(retry, maker.source, changed), home)
            world.made["replays"] += 1
            if number % SYNC == SYNC - 1:
                await socket.heard_all()
        await socket.heard_all()
        assert socket.received_size <= 3 * socket.sent_size


async def half_open(world: World) -> None:
    """Answer the Retry, from many addresses, and leave the handshake there."""
    maker = InitialMaker(world.configuration)
    with FloodSocket(world.address) as socket:

        def go_on(datagram: bytes, host: str) -> None:
            if (retry := read_retry(datagram)) is not None:
                world.made["tokens used"] += 1
                socket.send(maker.hello(*retry), host)

        socket.heard = go_on
        await world.go()
        async for number in world.paced(500, 60):
            socket.send(maker.hello(world.random.randbytes(8)), loopback(number))
            world.made["begun"] += 1
            if world.is_small and number % SYNC == SYNC - 1:
                await world.until(lambda: world.made["tokens used"] == world.made["begun"], 20.0)
        await world.until(lambda: world.made["tokens used"] == world.made["begun"], 20.0 if world.is_small else 1.0)


ATTACKS = (
    Attack(
        "garbage",
        "5,000 datagrams/s that are no QUIC, from 50,000 addresses",
        garbage,
        made={"datagrams": 200},
    ),
    Attack(
        "bare initials",
        "5,000 Initials/s with nothing real in them, from 50,000 addresses",
        bare_initials,
        made={"initials": 300},
        counted={ANSWERED: 300},
    ),
    Attack(
        "real initials",
        "5,000 Initials/s with a valid ClientHello, from 50,000 addresses",
        real_initials,
        made={"initials": 300},
        counted={ANSWERED: 300},
    ),
    Attack(
        "forged Retry tokens",
        "5,000 Initials/s with tokens that nobody made",
        forged_tokens,
        made={"initials": 200},
        counted={"transport.dropped.token_forged": 200},
    ),
    Attack(
        "replayed Retry tokens",
        "1,000 Initials/s with a used token: again, elsewhere, for another id, changed",
        replayed_tokens,
        made={"tokens used": 1, "replays": 40},
        counted={
            "transport.accepted": 2,
            "transport.dropped.token_replayed": 10,
            "transport.dropped.token_other_address": 10,
            "transport.dropped.token_other_connection": 10,
            "transport.dropped.token_forged": 10,
        },
    ),
    Attack(
        "half-open handshakes",
        "500/s, each from an address of its own that answers the Retry and then says nothing",
        half_open,
        made={"begun": 60, "tokens used": 60},
        counted={BEGUN: 60, ENDED: 60},
    ),
)
