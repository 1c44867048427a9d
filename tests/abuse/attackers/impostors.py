"""Listeners that play the broker: real clients dial them, and must take none of them for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import quicbus
from quicbus.exceptions import QuicbusError
from quicbus.identity import Authority
from quicbus.transport.endpoint import Endpoint, Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.frames import ALPN
from tests.abuse.attackers.attack import Attack
from tests.conftest import ENGINES
from tests.system.stranger import Stranger

if TYPE_CHECKING:
    from quicbus.identity import Credential
    from tests.abuse.world import World

__all__ = ["ATTACKS"]


@dataclass
class Impostor:
    """A listener with somebody's certificate; `heard` is what dialers sent it inside of streams."""

    endpoint: Endpoint
    sessions: list[Stranger]

    @property
    def url(self) -> str:
        host, port = self.endpoint.address
        return f"quic://{host}:{port}"

    @property
    def heard(self) -> int:
        """Connections on which a dialer went on after the handshake."""
        return sum(bool(session.frames) or session.lane_bytes > 0 for session in self.sessions)


async def listening(credential: Credential, engine: str) -> Impostor:
    configuration = EngineConfiguration(
        is_client=False,
        alpn=ALPN,
        certificate_chain=credential.chain_pem,
        private_key=credential.private_key_pem,
    )
    sessions: list[Stranger] = []

    def make(connection: object) -> Stranger:
        sessions.append(Stranger(connection))  # type: ignore[arg-type]
        return sessions[-1]

    endpoint = await Endpoint.open(
        bind=("127.0.0.1", 0), engine=engine_named(engine), listener=Listener(configuration, make)
    )
    return Impostor(endpoint, sessions)


async def impostors(world: World) -> None:
    """Dial, with every engine, a client's certificate and forged nodes' as if they were brokers."""
    authority = world.authority
    shown = {
        "a client's certificate": authority.issue_client("alice"),
        "a client named like the nodes": authority.issue_client(f"node.{authority.mesh}.quicbus.internal"),
        "a forged authority's node": Authority.create(mesh=authority.mesh).issue_node("tokyo"),
        "another mesh's node": Authority.create().issue_node("tokyo"),
    }
    await world.go()
    for number, credential in enumerate(shown.values()):
        impostor = await listening(credential, ENGINES[number % len(ENGINES)])
        async with impostor.endpoint:
            for engine in ENGINES:
                await dial(world, impostor, engine)
            world.made["sessions"] += impostor.heard


async def dial(world: World, impostor: Impostor, engine: str) -> None:
    world.made["dialed"] += 1
    try:
        async with quicbus.connect(
            impostor.url, credentials=world.credential_path, engine=engine, connect_timeout_s=1.0
        ):
            world.made["taken for a broker"] += 1
    except QuicbusError as error:
        world.made[f"refused: {type(error).__name__}"] += 1


ATTACKS = (
    Attack(
        "impostors",
        "listeners with a client's certificate, a forged authority's and another mesh's",
        impostors,
        made={"dialed": 8, "refused: ConnectFailed": 8, "sessions": 0},
    ),
)
