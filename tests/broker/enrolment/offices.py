"""A desk at a listener on a memory network, with the authority behind it, and those who ask there."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from quicbus.client.enrolment import CertificateOffice
from quicbus.exceptions import NoResponders
from quicbus.identity import Credential, DataFolder, Issuer, JoinToken, Role, TokenStore, Verifier
from quicbus.transport.endpoint import Endpoint, Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.transport.memory_network import MemoryNetwork
from quicbus.wire.join_frames import JOIN_ALPN
from quicbus_broker.enrolment.authority_service import AuthorityService
from quicbus_broker.enrolment.desk import JoinDesk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from quicbus.client import Client

__all__ = ["ADDRESS", "BROKERS", "FakeBus", "Office", "Request", "open_office"]

ADDRESS = ("127.0.0.1", 4433)
BROKERS = ("quic://tokyo:4433",)


@dataclass
class Request:
    """A message as a handler of `$quicbus/authority` gets it."""

    payload: bytes
    publisher: str = "lima"
    replies: list[bytes] = field(default_factory=list)

    async def reply(self, payload: bytes) -> None:
        self.replies.append(payload)


class FakeBus:
    """The bus of a node: at first nobody has the authority's key. `authority` is asked when somebody does."""

    def __init__(self) -> None:
        self.authority: Callable[[Request], Awaitable[None]] | None = None
        self.failure: Exception | None = None
        self.handlers: dict[tuple[str, str | None], Callable[[Request], Awaitable[None]]] = {}
        self.asked = 0

    async def request(self, topic: str, payload: bytes, *, timeout: float) -> Request:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if self.authority is None:
            raise NoResponders(topic)
        request = Request(payload)
        await self.authority(request)
        return Request(request.replies[0])

    def on(self, topic: str, *, group: str | None = None, **_: int) -> Callable[[Any], Any]:
        return lambda function: self.handlers.setdefault((topic, group), function)

    async def wait_handlers(self) -> None: ...


class Office:
    """Made by `open_office`."""

    def __init__(self, folder: DataFolder, desk: JoinDesk, office: CertificateOffice, bus: FakeBus) -> None:
        self.folder = folder
        self.desk = desk
        self.office = office
        self.bus = bus

    def token(self, role: Role = Role.CLIENT, **options: Any) -> JoinToken:
        authority = self.folder.authority
        assert authority is not None
        return TokenStore(self.folder.path).create(
            mesh=authority.mesh,
            seeds=options.pop("seeds", [f"{ADDRESS[0]}:{ADDRESS[1]}"]),
            authorities=authority.authorities_der,
            role=role,
            **options,
        )

    def client(self, name: str = "alice", *, age_days: float = 0.0) -> Credential:
        """A client's credential that was issued for 30 days so long ago."""
        assert self.folder.authority is not None
        return self.folder.authority.issue_client(name, days=30, now=dt.datetime.now(dt.UTC) - dt.timedelta(age_days))


@contextlib.asynccontextmanager
async def open_office(
    path: Path,
    *,
    engine: str = "memory",
    has_authority: bool = True,
    network: MemoryNetwork | None = None,
    **settings: Any,
) -> AsyncIterator[Office]:
    network = network or MemoryNetwork()
    bus = FakeBus()
    # The authority is older than what it issues, also where a test has that issued long ago.
    DataFolder.open(path, may_create_authority=True, now=_now() - dt.timedelta(days=100)).close()
    with DataFolder.open(path, may_create_authority=True) as folder:
        assert folder.authority is not None
        issuer = Issuer(folder.path, folder.authority)
        service = AuthorityService(
            lambda: cast("Client", bus), lambda: issuer if has_authority else None, _now, node=folder.node_id
        )
        verifier = Verifier(folder.node.authority_pem, folder.mesh, folder.trust.revocation)
        desk = JoinDesk(
            service,
            lambda: verifier,
            lambda: BROKERS,
            _now,
            node=folder.node_id,
            **settings,
        )
        configuration = EngineConfiguration(
            is_client=False,
            alpn=JOIN_ALPN,
            certificate_chain=folder.node.chain_pem,
            private_key=folder.node.private_key_pem,
        )
        endpoint = await Endpoint.open(
            bind=ADDRESS,
            engine=engine_named(engine),
            listener=Listener(configuration, desk.make_session),
            network=network,
        )
        async with endpoint:
            yield Office(folder, desk, CertificateOffice(engine_named(engine), network=network), bus)
            await desk.close()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
