"""The mesh of one broker: joins the machine, its driver, what people see of it, and the exchange of the edge."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from quicbus.logs import logger_for
from quicbus_broker.joining import Joining
from quicbus_broker.live_trust import MeshTrust
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.driver import MeshDriver
from quicbus_broker.mesh.session.node_signing import NodeSigning
from quicbus_broker.mesh.state import Mesh
from quicbus_broker.mesh_port import MeshPort
from quicbus_broker.mesh_sight import MeshSight

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.endpoint import Endpoint
    from quicbus_broker.edge import Edge
    from quicbus_broker.mesh.outputs import MemberChanged, MemberRevoked
    from quicbus_broker.mesh.views import MeshStatistics
    from quicbus_broker.node import NodeIdentity
    from quicbus_broker.settings import BrokerSettings

__all__ = ["BrokerMesh"]


class BrokerMesh:
    """`driver` takes the connections of nodes; `start` it when the endpoint is open, and keep `run` running.

    `on_superseded` is called with a sentence when another process with this node's key was started later, `on_revoked`
    when this node was revoked.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        identity: NodeIdentity,
        edge: Edge,
        clock: Callable[[], float],
        on_superseded: Callable[[str], None],
        on_revoked: Callable[[], None] = lambda: None,
    ) -> None:
        credential = identity.credential
        config = MeshConfig(max_hops=settings.max_hops)
        trust = MeshTrust(identity)
        self._settings = settings
        self._identity = identity
        self._edge = edge
        self._clock = clock
        self._on_superseded = on_superseded
        self._on_revoked = on_revoked
        self.on_trust_learned: Callable[[], None] = lambda: None
        """Called when another node has brought a later trust list, which counts already."""
        self.mesh = Mesh(
            me=credential.node_id,
            name=credential.name,
            boot=identity.boot,
            mode=settings.mode,
            signing=NodeSigning(
                lambda: identity.credential,
                identity.verifier(),
                lambda: datetime.now(UTC),
                is_revoked=trust.is_revoked,
            ),
            config=config,
            trust=trust,
            rng=random.Random(secrets.randbits(64)),  # noqa: S311 (jitter and whom to ask next: no secret is drawn)
        )
        self.driver = MeshDriver(
            self.mesh,
            self,
            credential=lambda: identity.credential,
            clock=clock,
            dial_timeout_s=config.dial_timeout_s,
        )
        port = self.driver.receiver = MeshPort(self.driver, edge.exchange, clock)
        edge.exchange.join(port)
        self.sight = MeshSight(self.mesh, members_changed=edge.members_changed, want_turn=self._want_look)
        edge.mesh = self.sight
        self.siblings: tuple[tuple[bytes, str], ...] = ()
        """Node ids and addresses of the other workers of a broker that is several processes."""
        self._joining: Joining | None = None
        self._wants_look = False
        self._log = logger_for("quicbus_broker.mesh", node=credential.node_id.hex())

    def start(self, endpoint: Endpoint) -> None:
        """Look for the mesh. Raises `InvalidSetting` where the settings ask for an extra that is missing."""
        self._joining = Joining(self._settings, self._identity, self.driver, endpoint, self._clock, self.siblings)
        self._joining.start()
        self.sight.look()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node says that it may be dialed, `HOST:PORT`, best first."""
        return () if self._joining is None else self._joining.addresses

    async def run(self) -> None:
        """Keep it going, until cancelled; raises what went wrong in here."""
        assert self._joining is not None, "start() comes first"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.driver.run(), name="broker-mesh-driver")
            tasks.create_task(self._joining.run(), name="broker-joining")

    def tick(self) -> None:
        """To be called every now and then: people are told what has changed."""
        self.sight.look()

    def renewed(self) -> None:
        """The node's certificate was renewed."""
        self.driver.perform(self.mesh.renewed(self._clock()))

    def trust_changed(self) -> None:
        """There is a later trust list, from elsewhere than the mesh."""
        self.driver.perform(self.mesh.trust_changed(self._clock()))

    def statistics(self) -> MeshStatistics:
        """Return the counters of the machine, with what the driver had to drop."""
        statistics = self.mesh.statistics()
        return replace(statistics, dropped=dict(Counter(statistics.dropped) + self.driver.dropped))

    async def leave(self, *, in_silence: bool = False) -> None:
        """Tell the mesh, and close the connections with other nodes. May be called twice.

        `in_silence`: another process goes on as this node.
        """
        joining, self._joining = self._joining, None
        if joining is not None:
            await joining.close()
            if not in_silence:
                await self.driver.leave()
        self.close()

    def close(self) -> None:
        """Close the connections with other nodes without a word."""
        self.driver.close()
        self.sight.close()

    # --- DriverEvents: what comes out of the mesh ---------------------------------------------------------------------

    def spread_reached(self, version: int) -> None:
        self._want_look()

    def member_changed(self, change: MemberChanged) -> None:
        self.sight.changed(change)

    def member_revoked(self, revoked: MemberRevoked) -> None:
        self.sight.revoked(revoked.node, revoked.name)

    def trust_learned(self, signed: bytes) -> None:
        self.on_trust_learned()

    def self_revoked(self) -> None:
        self._on_revoked()

    def superseded(self, boot: int, addresses: tuple[str, ...]) -> None:
        where = f" at {', '.join(addresses)}" if addresses else ""
        self._on_superseded(
            f"another process with this node's key was started later (boot {boot}){where}: this one stops; "
            "one data folder serves one broker, prepare another with `quicbus cert issue --node NAME --out DIR`"
        )

    def _want_look(self) -> None:
        if not self._wants_look:
            self._wants_look = True
            self.driver.wants_end_turn()
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._wants_look = False
        self.sight.look()
