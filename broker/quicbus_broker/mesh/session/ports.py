"""What stands around the driver of the mesh: where connections come from, and who is told what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Connection
    from quicbus.transport.control import ControlStream
    from quicbus.wire.bundles import BundleBatch
    from quicbus.wire.frames import Frame, FrameParser
    from quicbus_broker.mesh.outputs import Deliver, MemberChanged, MemberRevoked, NodeId

__all__ = ["Arrival", "DriverEvents", "Receiver"]


class Arrival(Protocol):
    """A connection that the edge hands over, `quicbus_broker.edge.nodes.NodeArrival`."""

    @property
    def connection(self) -> Connection: ...
    @property
    def node(self) -> bytes: ...
    @property
    def boot(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def control(self) -> ControlStream: ...
    @property
    def frames(self) -> FrameParser: ...
    @property
    def control_id(self) -> int: ...
    @property
    def on_proof(self) -> Callable[[Frame], None]: ...


class Receiver(Protocol):
    """Where messages of the mesh go. Nothing of it waits or raises."""

    def deliver(self, deliver: Deliver) -> bool:
        """Route a batch of another node; False where it is for a group that has no member here."""
        ...

    def returned(self, node: NodeId, batch: BundleBatch, age_ms: int) -> None:
        """A share of a group came back from a node that has no member of it any more."""
        ...

    def pause_changed(self, node: NodeId, filter: str, is_paused: bool) -> None: ...

    def congestion_changed(self, is_congested: bool) -> None:
        """Hold the publishers to filters that block, or let them go: the way to a neighbour is full."""
        ...


class DriverEvents(Protocol):
    """What else the driver tells the rest of the broker, likewise."""

    def spread_reached(self, version: int) -> None: ...

    def member_changed(self, change: MemberChanged) -> None: ...

    def member_revoked(self, revoked: MemberRevoked) -> None: ...

    def trust_learned(self, signed: bytes) -> None:
        """Another node brought a later trust list, and it counts from now on: keep it."""
        ...

    def superseded(self, boot: int, addresses: tuple[str, ...]) -> None:
        """Another process with this node's key was started later: this one must stop."""
        ...

    def self_revoked(self) -> None:
        """This node is revoked: it must stop."""
        ...
