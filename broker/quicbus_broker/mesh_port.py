"""Between the exchange of the edge and the mesh, which do not know each other: what crosses, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from zlib import crc32

from quicbus import limits
from quicbus.wire.bundles import BundleBatch
from quicbus_broker.mesh.messages.traffic import Publication

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.edge import Exchange
    from quicbus_broker.edge.remote import RemotePlan
    from quicbus_broker.mesh.driver import MeshDriver
    from quicbus_broker.mesh.interest.forwarding import MeshPlan
    from quicbus_broker.mesh.outputs import Deliver, NodeId
    from quicbus_broker.routing import Batch

__all__ = ["MeshPort"]


class MeshPort:
    """The exchange's `Remote`, and the part of `DriverEvents` that is for the exchange."""

    def __init__(self, driver: MeshDriver, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._driver = driver
        self._mesh = driver.mesh
        self.plan = driver.mesh.plan
        self._exchange = exchange
        self._clock = clock

    # --- Remote: what the exchange asks for ---------------------------------------------------------------------------

    @property
    def is_joined(self) -> bool:
        return self._mesh.is_settled

    def forward(self, batch: Batch, plan: RemotePlan) -> None:
        publication = _publication(batch, cast("MeshPlan", plan))
        self._driver.perform(self._mesh.publish(publication, self._clock()))

    def is_full(self, plan: RemotePlan) -> bool:
        mesh_plan = cast("MeshPlan", plan)
        # Through a link that is full goes part of what is broadcast, relayed, or has yet to be dialed for.
        return mesh_plan.is_broadcast or any(map(self._driver.is_full, mesh_plan.nodes))

    def send_share(self, batch: Batch, group: str, filter: str, exclude: bytes) -> bool:
        plan = self._mesh.plan(batch.body.topic, ())
        found = next((each for each in plan.groups if (each.group, each.filter) == (group, filter)), None)
        node = found.pick(exclude) if found is not None else None
        if node is None:
            return False
        self._driver.perform(self._mesh.send_share(_publication(batch, plan), node, group, filter, self._clock()))
        return True

    def give_back(self, batch: Batch, group: str, filter: str) -> bool:
        envelope = batch.envelope
        if not self._driver.is_connected(envelope.origin):
            return False
        lane = crc32(batch.body.topic) % limits.LANES
        share = BundleBatch(
            envelope.sequence, lane, 1, envelope.first, envelope.publisher, batch.body.raw, group, filter
        )
        self._driver.perform(self._mesh.give_back(envelope.origin, share, envelope.age_ms, self._clock()))
        return True

    def interest_added(self, filter: str, group: str, blocks: bool) -> None:
        self._mesh.add_interest(filter, group, blocks)
        self._driver.wants_end_turn()

    def interest_discarded(self, filter: str, group: str, blocks: bool) -> None:
        self._mesh.discard_interest(filter, group, blocks)
        self._driver.wants_end_turn()

    def pause(self, origin: bytes, filter: str, is_paused: bool) -> None:
        self._driver.perform(self._mesh.pause(origin, filter, is_paused, self._clock()))

    # --- DriverEvents: what comes from the mesh -----------------------------------------------------------------------

    def deliver(self, deliver: Deliver) -> bool:
        batch = deliver.batch
        return self._exchange.take_remote(
            deliver.origin,
            deliver.boot,
            batch.id,
            batch.first,
            batch.publisher,
            batch.body,
            deliver.age_ms,
            batch.group,
            batch.filter,
        )

    def returned(self, node: NodeId, batch: BundleBatch, age_ms: int) -> None:
        self._exchange.returned(
            node, batch.id, batch.first, batch.publisher, batch.body, age_ms, batch.group, batch.filter
        )

    def pause_changed(self, node: NodeId, filter: str, is_paused: bool) -> None:
        if is_paused:
            self._exchange.hold(node, filter)
        else:
            self._exchange.release(node, filter)

    def congestion_changed(self, is_congested: bool) -> None:
        self._exchange.congestion_changed(is_congested)


def _publication(batch: Batch, plan: MeshPlan) -> Publication:
    envelope, body = batch.envelope, batch.body
    return Publication(
        envelope.sequence, envelope.publisher, body.topic, body.raw, plan, envelope.first, envelope.age_ms
    )
