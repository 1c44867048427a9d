"""What comes from other nodes, frame by frame and bundle by bundle, to the part that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.bundles import KIND_BROADCAST
from quicbus.wire.frames import Frame, Ping, Pong, Trust
from quicbus.wire.node_frames import (
    Disconnect,
    Discover,
    DiscoveryResponse,
    Graft,
    IHave,
    InterestSeen,
    Neighbor,
    NeighborReply,
    Pause,
    PingRequest,
    PingResult,
    Prune,
    Resume,
    Skipped,
    TrustVersion,
    Update,
)
from quicbus_broker.mesh.conduct import Ask
from quicbus_broker.mesh.messages.early import Early
from quicbus_broker.mesh.outputs import Misbehaved, SendFrame

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from quicbus.wire.bundles import Bundle
    from quicbus_broker.mesh.conduct import Conduct
    from quicbus_broker.mesh.health.detector import Detector
    from quicbus_broker.mesh.interest.interest_table import InterestTable
    from quicbus_broker.mesh.interest.own_interest import OwnInterest
    from quicbus_broker.mesh.members.discovery import Discovery
    from quicbus_broker.mesh.members.membership import Membership
    from quicbus_broker.mesh.messages.pauses import Pauses
    from quicbus_broker.mesh.messages.traffic import Traffic
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.overlay.overlay import Overlay
    from quicbus_broker.mesh.trust.spreading import Spreading

__all__ = ["Reception"]


class Reception:
    """`node` is always the one at the other end of the connection."""

    def __init__(
        self,
        membership: Membership,
        discovery: Discovery,
        overlay: Overlay,
        detector: Detector,
        traffic: Traffic,
        interest: InterestTable,
        own_interest: OwnInterest,
        pauses: Pauses,
        spreading: Spreading,
        conduct: Conduct,
    ) -> None:
        self._membership = membership
        self._discovery = discovery
        self._overlay = overlay
        self._detector = detector
        self._traffic = traffic
        self._interest = interest
        self._own_interest = own_interest
        self._pauses = pauses
        self._spreading = spreading
        self._conduct = conduct
        self._early = Early()
        self._on_frame = self._frame_handlers()

    def take_frame(self, node: NodeId, frame: Frame, now: float, outputs: list[Output]) -> None:
        self._detector.heard(node, now, outputs)
        if isinstance(frame, Ping):
            outputs.append(SendFrame(node, Pong(id=frame.id)))
            return
        if isinstance(frame, IHave | Graft | Prune):
            self._overlay.stray(node, now, outputs)
        handler = self._on_frame.get(type(frame))
        if handler is None:
            outputs.append(Misbehaved(node, f"{type(frame).__name__} is not for an open link"))
        else:
            handler(node, frame, now, outputs)

    def take_bundle(self, node: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> None:
        self._detector.heard(node, now, outputs)
        if bundle.kind == KIND_BROADCAST:
            self._overlay.stray(node, now, outputs)
            if not self._discovery.is_joined:
                self._early.keep(node, bundle)
                return
        self._traffic.on_bundle(node, bundle, now, outputs)

    def _frame_handlers(self) -> dict[type[Frame], Callable[[NodeId, Any, float, list[Output]], None]]:
        detector, overlay, broadcast = self._detector, self._overlay, self._traffic.broadcast
        return {
            Pong: detector.on_pong,
            PingRequest: detector.on_ping_request,
            PingResult: detector.on_ping_result,
            Neighbor: self._on_neighbor,
            NeighborReply: overlay.on_neighbor_reply,
            Disconnect: overlay.on_disconnect,
            IHave: self._on_ihave,
            Graft: broadcast.on_graft,
            Prune: broadcast.on_prune,
            Skipped: self._traffic.on_skipped,
            Update: self._on_update,
            Discover: self._on_discover,
            DiscoveryResponse: self._on_response,
            InterestSeen: self._on_interest_seen,
            Pause: self._on_pause,
            Resume: self._on_pause,
            TrustVersion: self._spreading.on_version,
            Trust: self._on_trust,
        }

    def _on_ihave(self, node: NodeId, frame: IHave, now: float, outputs: list[Output]) -> None:
        if self._discovery.is_joined:
            self._traffic.broadcast.on_ihave(node, frame, now, outputs)
        else:
            self._early.keep(node, frame)

    def _on_joined(self, now: float, outputs: list[Output]) -> None:
        """From here on broadcasts count, and others may know what is wanted here."""
        self._own_interest.flush(now, outputs)
        self._traffic.joined(now)
        for node, item in self._early.take():
            if isinstance(item, IHave):
                self._traffic.broadcast.on_ihave(node, item, now, outputs)
            else:
                self._traffic.on_bundle(node, item, now, outputs)

    def _allows(self, node: NodeId, ask: Ask, cost: float, now: float, outputs: list[Output]) -> bool:
        """Whether a node may have what it asks for, or has asked for more than honest ones do."""
        if self._conduct.allows(node, ask, now, cost):
            return True
        self._conduct.refused["too_often"] += 1
        outputs.append(Misbehaved(node, f"asks too often: {ask.name.lower()}"))
        return False

    def _on_neighbor(self, node: NodeId, frame: Neighbor, now: float, outputs: list[Output]) -> None:
        if self._allows(node, Ask.NEIGHBOR, 1, now, outputs):
            self._overlay.on_neighbor(node, frame, now, outputs)

    def _on_pause(self, node: NodeId, frame: Pause | Resume, now: float, outputs: list[Output]) -> None:
        if not self._allows(node, Ask.PAUSES, 1, now, outputs):
            return
        if isinstance(frame, Pause):
            self._pauses.on_pause(node, frame, now, outputs)
        else:
            self._pauses.on_resume(node, frame, now, outputs)

    def _on_trust(self, node: NodeId, frame: Trust, now: float, outputs: list[Output]) -> None:
        if self._allows(node, Ask.TRUST, 1, now, outputs):
            self._spreading.on_trust(node, frame, now, outputs)

    def _on_update(self, node: NodeId, frame: Update, now: float, outputs: list[Output]) -> None:
        refutations = self._membership.refutations
        self._membership.take(frame.records, frame.claims, node, now, outputs)
        if self._membership.refutations > refutations:
            self._detector.refuted()
        if frame.interest:
            self._interest.take(frame.interest, node, now, outputs)

    def _on_discover(self, node: NodeId, frame: Discover, now: float, outputs: list[Output]) -> None:
        if self._allows(node, Ask.MEMBERS, self._discovery.cost_of(frame), now, outputs):
            self._discovery.on_discover(node, frame, self._traffic.heads, now, outputs)

    def _on_response(self, node: NodeId, frame: DiscoveryResponse, now: float, outputs: list[Output]) -> None:
        was_joined = self._discovery.is_joined
        if not was_joined and self._discovery.is_asked(node):
            # What was broadcast before this node joined is over: a replay of it does not pass.
            for head in frame.heads:
                self._traffic.told_head(head)
        self._discovery.on_response(node, frame, now, outputs)
        if frame.interest:
            self._interest.take(frame.interest, node, now, outputs)
        if self._discovery.is_joined and not was_joined:
            self._on_joined(now, outputs)

    def _on_interest_seen(self, node: NodeId, frame: InterestSeen, now: float, outputs: list[Output]) -> None:
        self._own_interest.acknowledged(node, frame.version, outputs)
