"""Joining and renewing in one broker: the desk for others, the way to the authority, and its own certificates."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from quicbus.client.enrolment import CertificateOffice
from quicbus.client.urls import parse_url
from quicbus.exceptions import CredentialError, InvalidSetting
from quicbus.logs import logger_for
from quicbus_broker.enrolment.authority_service import AuthorityService
from quicbus_broker.enrolment.desk import JoinDesk
from quicbus_broker.enrolment.keeper import CertificateKeeper
from quicbus_broker.joining import members_path
from quicbus_broker.remembered import RememberedMembers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.client import Client
    from quicbus.client.urls import BrokerUrl
    from quicbus.transport.engine import Engine
    from quicbus_broker.events import BrokerEvent
    from quicbus_broker.node import NodeIdentity
    from quicbus_broker.settings import BrokerSettings

__all__ = ["Enrolment"]


class Enrolment:
    """`revive` before anything is opened, then keep `run` running; `desk` serves joiners; `close` it at the end.

    `bus` may raise `QuicbusError` until it is open. `brokers` are told to joiners. `adopt` is called when the files of
    the identity have another certificate of the node.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        identity: NodeIdentity,
        engine: Engine,
        *,
        bus: Callable[[], Client],
        brokers: Callable[[], Sequence[str]],
        adopt: Callable[[], object],
        report: Callable[[BrokerEvent], None],
    ) -> None:
        node = identity.credential.node_id
        self._settings = settings
        self._identity = identity
        self._office = CertificateOffice(engine, qlog_dir=settings.qlog_dir)
        authority = AuthorityService(bus, lambda: identity.issuer, _now, node=node)
        self.desk = JoinDesk(
            authority,
            identity.verifier,
            brokers,
            _now,
            node=node,
            request_timeout_s=settings.handshake_timeout_s,
            max_rate=settings.max_join_rate,
        )
        self._keeper = CertificateKeeper(
            identity,
            authority,
            self._office,
            self._known,
            changed=adopt,
            report=report,
            wall_clock=_now,
            rng=random.Random(secrets.randbits(64)),  # noqa: S311 (jitter)
        )
        self._log = logger_for("quicbus_broker.enrolment", node=node.hex())

    @property
    def expires_in_s(self) -> float:
        """Seconds until the node's certificate ends, negative afterwards."""
        return (self._identity.credential.not_after - _now()).total_seconds()

    async def revive(self) -> None:
        """Renew a node's certificate that has expired not long ago: nothing can be opened with it.

        Raises `CredentialError` where that is impossible, `AuthorityUnavailable` and `ConnectFailed` where it may work
        later.
        """
        credential = self._identity.credential
        if self.expires_in_s > 0:
            return
        known = self._known()
        if not known:
            raise CredentialError(
                f"the certificate of node {credential.name} expired on {credential.not_after:%Y-%m-%d %H:%M} UTC, and "
                "no other node is known that could renew it; name one with --seed HOST:PORT"
            )
        issued = await self._office.renewal(credential, known)
        await asyncio.to_thread(self._identity.install, issued.chain, issued.trust)
        self._identity.adopt()
        until = self._identity.credential.not_after
        self._log.info("= the node's certificate had expired and was renewed, until %s", until)

    async def run(self) -> None:
        """Answer for the authority where its key is here, and keep the certificates alive; until cancelled."""
        await self._keeper.run()

    async def close(self) -> None:
        await self.desk.close()

    def _known(self) -> list[BrokerUrl]:
        """Return where other nodes may be: the seeds, then the members that are remembered."""
        identity = self._identity
        me, mesh = identity.credential.node_id, identity.credential.mesh
        remembered = RememberedMembers(members_path(identity), me=me, mesh=mesh).load()
        known: list[BrokerUrl] = []
        for address in (*self._settings.seed, *(address for _, address in remembered)):
            with contextlib.suppress(InvalidSetting):
                known.append(parse_url(f"quic://{address}"))
        return list(dict.fromkeys(known))


def _now() -> datetime:
    return datetime.now(UTC)
