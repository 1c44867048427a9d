"""Attacks with whole handshakes: silent, without a credential, with somebody else's, and no end of them."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from quicbus.exceptions import LimitExceeded
from quicbus.identity import Authority, sign_proof
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Hello, Ping, Subscribed
from tests.abuse.attackers.attack import Attack
from tests.abuse.shapes import subscribe
from tests.system.stranger import hello

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quicbus.identity import Credential
    from tests.abuse.world import World
    from tests.system.stranger import Stranger

__all__ = ["ATTACKS", "Crowd"]

AT_ONCE = 64
"""Handshakes that the attacker has under way; a broker that is slower sets the pace."""
AT_ONCE_SMALL = 4
"""So few that on a busy machine, too, none takes longer than the broker waits for it."""


class Crowd:
    """Runs what each stranger does as a task, a bounded number at a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._room = asyncio.Semaphore(AT_ONCE_SMALL if world.is_small else AT_ONCE)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._tasks.__aexit__(*error)  # type: ignore[arg-type]

    async def begin(self, doing: Callable[[], Awaitable[None]]) -> None:
        await self._room.acquire()
        self._tasks.create_task(self._do(doing))

    async def _do(self, doing: Callable[[], Awaitable[None]]) -> None:
        try:
            await doing()
        except (TimeoutError, AssertionError, LimitExceeded):
            self._world.made["gave up"] += 1
        finally:
            self._room.release()


async def silent(world: World) -> None:
    """Complete handshakes and say nothing, until the broker closes them."""
    kept: list[Stranger] = []
    async with world.strangers(*world.crowd_hosts(1)) as strangers:
        await world.go()

        async def begin() -> None:
            kept.append(await strangers.connected())
            world.made["handshakes"] += 1

        async with Crowd(world) as crowd:
            async for _ in world.paced(100, 20):
                await crowd.begin(begin)
        if world.is_small:
            await strangers.ended(*kept)


async def churn(world: World) -> None:
    """Come, subscribe, and go: in order, without a word, with something under way, at once."""
    credential = world.authority.issue_client("churn")
    async with world.strangers(*world.crowd_hosts(2)) as strangers:
        await world.go()

        async def come_and_go(number: int) -> None:
            stranger = await strangers.connected()
            world.made["handshakes"] += 1
            if number % 4 == 0:
                stranger.connection.close(CloseCode.GOODBYE, "")
                return
            await stranger.prove(credential)
            world.made["sessions"] += 1
            stranger.write(subscribe(1, f"churn/{number}/#"))
            if number % 4 == 1:
                await stranger.wait_frame(Subscribed)
            stranger.publish(b"churn", b"x" * 200)
            stranger.connection.close(CloseCode.GOODBYE if number % 4 == 1 else CloseCode.INTERNAL_ERROR, "")

        async with Crowd(world) as crowd:
            async for number in world.paced(100, 40):
                await crowd.begin(lambda number=number: come_and_go(number))  # type: ignore[misc]


# --- credentials ----------------------------------------------------------------------------------------------------


def expired(authority: Authority) -> Credential:
    return authority.issue_client("old", days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=2))


def stolen(authority: Authority) -> Callable[[Stranger], Hello]:
    """The certificate of one client, the signature of another."""
    chain, thief = authority.issue_client("alice").chain_der, authority.issue_client("thief")

    def show(stranger: Stranger) -> Hello:
        signature = sign_proof(thief, stranger.binding, "client")
        return Hello(version=1, kind="client", agent="stranger", chain=chain, signature=signature)

    return show


def shown(credential: Credential, kind: str = "client") -> Callable[[Stranger], Hello]:
    return lambda stranger: hello(credential, stranger.binding, kind=kind)


async def wrong_credentials(world: World) -> None:
    authority = world.authority
    forger = Authority.create(mesh=authority.mesh)
    shows = [
        shown(Authority.create().issue_client("alice")),
        shown(expired(authority)),
        shown(authority.issue_node("tokyo"), "client"),
        shown(authority.issue_client("alice"), "node"),
        shown(forger.issue_client("alice")),
        shown(forger.issue_node("tokyo"), "node"),
        stolen(authority),
        lambda stranger: Hello(version=1, kind="client", agent="stranger"),
    ]
    await refused(world, shows, small=2 * len(shows), crowd_number=3)


async def refused(world: World, shows: list[Callable[[Stranger], Hello]], *, small: int, crowd_number: int) -> None:
    """Complete a handshake, show something in turn, and hear what the broker says to it."""
    async with world.strangers(*world.crowd_hosts(crowd_number)) as strangers:
        await world.go()

        async def show(number: int) -> None:
            stranger = await strangers.connected()
            world.made["handshakes"] += 1
            stranger.write(shows[number % len(shows)](stranger))
            await strangers.ended(stranger)

        async with Crowd(world) as crowd:
            async for number in world.paced(100, small):
                await crowd.begin(lambda number=number: show(number))  # type: ignore[misc]


async def replayed_proofs(world: World) -> None:
    """Show a proof that was good in another session, over and over."""
    async with world.strangers(*world.crowd_hosts(4)) as strangers:
        victim = await strangers.connected()
        overheard = hello(world.authority.issue_client("alice"), victim.binding)
        victim.write(overheard)
        await world.go()

        async def replay() -> None:
            stranger = await strangers.connected()
            world.made["handshakes"] += 1
            stranger.write(overheard)
            await strangers.ended(stranger)

        async with Crowd(world) as crowd:
            async for _ in world.paced(100, 20):
                await crowd.begin(replay)
        assert victim.termination is None
        victim.write(Ping(id=1))
        victim.connection.close(CloseCode.GOODBYE, "")


async def wrong_protocol(world: World) -> None:
    """Offer no protocol that the broker speaks: TLS refuses each."""
    configuration = replace(world.configuration, alpn="h3")
    async with world.strangers(*world.crowd_hosts(5)) as strangers:
        await world.go()

        async def knock() -> None:
            stranger = strangers.dial(configuration)
            await strangers.ended(stranger)

        async with Crowd(world) as crowd:
            async for _ in world.paced(100, 10):
                await crowd.begin(knock)


ATTACKS = (
    Attack(
        "silent handshakes",
        "100 completed handshakes/s that prove nothing and stay",
        silent,
        made={"handshakes": 20, "closed handshake_timeout": 20},
        counted={"edge.refused.handshake_timeout": 20},
    ),
    Attack(
        "connection churn",
        "100 sessions/s that come, subscribe, publish and go, three in four without a goodbye",
        churn,
        made={"handshakes": 40, "sessions": 30},
        counted={"edge.accepted": 30},
    ),
    Attack(
        "wrong credentials",
        "100 handshakes/s: another mesh's, expired, node as client, client as node, a forged authority's, stolen, none",
        wrong_credentials,
        made={
            "handshakes": 16,
            "closed credential_other_mesh": 2,
            "closed credential_expired": 2,
            "closed credential_wrong_role": 4,
            "closed credential_invalid": 4,
            "closed proof_invalid": 2,
            "closed credential_missing": 2,
        },
        counted={
            "edge.refused.credential_other_mesh": 2,
            "edge.refused.credential_expired": 2,
            "edge.refused.credential_wrong_role": 4,
            "edge.refused.credential_invalid": 4,
            "edge.refused.proof_invalid": 2,
            "edge.refused.credential_missing": 2,
        },
    ),
    Attack(
        "replayed proofs",
        "100 handshakes/s with a proof of possession that was good in another session",
        replayed_proofs,
        made={"handshakes": 20, "closed proof_invalid": 20},
        counted={"edge.refused.proof_invalid": 20},
    ),
    Attack(
        "other protocols",
        "100 handshakes/s that offer another ALPN",
        wrong_protocol,
        made={"failed": 10},
    ),
)
