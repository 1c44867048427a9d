"""What brings a node into its mesh and keeps it findable: seeds, remembered members, the local network, addresses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quicbus.logs import logger_for
from quicbus_broker.addresses import AdvertisedAddresses
from quicbus_broker.dial_back import DialBacks
from quicbus_broker.lan import LanDiscovery
from quicbus_broker.mesh.outputs import Dial, State
from quicbus_broker.reachability import Reachability
from quicbus_broker.remembered import MEMBERS_FILE, RememberedMembers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quicbus.transport.endpoint import Endpoint
    from quicbus_broker.mesh.driver import MeshDriver
    from quicbus_broker.mesh.outputs import DialFailed, NodeId
    from quicbus_broker.node import NodeIdentity
    from quicbus_broker.settings import BrokerSettings

__all__ = ["Joining", "members_path"]

PATIENCE_S = 5.0
"""A mesh that is there is found within this; then it is told why it was not."""


class Joining:
    """Make it when the endpoint is open, `start` it, and keep `run` running; `close` it before the node leaves.

    The constructor raises `InvalidSetting` where `discover` lacks its extra.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        identity: NodeIdentity,
        driver: MeshDriver,
        endpoint: Endpoint,
        clock: Callable[[], float],
        siblings: tuple[tuple[NodeId, str], ...] = (),
    ) -> None:
        """`siblings`: other workers behind the same port, and where they are; they are dialed at once."""
        self._settings = settings
        self._identity = identity
        self._driver = driver
        self._endpoint = endpoint
        self._clock = clock
        self._siblings = siblings
        me, credential = identity.credential.node_id, identity.credential
        self._memory = RememberedMembers(members_path(identity), me=me, mesh=credential.mesh)
        self._reachability = Reachability(
            AdvertisedAddresses(settings, endpoint.address),
            DialBacks(endpoint.engine, lambda: identity.credential),
            said_by=self._said_by,
            changed=self._addresses_changed,
            clock=clock,
        )
        self._offers = 0
        self._failures: dict[str, DialFailed] = {}
        """Of seeds, the last one of each."""
        self._log = logger_for("quicbus_broker.mesh", node=me.hex())
        self._lan: LanDiscovery | None = None
        if settings.discover:
            self._lan = LanDiscovery(
                mesh=credential.mesh,
                node=me,
                name=credential.name,
                bound=endpoint.address,
                on_found=self._found,
                is_dialed=settings.mode != "client",
            )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node says that it may be dialed, best first."""
        return self._reachability.current

    def start(self) -> None:
        """Say who this node is, and look for the mesh."""
        self._driver.on_arrival = self._reachability.arrived
        self._driver.on_reached = self._reachability.reached
        self._driver.on_dial_failed = self._dial_failed
        remembered = self._memory.load()
        self._driver.start(
            self._endpoint,
            addresses=self.addresses,
            seeds=self._settings.seed,
            remembered=(*self._siblings, *remembered),
        )
        if not (self._settings.seed or self._settings.discover or remembered or self._siblings):
            self._tell_that_it_waits()

    async def run(self) -> None:
        """Remember members, watch the own addresses, look around on the local network; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._memory.keep(self._driver.mesh.members), name="broker-members")
            tasks.create_task(self._reachability.run(), name="broker-addresses")
            tasks.create_task(self._tell_while_apart(), name="broker-joined")
            if self._lan is not None:
                tasks.create_task(self._lan.run(), name="broker-lan")

    async def close(self) -> None:
        """Write down who is there now."""
        await self._reachability.close()
        await asyncio.to_thread(self._memory.save, self._driver.mesh.members())

    def _dial_failed(self, failure: DialFailed) -> None:
        if failure.address in self._settings.seed:
            self._failures[failure.address] = failure

    def _tell_that_it_waits(self) -> None:
        """Warn where a node of a mesh knows nobody to dial: it would stay alone, and nobody would notice."""
        if self._settings.mode == "client":
            self._log.warning(
                "= mode client only dials, and nobody is known to dial: name a node with --seed HOST:PORT"
            )
        elif self._settings.mode == "hybrid" and not self._identity.may_be_first:
            self._log.warning(
                "= the certificate of this node was issued elsewhere, and no seed is named: it waits until others dial "
                "it; --seed HOST:PORT names a node of its mesh"
            )

    async def _tell_while_apart(self) -> None:
        """Warn where no seed has answered, with the reason of each: a node alone works, and nobody would notice."""
        await asyncio.sleep(PATIENCE_S)
        others = [seed for seed in self._settings.seed if not self._is_self(seed)]
        siblings = {node for node, _ in self._siblings}
        if (
            not others
            or self._settings.mode == "server"
            or any(link.node not in siblings for link in self._driver.links)
        ):
            return
        told = "; ".join(map(self._with_reason, others))
        self._log.warning("= no seed has answered yet, still trying: %s", told)

    def _with_reason(self, seed: str) -> str:
        failure = self._failures.get(seed)
        if failure is None or failure.is_final:  # that was told when it failed
            return seed
        return f"{seed} ({failure.reason.removesuffix(f' ({seed})')})"

    def _is_self(self, seed: str) -> bool:
        failure = self._failures.get(seed)
        return failure is not None and failure.is_self

    def _said_by(self, node: NodeId) -> tuple[str, ...] | None:
        for member in self._driver.mesh.members():
            if member.node == node:
                return member.addresses if member.mode != "client" else None
        return None

    def _addresses_changed(self, addresses: tuple[str, ...]) -> None:
        self._driver.perform(self._driver.mesh.set_addresses(addresses, self._clock()))

    def _found(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """A node of this mesh is on the local network; the mesh itself sees to those that it knows."""
        if self._settings.mode == "server" or any(
            member.node == node and member.state in (State.ALIVE, State.SUSPECT)
            for member in self._driver.mesh.members()
        ):
            return
        # Whoever answers there is welcome if it is of this mesh: what is announced proves nothing.
        self._driver.perform([Dial(addresses[self._offers % len(addresses)], None)])
        self._offers += 1


def members_path(identity: NodeIdentity) -> Path:
    """Return the file of members: a folder that is not this node's alone holds one of each node."""
    if identity.credential_path is not None:
        return identity.data_dir / MEMBERS_FILE
    return identity.data_dir / f"members-{identity.credential.node_id.hex()[:8]}.json"
