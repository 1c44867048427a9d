"""Attacks on `quicbus-join/1`: tokens that were used, forged, expired, unknown, and requests that are none."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quicbus.exceptions import LimitExceeded
from quicbus.identity import JoinToken, Role
from quicbus.identity.issuing import IssueRequest
from quicbus.identity.keys import generate_key
from quicbus.identity.requests import make_request
from quicbus.identity.token_store import TokenStore
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import encode_frame
from quicbus.wire.join_frames import JOIN_ALPN, JOIN_VERSION, JoinRequest
from tests.abuse.attackers.attack import Attack
from tests.abuse.attackers.handshakes import Crowd

if TYPE_CHECKING:
    from tests.abuse.world import Strangers, World

__all__ = ["ATTACKS"]


def stored_token(world: World, **options: object) -> JoinToken:
    """A token that the authority knows, as `quicbus token create` makes it."""
    authority = world.authority
    return TokenStore(Path(world.orders.data_dir)).create(
        mesh=authority.mesh,
        seeds=["127.0.0.1:1"],
        authorities=authority.authorities_der,
        role=Role.CLIENT,
        **options,  # type: ignore[arg-type]
    )


def new_request() -> bytes:
    return make_request(generate_key())


def redeeming(token: JoinToken, csr: bytes, signed: bytes | None = None) -> bytes:
    """What redeems a token for the key of `csr`; `signed`: what the token has signed instead."""
    return IssueRequest(csr=csr, token_id=token.id, signature=token.sign(signed or csr)).encode()


def bad_requests(world: World, used: JoinToken) -> list[bytes]:
    day_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    expired = stored_token(world, now=day_ago, name="late")
    open_token = stored_token(world, name="meant-for-another")
    unknown = JoinToken.make(world.authority.mesh, used.seeds, used.authorities, Role.CLIENT, "nobody", used.expires_at)
    return [
        redeeming(used, new_request()),
        redeeming(replace(open_token, secret=bytes(32)), new_request()),
        redeeming(open_token, new_request(), signed=new_request()),
        redeeming(unknown, new_request()),
        redeeming(expired, new_request()),
        IssueRequest(csr=b"\x30\x03\x02\x01\x00", token_id=used.id, signature=bytes(64)).encode(),
        b"\xc1" * 2_000,
    ]


async def ask(world: World, strangers: Strangers, request: bytes) -> None:
    """Ask for a certificate; count what came of it."""
    stranger = strangers.dial(replace(world.configuration, alpn=JOIN_ALPN))
    async with asyncio.timeout(30.0):
        await stranger.wait_connected()
        world.made["asked"] += 1
        stranger.write_control(encode_frame(JoinRequest(version=JOIN_VERSION, request=request)))
        await stranger.wait(lambda: stranger.control_of_broker is not None or stranger.termination is not None or None)
    if stranger.termination is None:
        world.made["certificates"] += 1
        stranger.connection.close(CloseCode.GOODBYE, "")
    else:
        world.count_end(stranger)


async def join_tokens(world: World) -> None:
    """Use a token once, then again: for the same key, which gains nothing, for others, forged, late."""
    token = stored_token(world, name="once")
    first = redeeming(token, new_request())
    requests = [first, *bad_requests(world, token)]
    async with world.strangers(*world.crowd_hosts(30)) as strangers:
        await world.go()
        await ask(world, strangers, first)
        async with Crowd(world) as crowd:
            async for number in world.paced(100, 2 * len(requests)):
                await crowd.begin(lambda number=number: ask(world, strangers, requests[number % len(requests)]))  # type: ignore[misc]


async def silent_joiners(world: World) -> None:
    """Take all the room that there is for joiners, and ask for nothing."""
    configuration = replace(world.configuration, alpn=JOIN_ALPN)
    async with world.strangers(*world.crowd_hosts(31)) as strangers:
        await world.go()
        async with Crowd(world) as crowd:

            async def wait() -> None:
                stranger = strangers.dial(configuration)
                try:
                    async with asyncio.timeout(30.0):
                        await stranger.wait_connected()
                    world.made["handshakes"] += 1
                except LimitExceeded:
                    return
                await strangers.ended(stranger)

            async for _ in world.paced(50, 12):
                await crowd.begin(wait)


ATTACKS = (
    Attack(
        "join tokens",
        "100 requests/s with a used token (for its key and for others), forged, unknown and expired ones, and junk",
        join_tokens,
        made={
            "asked": 17,
            "certificates": 3,
            "closed token_refused": 10,
            "closed credential_invalid": 2,
            "closed protocol_violation": 2,
        },
        counted={
            "joining.joined": 3,
            "joining.refused.token_refused": 10,
            "joining.refused.credential_invalid": 2,
            "joining.refused.protocol_violation": 2,
        },
    ),
    Attack(
        "silent joiners",
        "50 handshakes/s for a certificate that then ask for none",
        silent_joiners,
        made={"handshakes": 12, "closed handshake_timeout": 12},
        counted={"joining.refused.handshake_timeout": 12},
    ),
)
