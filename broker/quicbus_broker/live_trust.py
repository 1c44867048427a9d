"""Trust in a broker that runs: what is replaced on disk and what the mesh brings counts at once, everywhere in it.

No session ends for it but those of revoked keys.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError, QuicbusError
from quicbus.logs import logger_for
from quicbus_broker.events import TrustChanged
from quicbus_broker.mesh.signing import Forged

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.broker_mesh import BrokerMesh
    from quicbus_broker.edge import Edge
    from quicbus_broker.node import Adopted, NodeIdentity

__all__ = ["LOOK_S", "LiveTrust", "MeshTrust"]

LOOK_S = 1.0
"""How often the files are looked at: a few `stat`."""


class MeshTrust:
    """The mesh's `TrustKeeper`."""

    def __init__(self, identity: NodeIdentity) -> None:
        self._identity = identity

    @property
    def version(self) -> int:
        return self._identity.trust.version

    @property
    def signed(self) -> bytes:
        return self._identity.trust.raw

    def take(self, signed: bytes) -> bool:
        try:
            return self._identity.take_trust(signed)
        except CredentialError as error:
            raise Forged(error.why) from None

    def is_revoked(self, node: bytes) -> bool:
        return self._identity.trust.revocation(node) is not None


class LiveTrust:
    """`run` it in a task. `renew_listener` is called when new connections are to be shown another certificate."""

    def __init__(
        self, identity: NodeIdentity, edge: Edge, mesh: BrokerMesh, renew_listener: Callable[[], None]
    ) -> None:
        self._identity = identity
        self._edge = edge
        self._mesh = mesh
        self._renew_listener = renew_listener
        self._is_to_keep = False
        self._log = logger_for("quicbus_broker", node=identity.credential.node_id.hex())
        edge.trusted(identity.trust)

    async def run(self) -> None:
        """Look at the files every second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take over what was replaced on disk, and write down what the mesh brought."""
        await self.keep()
        try:
            is_new = await asyncio.to_thread(self._identity.look)
        except QuicbusError as error:
            self._log.warning("= what was replaced on disk is not taken over: %s", error)
            is_new = True
        if is_new:
            self.adopt()

    async def keep(self) -> None:
        """Write down what the mesh brought since the last time."""
        if not self._is_to_keep:
            return
        self._is_to_keep = False
        try:
            await asyncio.to_thread(self._identity.keep_trust)
        except QuicbusError as error:
            self._log.warning("= the trust list counts, but is lost when this broker stops: %s", error)

    def adopt(self) -> Adopted:
        """Go by what is in the files now."""
        adopted = self._identity.adopt()
        if adopted.certificate or adopted.authorities:
            self._renew_listener()
        if adopted.certificate:
            until = self._identity.credential.not_after
            self._log.info("= the node has another certificate, until %s", until)
            self._mesh.renewed()
        if adopted.trust or adopted.authorities:
            self._changed()
        if adopted.trust:
            self._mesh.trust_changed()
        return adopted

    def learned(self) -> None:
        """Another node brought a later list, which counts already."""
        self._is_to_keep = True
        self._renew_listener()
        self._changed()

    def _changed(self) -> None:
        trust = self._identity.trust
        numbers = trust.version, len(trust.authorities), len(trust.revoked)
        self._log.info("= trust list %d: %d authorities, %d keys revoked", *numbers)
        self._edge.trusted(trust)
        credential = self._identity.credential
        event = TrustChanged(credential.node_id.hex(), credential.name, trust.version, len(trust.revoked))
        self._mesh.sight.report(event)
