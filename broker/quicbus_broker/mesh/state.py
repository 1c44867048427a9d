"""The mesh machine of one node: joins members, links, health, broadcast and interest, which do not know each other.

Pure: what happens goes in with the time, what is to be done comes out. The driver performs it; the simulator runs
thousands of these in one process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast, get_args

from quicbus.wire.close_codes import CloseCode
from quicbus.wire.node_frames import (
    Update,
)
from quicbus_broker.mesh.conduct import Conduct
from quicbus_broker.mesh.health.detector import Detector
from quicbus_broker.mesh.health.orphans import Orphans
from quicbus_broker.mesh.interest.forwarding import Forwarding
from quicbus_broker.mesh.interest.interest_table import InterestTable
from quicbus_broker.mesh.interest.own_interest import OwnInterest
from quicbus_broker.mesh.members.discovery import Discovery
from quicbus_broker.mesh.members.gossip import Gossip
from quicbus_broker.mesh.members.membership import Membership
from quicbus_broker.mesh.members.table import MemberTable
from quicbus_broker.mesh.messages.pauses import Pauses
from quicbus_broker.mesh.messages.traffic import Publication, Traffic, Ways
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    FrameArrived,
    Internal,
    LinkSilent,
    MemberChanged,
    MemberForgotten,
    Misbehaved,
    NeighborDown,
    NeighborUp,
    NewsLearned,
    ProbeAnswered,
    ProbeFailed,
    SendFrame,
    State,
    TrustChanged,
    UseConnection,
)
from quicbus_broker.mesh.overlay.connections import Connections
from quicbus_broker.mesh.overlay.overlay import Overlay
from quicbus_broker.mesh.reception import Reception
from quicbus_broker.mesh.trust.expelling import Expelling
from quicbus_broker.mesh.trust.keeper import NoTrust
from quicbus_broker.mesh.trust.spreading import Spreading
from quicbus_broker.mesh.views import MemberView, MeshStatistics, statistics_of, view_of

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from quicbus.wire.bundles import BundleBatch
    from quicbus.wire.node_frames import Signed
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.interest.interest_table import InterestBase
    from quicbus_broker.mesh.members.table import TableBase
    from quicbus_broker.mesh.outputs import MeshInput, MeshOutput, NodeId, Output
    from quicbus_broker.mesh.signing import Signing
    from quicbus_broker.mesh.trust.keeper import TrustKeeper

__all__ = ["Mesh", "Publication"]

MAX_VIA = 4
_INTERNAL = frozenset(get_args(Internal))
"""Asked for every output: a look-up costs a tenth of `isinstance` with all of these."""


class Mesh:
    """One node of a mesh. `now` is monotonic, in seconds, the same clock in every call."""

    def __init__(
        self,
        *,
        me: NodeId,
        name: str,
        boot: int,
        mode: str,
        signing: Signing,
        config: MeshConfig,
        rng: random.Random,
        base: TableBase | None = None,
        interest: InterestBase | None = None,
        trust: TrustKeeper | None = None,
    ) -> None:
        """`base` and `interest`: a start that many machines of one process share."""
        self.me = me
        self.name = name
        self.boot = boot
        self.mode = mode
        self._table = MemberTable(base)
        conduct = Conduct(self._table.__len__)
        self._connections = Connections(me)
        self._membership = Membership(
            me, self._table, signing, config, rng, is_connected=self._connections.is_connected, conduct=conduct
        )
        self._gossip = Gossip(config.gossip_interval_s)
        self._overlay = Overlay(me, mode, self._table, self._connections, config, rng)
        self._detector = Detector(me, config, rng, self._connections.is_connected)
        self._own_interest = OwnInterest(me, boot, signing, config, self._table)
        self._interest = InterestTable(me, signing, self._table, interest)
        self._discovery = Discovery(me, self._table, self._membership, config, rng, self._interest_since)
        self._orphans = Orphans(me, self._table, self._connections, config, rng)
        self._forwarding = Forwarding(me, self._table, self._interest, config, rng, self._detector.rtt_s)
        self.plan = self._forwarding.plan
        """Return who elsewhere gets a topic; groups (name, filter) with members here keep their share. Every batch
        asks: a call less."""
        ways = Ways(
            self._connections.is_connected, self._overlay.want_contact, self._overlay.touch, lambda: self.neighbors
        )
        self._traffic = Traffic(me, boot, self._table, ways, signing, config, rng)
        self._conduct = conduct
        self._pauses = Pauses(self._interest.blocks)
        self._spreading = Spreading(trust or NoTrust())
        self._expelling = Expelling(
            me,
            trust or NoTrust(),
            self._spreading,
            self._table,
            self._connections,
            self._membership,
            self._overlay,
            self._discovery,
            self._traffic,
            self._pauses,
        )
        # Asked for after every event: half of what an idle node does.
        self._timers = (
            *(self._connections.next_timer, self._membership.next_timer, self._detector.next_timer),
            *(self._overlay.next_timer, self._traffic.next_timer, self._discovery.next_timer),
            self._orphans.next_timer,
        )
        self._reception = Reception(
            self._membership,
            self._discovery,
            self._overlay,
            self._detector,
            self._traffic,
            self._interest,
            self._own_interest,
            self._pauses,
            self._spreading,
            conduct,
        )

    # --- what the driver calls ---

    def start(
        self,
        *,
        addresses: tuple[str, ...],
        seeds: tuple[str, ...],
        remembered: tuple[tuple[NodeId, str], ...],
        now: float,
    ) -> list[MeshOutput]:
        """Begin: say who this node is, and look for the mesh. Without seeds it is one from the start."""
        outputs: list[Output] = []
        self._membership.start(self.name, self.boot, self.mode, addresses, now, outputs)
        self._discovery.start(now, is_alone=not seeds and not remembered)
        self._orphans.start(now)
        self._overlay.start(seeds, self._expelling.without_revoked(remembered), now, outputs)
        return self._settle(outputs, now)

    def start_linked(self, neighbors: Sequence[tuple[NodeId, int, int]], now: float) -> list[MeshOutput]:
        """Begin in the middle of a mesh that stands, with the record in the shared table: a simulation's start.

        `neighbors`: node, connection and boot; they know this node as theirs likewise.
        """
        outputs: list[Output] = []
        self._membership.start(self.name, self.boot, self.mode, (), now, outputs)
        self._discovery.start(now, is_alone=True)
        self._orphans.start(now)
        for node, connection, boot in neighbors:
            opened = ConnectionOpened(connection, node, boot, self.me < node, "")
            self._connections.opened(opened, now, outputs)
            self._overlay.adopt(node, now, outputs)
        return self._settle(outputs, now)

    def handle(self, event: MeshInput, now: float) -> list[MeshOutput]:
        """Take what happened; returns what is to be done, in this order."""
        outputs: list[Output] = []
        if isinstance(event, FrameArrived):
            node = self._connections.node_of(event.connection)
            if node is not None:
                self._reception.take_frame(node, event.frame, now, outputs)
        elif isinstance(event, BundleArrived):
            node = self._connections.node_of(event.connection)
            if node is not None:
                self._connections.heard(event.connection, now)
                self._reception.take_bundle(node, event.bundle, now, outputs)
        elif isinstance(event, ConnectionOpened):
            self._on_opened(event, now, outputs)
        elif isinstance(event, ConnectionClosed):
            self._on_closed(event, now, outputs)
        else:
            self._on_dial_failed(event, now, outputs)
        return self._settle(outputs, now)

    def tick(self, now: float) -> list[MeshOutput]:
        """Let time pass. Call it at `next_timer()`, or a little later."""
        outputs: list[Output] = []
        for part in (self._connections, self._membership, self._detector, self._overlay, self._traffic):
            if now >= part.next_timer():
                part.tick(now, outputs)
        if now >= self._discovery.next_timer():
            self._discovery.tick(now, self._overlay.neighbors, outputs)
            self._spreading.remind(self._overlay.neighbors, outputs)
            self._pauses.sweep(now, outputs)
            self._traffic.sweep(now)
        if now >= self._orphans.next_timer():
            self._orphans.tick(now, self._overlay.neighbors, outputs)
        return self._settle(outputs, now)

    def next_timer(self) -> float:
        """Return when `tick` has something to do; infinite when nothing will."""
        timer = self._gossip.next_timer()
        for other in self._timers:
            due = other()
            if due < timer:
                timer = due
        return timer

    def publish(self, publication: Publication, now: float) -> list[MeshOutput]:
        """Send a batch of a client. What is broadcast leaves with `end_turn`."""
        outputs: list[Output] = []
        self._traffic.publish(publication, now, outputs)
        return self._settle(outputs, now)

    def end_turn(self, now: float) -> list[MeshOutput]:
        """Seal what the turn brought: at most one bundle, and one difference of the own interest."""
        outputs: list[Output] = []
        if self.is_joined:
            self._own_interest.flush(now, outputs)
        self._traffic.seal(now, outputs)
        return self._settle(outputs, now)

    @property
    def wants_turn(self) -> bool:
        """Whether `end_turn` left something to do for the next turn: what follows from a filter may take long."""
        return self.is_joined and self._own_interest.is_busy

    def add_interest(self, filter: str, group: str, blocks: bool) -> None:
        """Somebody here subscribes; told to others with `end_turn`."""
        self._own_interest.add(filter, group, blocks)

    def discard_interest(self, filter: str, group: str, blocks: bool) -> None:
        self._own_interest.discard(filter, group, blocks)

    def pause(self, origin: NodeId, filter: str, is_paused: bool, now: float) -> list[MeshOutput]:
        """Ask the origin of too many messages to hold its publishers back, or to let them go."""
        outputs: list[Output] = []
        self._pauses.want(origin, filter, is_paused, outputs)
        if is_paused and not self._connections.is_connected(origin):
            self._overlay.want_contact(origin, now, outputs)
        return self._settle(outputs, now)

    def give_back(self, origin: NodeId, batch: BundleBatch, age_ms: int, now: float) -> list[MeshOutput]:
        """Return the share of a group that has no member here to its origin."""
        outputs: list[Output] = []
        if not self._traffic.give_back(origin, batch, age_ms, outputs):
            self._conduct.refused["no_member"] += 1
        return self._settle(outputs, now)

    def send_share(
        self, publication: Publication, node: NodeId, group: str, filter: str, now: float
    ) -> list[MeshOutput]:
        """Send a batch that came back to a group's member elsewhere."""
        outputs: list[Output] = []
        self._traffic.send_share(publication, node, group, filter, now, outputs)
        return self._settle(outputs, now)

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> list[MeshOutput]:
        """Where this node may be dialed has changed."""
        outputs: list[Output] = []
        self._membership.set_addresses(addresses, now, outputs)
        return self._settle(outputs, now)

    def renewed(self, now: float) -> list[MeshOutput]:
        """The own certificate was renewed: others are shown it, for they believe no record beyond its certificate."""
        outputs: list[Output] = []
        self._membership.renewed(now, outputs)
        self._overlay.renewed(now)
        return self._settle(outputs, now)

    def trust_changed(self, now: float) -> list[MeshOutput]:
        """The keeper of the trust list has a later one, from elsewhere than the mesh: go by it, and pass it on."""
        return self._settle([TrustChanged(None)], now)

    def leave(self, now: float) -> list[MeshOutput]:
        """Tell the mesh that this node leaves by itself; the driver then closes the connections."""
        outputs: list[Output] = []
        self._membership.leave(now, outputs)
        self._overlay.stop()
        return self._settle(outputs, now)

    # --- what it is ---

    @property
    def is_joined(self) -> bool:
        """Whether the first full exchange with the mesh is done."""
        return self._discovery.is_joined

    @property
    def is_settled(self) -> bool:
        """Whether what this node knows of the mesh is all there is to know now: it has joined, or nobody answers."""
        return self._discovery.is_joined or self._discovery.is_on_its_own

    @property
    def interest_version(self) -> int:
        return self._own_interest.version

    @property
    def spread_version(self) -> int:
        """The version of the own interest that all neighbours know."""
        return self._own_interest.spread_version

    @property
    def neighbors(self) -> Sequence[NodeId]:
        return tuple(self._overlay.neighbors)

    def is_refused(self, node: NodeId, now: float) -> bool:
        """Whether a node is to be refused at once: it is revoked, and was told so a short while ago."""
        return self._expelling.is_refused(node, now)

    def members(self) -> list[MemberView]:
        """Return all members, by id. Costs a step for each."""
        entries = [self._table.get(node) for node in self._table.nodes()]
        return [
            view_of(entry, self._detector.rtt_s(entry.record.node), self._overlay.neighbors, self.me)
            for entry in entries
            if entry is not None
        ]

    def statistics(self) -> MeshStatistics:
        """Return the counters as they are. Costs a step per member."""
        return statistics_of(
            Counter(state.value for state in self._table.states()),
            len(self._overlay.neighbors),
            len(self._connections.connected()),
            self._traffic,
            self._conduct.refused + self._pauses.dropped + self._interest.dropped,
            self._membership.refutations,
            self._own_interest.unannounced,
        )

    # --- connections ---

    def _on_opened(self, event: ConnectionOpened, now: float, outputs: list[Output]) -> None:
        node = event.node
        if self._expelling.turns_away(event, now, outputs):
            return
        self._tell_of_later_boot(event, outputs)
        is_new = self._connections.opened(event, now, outputs)
        self._membership.connected(node, event.boot, now, outputs)
        self._overlay.connected(event, now, outputs)
        if not is_new:
            return
        self._discovery.connected(node, now, outputs)
        self._traffic.connected(node, now, outputs)
        self._pauses.connected(node, outputs)
        self._spreading.connected(node, outputs)

    def _tell_of_later_boot(self, event: ConnectionOpened, outputs: list[Output]) -> None:
        """Where a later boot of the node is connected, show the earlier one its record: it must stop."""
        boot, entry = self._connections.boot_of(event.node), self._table.get(event.node)
        if boot is not None and entry is not None and event.boot < boot == entry.record.boot:
            outputs.append(UseConnection(event.node, event.connection))
            outputs.append(SendFrame(event.node, Update(records=(entry.signed,))))
            outputs.append(UseConnection(event.node, self._connections.in_use(event.node)))

    def _on_closed(self, event: ConnectionClosed, now: float, outputs: list[Output]) -> None:
        node, was_last = self._connections.closed(event.connection, outputs)
        if node is None or not was_last:
            return
        self._pauses.gone(node, outputs)
        self._overlay.disconnected(node, event.is_clean, now, outputs)
        self._discovery.disconnected(node)
        self._spreading.disconnected(node)

    def _on_dial_failed(self, event: DialFailed, now: float, outputs: list[Output]) -> None:
        self._overlay.dial_failed(event, now, outputs)
        node = event.node
        if node is None or self._connections.is_connected(node):
            return
        self._traffic.unreachable(node)

    def _interest_since(self, node: NodeId, boot: int, version: int) -> tuple[Signed, ...]:
        source = self._own_interest if node == self.me else self._interest
        return source.since(node, boot, version)

    # --- what the parts tell each other ---

    def _settle(self, outputs: list[Output], now: float) -> list[MeshOutput]:
        """Let the parts hear of each other until nothing is left to tell; return what is for the driver."""
        outside: list[MeshOutput] = []
        index = 0
        while True:
            while index < len(outputs):
                output = outputs[index]
                index += 1
                if type(output) in _INTERNAL:
                    self._tell(cast("Internal", output), now, outputs)
                    continue
                if isinstance(output, MemberChanged):
                    self._on_member_changed(output, now, outputs)
                outside.append(output)  # type: ignore[arg-type]  # not Internal, as was asked above
            if now < self._gossip.next_timer():
                return outside
            self._gossip.flush(now, self._overlay.neighbors, self._traffic.broadcast.eager, outputs)

    def _tell(self, output: Internal, now: float, outputs: list[Output]) -> None:
        match output:
            case NewsLearned():
                self._gossip.learned(output)
            case NeighborUp(node=node):
                self._detector.neighbor_up(node, now)
                self._traffic.broadcast.neighbor_up(node)
                self._own_interest.neighbor_up(node)
                own = self._own_interest.since(self.me, self.boot, 0)
                outputs.append(SendFrame(node, Update(records=(self._membership.own_signed,), interest=own)))
                self._choose_via(now, outputs)
            case NeighborDown(node=node):
                self._detector.neighbor_down(node)
                self._traffic.broadcast.neighbor_down(node)
                self._own_interest.neighbor_down(node, outputs)
                self._choose_via(now, outputs)
            case LinkSilent(node=node, is_silent=is_silent):
                self._overlay.silent(node, is_silent, now)
            case ProbeFailed(node=node):
                self._membership.suspect(node, now, outputs)
            case ProbeAnswered(node=node):
                self._membership.alive_seen(node, now, outputs)
            case MemberForgotten(node=node):
                self._conduct.forget(node)
                self._interest.forget(node)
                self._traffic.forget(node)
            case TrustChanged(source=source):
                self._expelling.changed(source, now, outputs)
            case Misbehaved(node=node, why=why):
                self._on_misbehaved(node, why, now, outputs)

    def _choose_via(self, now: float, outputs: list[Output]) -> None:
        """A node that cannot be dialed tells through whom it is reached; it changes that as little as it can."""
        if self.mode != "client":
            return
        neighbors = self._overlay.neighbors
        via = [node for node in self._membership.own.via if node in neighbors]
        via += [node for node in neighbors if node not in via][: max(0, MAX_VIA - len(via))]
        self._membership.set_via(tuple(via), now, outputs)

    def _on_member_changed(self, change: MemberChanged, now: float, outputs: list[Output]) -> None:
        if change.node == self.me:
            return
        self._overlay.member_changed(change, now, outputs)
        if change.after in (State.FAILED, State.LEFT):
            self._interest.member_gone(change.node)
            self._traffic.member_gone(change.node)
            self._pauses.gone(change.node, outputs)
        elif change.before in (State.FAILED, State.LEFT):
            self._interest.member_back(change.node)
        elif change.has_moved:
            self._interest.member_moved(change.node)

    def _on_misbehaved(self, node: NodeId, why: str, now: float, outputs: list[Output]) -> None:
        reason = self._conduct.offended(node, why, now)
        if reason:
            outputs.extend(
                CloseConnection(connection, CloseCode.PROTOCOL_VIOLATION, reason)
                for connection in self._connections.connections_of(node)
            )
