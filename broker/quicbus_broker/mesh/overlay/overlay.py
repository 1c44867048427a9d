"""Which nodes to be linked to: all in a small mesh, a few random ones in a large one, some way to the mesh always.

HyParView on a full member table: the table is the passive view. Members that failed and seeds are dialed for ever, so
that a healed partition merges by itself. All of it costs a node the same however large the mesh is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import ProbeFailed, State
from quicbus_broker.mesh.overlay.avoided import Avoided
from quicbus_broker.mesh.overlay.contacts import Contacts
from quicbus_broker.mesh.overlay.dials import Dials, Purpose
from quicbus_broker.mesh.overlay.links import Links
from quicbus_broker.mesh.overlay.losses import Losses
from quicbus_broker.mesh.overlay.recalled import Recalled
from quicbus_broker.mesh.overlay.redial import redial_pause_s
from quicbus_broker.mesh.overlay.retries import PICK_TRIES, Retries
from quicbus_broker.mesh.overlay.seeds import Seeds
from quicbus_broker.mesh.overlay.targets import Targets

if TYPE_CHECKING:
    from random import Random

    from quicbus.wire.node_frames import Disconnect, Neighbor, NeighborReply
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import Entry, MemberTable
    from quicbus_broker.mesh.outputs import ConnectionOpened, DialFailed, MemberChanged, NodeId, Output
    from quicbus_broker.mesh.overlay.connections import Connections
    from quicbus_broker.mesh.overlay.dials import Attempt

__all__ = ["Overlay"]

_FILL_JITTER_S = 0.1
"""Two nodes that lack a link to each other rarely dial at the same moment then."""

_FILL_DIALS = 4
"""Dials at once to fill up with neighbours: half of a large mesh's target."""

_CUT_OFF_DIALS = 12
"""Likewise without any neighbour left: most of the members may be gone, and each dial to one takes its whole time."""

_CLIENT_LINKS_MAX = 1024
"""Nodes that only dial have nobody else to go to, so they do not count against the links that others ask for."""

_LEAVE_GRACE_S = 5.0
"""A node that has left closes its connections itself; this is for one that did not get that far."""


class Overlay:
    """Says whom to dial and agrees with whom to be neighbours. `neighbors` is for reading only."""

    def __init__(
        self, me: NodeId, mode: str, table: MemberTable, connections: Connections, config: MeshConfig, rng: Random
    ) -> None:
        self._me = me
        self._mode = mode
        self._table = table
        self._connections = connections
        self._config = config
        self._rng = rng
        self._links = Links(connections, rng)
        self.neighbors = self._links.neighbors
        self._contacts = Contacts(config, connections)
        self._dials = Dials(config)
        self._seeds = Seeds(config, rng)
        self._targets = Targets(me, mode, table, config)
        self._retries = Retries(table, self._targets, config, rng)
        self._recalled = Recalled(config)
        self._avoided = Avoided(rng)
        self._losses = Losses(table, self._targets, config, rng)
        self._leaving: dict[NodeId, float] = {}
        self._client_links: dict[NodeId, None] = {}
        self._silent: dict[NodeId, None] = {}
        """Neighbours that may be gone: others are wanted in their place until that is known."""
        self._fill_at = math.inf
        self._fill_pauses = 0
        self._rotate_at = math.inf
        self._is_stopped = False
        self._timers = (
            *(self._seeds.next_timer, self._retries.next_timer, self._links.next_timer),
            *(self._contacts.next_timer, self._dials.next_timer, self._losses.next_timer),
        )

    # --- what happens -------------------------------------------------------------------------------------------------

    def start(
        self, seeds: tuple[str, ...], remembered: tuple[tuple[NodeId, str], ...], now: float, outputs: list[Output]
    ) -> None:
        """Begin to look for the mesh: at the seeds, and at members known from an earlier run."""
        self._rotate_at = now + self._rng.uniform(0.5, 1.5) * self._config.rotate_interval_s
        if self._mode == "server":
            return
        for address in seeds:
            self._seeds.add(address, now)
        for node, address in remembered:
            if node != self._me:
                self._recalled.remember(node, address)
                self._retries.soon(node, now)
        self._dial_seeds(now, outputs)
        self._fill_soon(now)

    def adopt(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """Take a connected node as neighbour that knows already that it is one (a simulation that begins linked)."""
        if self._rotate_at == math.inf:
            self._rotate_at = now + self._rng.uniform(0.5, 1.5) * self._config.rotate_interval_s
        self._up(node, now, outputs, grants=False)

    def stop(self) -> None:
        """This node leaves: from now on it dials nobody and grants nothing."""
        self._is_stopped = True
        self._seeds.clear()
        self._retries.clear()
        self._losses.clear()
        self._fill_at = self._rotate_at = math.inf

    def connected(self, event: ConnectionOpened, now: float, outputs: list[Output]) -> None:
        """`Connections.opened` has taken the event already."""
        node = event.node
        if node == self._me:
            # One of the seeds is this node: quite normal where all nodes have the same list.
            self._seeds.forget(event.address)
            self._dials.opened(node, event.address, is_dialer=event.is_dialer)
            return
        if self._connections.node_of(event.connection) is None:
            return
        purpose = self._dials.opened(node, event.address, is_dialer=event.is_dialer)
        if event.is_dialer:
            self._seeds.found(event.address, node)
        self._retries.forget(node)
        self._losses.connected(node)
        if node in self.neighbors:
            if self._links.boot_of(node) == event.boot:
                return
            self._down(node, now, outputs, is_lost=False)
        if node in self._links.asked:
            self._links.ask_again(node, now, outputs)
            return
        self._contacts.add(node, now, outputs)
        if purpose is not None and self._is_link_wanted(purpose):
            self._ask(node, now, outputs, is_spare=purpose is Purpose.SPARE)
        elif self._lacking() > 0:
            self._fill_soon(now, self._config.redial_min_s)

    def disconnected(self, node: NodeId, is_clean: bool, now: float, outputs: list[Output]) -> None:
        """The last connection with the node is closed."""
        self._contacts.remove(node)
        self._leaving.pop(node, None)
        was_asked = node in self._links.asked
        was_neighbor = self._down(node, now, outputs, is_lost=not is_clean)
        if was_neighbor and not is_clean and not self._is_stopped:
            self._losses.lose(node, now)
        if was_neighbor or was_asked:
            self._fill_soon(now)
        if (not self.neighbors or node not in self._table) and not self._is_stopped:
            # It may have been the only way to the mesh, lost before it became a link, or a member known to nobody.
            self._seeds.gone(node, now)
            if self._recalled.addresses(node, now) and node not in self._table:
                self._retries.failed(node, now)

    def dial_failed(self, event: DialFailed, now: float, outputs: list[Output]) -> None:
        if event.is_self:
            self._seeds.forget(event.address)
        attempt = self._dials.failed(event, now, outputs)
        if attempt is not None:
            self._give_up(attempt, event.is_final, now, outputs)

    def on_neighbor(self, node: NodeId, frame: Neighbor, now: float, outputs: list[Output]) -> None:
        is_known = node in self.neighbors or node in self._links.asked
        if self._is_stopped or self._has_left(node) or not (is_known or frame.urgent or self._has_room(node)):
            self._links.refuse(node, outputs)
            return
        self._up(node, now, outputs, grants=True)
        self._drop_surplus(node, self._targets.accepted(), now, outputs)

    def on_neighbor_reply(self, node: NodeId, frame: NeighborReply, now: float, outputs: list[Output]) -> None:
        ask = self._links.asked.get(node)
        if not frame.granted:
            self.on_disconnect(node, frame, now, outputs)
        elif ask is not None:
            self._up(node, now, outputs, grants=False)
            self._drop_surplus(node, self._targets.wanted() if ask.is_spare else self._targets.accepted(), now, outputs)
        elif node not in self.neighbors:
            self._links.on_unasked_grant(node, outputs)

    def on_disconnect(self, node: NodeId, frame: Disconnect | NeighborReply, now: float, outputs: list[Output]) -> None:
        was_asked = node in self._links.asked
        if self._down(node, now, outputs, is_lost=False) or was_asked:
            self._avoided.add(node, now)
            self._contacts.add(node, now, outputs)
            self._fill_soon(now)

    def silent(self, node: NodeId, is_silent: bool, now: float) -> None:
        """A neighbour says nothing at the moment, or something again."""
        if not is_silent:
            self._silent.pop(node, None)
        elif node in self.neighbors and node not in self._client_links:
            self._silent[node] = None
            self._fill_soon(now)
            if self._is_cut_off():
                self._seeds.hurry(now)

    def stray(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """Something came that only neighbours send (IHave, Graft, Prune, a broadcast): tell the node if it is none."""
        self._links.stray(node, now, outputs)

    def member_changed(self, change: MemberChanged, now: float, outputs: list[Output]) -> None:
        node = change.node
        self._targets.changed()
        if node == self._me:
            return
        if change.has_moved:
            self._losses.moved(node)
            self._avoided.forget(node)
            self._retries.forget(node)
        match change.after:
            case State.FAILED:
                self._gone(node, now, outputs)
                self._connections.close(node, CloseCode.STALLED, "taken for failed: it did not answer", outputs)
                if not self._is_stopped and self._mode != "server":
                    self._retries.failed(node, now)
            case State.LEFT:
                self._gone(node, now, outputs)
                self._retries.forget(node)
                if self._connections.is_connected(node):
                    self._leaving[node] = now + _LEAVE_GRACE_S
            case State.ALIVE:
                self._leaving.pop(node, None)
                if node in self.neighbors:
                    self._note_mode(node)
                if change.before is not State.SUSPECT:
                    self._fill_pauses = 0
                if change.before is State.FAILED:
                    self._retries.forget(node)
                    if not self._connections.is_connected(node):
                        self._losses.refuted(node)
                self._fill_soon(now)

    def expelled(self, node: NodeId, now: float, outputs: list[Output], *, tell_at: tuple[str, ...] = ()) -> None:
        """The node was revoked: it is no member, and is not looked for, but to be told where it may be dialed."""
        self._targets.changed()
        self._gone(node, now, outputs)
        self._retries.forget(node)
        self._recalled.forget(node)
        self._leaving.pop(node, None)
        if tell_at:
            self._recalled.tell(node, tell_at, now)
            self._retries.failed(node, now)

    def renewed(self, now: float) -> None:
        """The own certificate is another one: whoever refused the old one may take this."""
        if not self._is_stopped and self._is_cut_off():
            self._seeds.hurry(now)
            self._retries.hurry(now)
            self._fill_soon(now)

    def want_contact(self, node: NodeId, now: float, outputs: list[Output]) -> bool:
        """Connect to a node in order to serve it directly; False where it cannot be dialed from here.

        When True it is connected, or `connected` or `dial_failed` will follow.
        """
        if self._connections.is_connected(node):
            self.touch(node, now)
            return True
        if node in self._dials:
            return True
        if self._dials.count(Purpose.CONTACT) >= self._config.max_contacts or self._retries.is_waiting(node):
            return False
        return self._dial(node, Purpose.CONTACT, now, outputs)

    def touch(self, node: NodeId, now: float) -> None:
        """Direct traffic went to or came from the node."""
        self._contacts.touch(node, now)

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        timer = min(self._leaving.values()) if self._leaving else math.inf
        for other in self._timers:
            due = other()
            if due < timer:
                timer = due
        timer = timer if timer < self._fill_at else self._fill_at
        return timer if timer < self._rotate_at else self._rotate_at

    def tick(self, now: float, outputs: list[Output]) -> None:
        for attempt in self._dials.pop_overdue(now):
            self._give_up(attempt, False, now, outputs)
        for node in self._links.tick(now, outputs):
            self._avoided.add(node, now)
            self._fill_soon(now)
        self._contacts.tick(now, outputs)
        self._tick_departures(now, outputs)
        self._dial_seeds(now, outputs)
        if now >= self._retries.next_timer():
            self._dial_member(now, outputs)
        if now >= self._fill_at:
            self._fill(now, outputs)
        if now >= self._rotate_at:
            self._rotate(now, outputs)

    def _tick_departures(self, now: float, outputs: list[Output]) -> None:
        for node in self._losses.due(now):
            if not self._dial(node, Purpose.LINK, now, outputs) and self._losses.undialable(node):
                outputs.append(ProbeFailed(node))
        for node in [node for node, due in self._leaving.items() if due <= now]:
            del self._leaving[node]
            self._contacts.remove(node)
            self._connections.close(node, CloseCode.GOODBYE, "it has left", outputs)

    # --- links --------------------------------------------------------------------------------------------------------

    def _ask(self, node: NodeId, now: float, outputs: list[Output], *, is_spare: bool = False) -> None:
        self._links.ask(node, now, outputs, urgent=self._is_cut_off(), is_spare=is_spare)

    def _up(self, node: NodeId, now: float, outputs: list[Output], *, grants: bool) -> None:
        if grants:
            self._links.grant(node, now, outputs)
        else:
            self._links.up(node, now, outputs)
        self._contacts.remove(node)
        self._leaving.pop(node, None)
        self._avoided.forget(node)
        self._fill_pauses = 0
        self._note_mode(node)
        # While four were being dialed, no more were; now there is room for the next.
        if self._lacking() > 0:
            self._fill_soon(now)

    def _down(self, node: NodeId, now: float, outputs: list[Output], *, is_lost: bool) -> bool:
        self._client_links.pop(node, None)
        self._silent.pop(node, None)
        was_neighbor = self._links.down(node, outputs, is_lost=is_lost)
        if was_neighbor and self._is_cut_off() and not self._is_stopped:
            self._seeds.hurry(now)
        return was_neighbor

    def _gone(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """The member has failed or left."""
        self._down(node, now, outputs, is_lost=False)
        self._contacts.remove(node)
        self._losses.forget(node)
        if not self._is_stopped:
            self._seeds.gone(node, now)
        self._fill_soon(now)

    def _drop_surplus(self, kept: NodeId, limit: int, now: float, outputs: list[Output]) -> None:
        while self._backbone() > limit:
            others = [node for node in self.neighbors if node != kept and node not in self._client_links]
            if not others:
                return
            node = self._rng.choice(others)
            self._links.drop(node, outputs)
            self._contacts.add(node, now, outputs)
            self._avoided.add(node, now)

    def _rotate(self, now: float, outputs: list[Output]) -> None:
        """Exchange one link: HyParView's shuffle does this for its passive view; here two merged halves mix by it."""
        self._rotate_at = now + self._rng.uniform(0.75, 1.25) * self._config.rotate_interval_s
        target = self._targets.wanted()
        if not self._targets.is_large() or self._backbone() < target:
            return
        if self._backbone() > target:
            self._drop_surplus(b"", self._backbone() - 1, now, outputs)
        elif (node := self._candidate(now)) is not None:
            self._approach(node, Purpose.SPARE, now, outputs)

    def _fill(self, now: float, outputs: list[Output]) -> None:
        self._fill_at = math.inf
        lacking = self._lacking()
        most = _CUT_OFF_DIALS if self._is_cut_off() else _FILL_DIALS
        while lacking > 0 and self._dials.count(Purpose.LINK) < most:
            node = self._candidate(now)
            if node is None:
                self._fill_pauses += 1
                self._fill_at = now + redial_pause_s(self._config, self._fill_pauses, self._rng)
                return
            self._approach(node, Purpose.LINK, now, outputs)
            lacking -= 1

    def _fill_soon(self, now: float, spread_s: float = _FILL_JITTER_S) -> None:
        if not self._is_stopped and self._fill_at > now + spread_s:
            self._fill_at = now + self._rng.uniform(0.0, spread_s)

    def _candidate(self, now: float) -> NodeId | None:
        """Return a random member to be linked to that is no neighbour and on which nothing is waiting."""

        def is_candidate(entry: Entry) -> bool:
            node = entry.record.node
            if entry.state is not State.ALIVE or entry.record.mode == "client" or node == self._me:
                return False
            if node in self.neighbors or node in self._links.asked or self._avoided.has(node, now):
                return False
            if self._connections.is_connected(node):
                return True
            return self._targets.can_dial(entry) and node not in self._dials and not self._retries.is_waiting(node)

        return self._table.pick(self._rng, is_candidate, PICK_TRIES)

    def _approach(self, node: NodeId, purpose: Purpose, now: float, outputs: list[Output]) -> None:
        if self._connections.is_connected(node):
            self._ask(node, now, outputs, is_spare=purpose is Purpose.SPARE)
        else:
            self._dial(node, purpose, now, outputs)

    # --- how many -----------------------------------------------------------------------------------------------------

    def _is_cut_off(self) -> bool:
        """Whether there is no neighbour that says anything."""
        return len(self.neighbors) <= len(self._silent)

    def _backbone(self) -> int:
        return len(self.neighbors) - len(self._client_links)

    def _lacking(self) -> int:
        sure = self._backbone() - len(self._silent)
        return self._targets.wanted() - sure - len(self._links.asked) - self._dials.count(Purpose.LINK)

    def _has_room(self, node: NodeId) -> bool:
        entry = self._table.get(node)
        if entry is not None and entry.record.mode == "client":
            return len(self._client_links) < _CLIENT_LINKS_MAX
        return self._backbone() < self._targets.accepted()

    def _has_left(self, node: NodeId) -> bool:
        """A process that has left asks for nothing any more: that frame was under way. A later boot is welcome."""
        entry = self._table.get(node)
        return entry is not None and entry.state is State.LEFT and entry.record.boot == self._connections.boot_of(node)

    def _is_link_wanted(self, purpose: Purpose) -> bool:
        if self._is_stopped:
            return False
        if self._is_cut_off() or purpose is Purpose.SPARE:
            return True
        if purpose is Purpose.BRIDGE:
            return self._backbone() < self._targets.accepted()
        return purpose is Purpose.LINK and self._lacking() > 0

    def _note_mode(self, node: NodeId) -> None:
        entry = self._table.get(node)
        if entry is not None and entry.record.mode == "client":
            self._client_links[node] = None
        else:
            self._client_links.pop(node, None)

    # --- dialing ------------------------------------------------------------------------------------------------------

    def _dial(self, node: NodeId, purpose: Purpose, now: float, outputs: list[Output]) -> bool:
        """Return whether it is being dialed now."""
        if self._is_stopped or self._mode == "server":
            return False
        entry = self._table.get(node)
        if entry is None:
            addresses = self._recalled.addresses(node, now)
        else:
            addresses = entry.record.addresses if self._targets.can_dial(entry) else ()
        if addresses:
            self._dials.begin(node, addresses, purpose, now, outputs)
        return bool(addresses)

    def _dial_seeds(self, now: float, outputs: list[Output]) -> None:
        while (address := self._seeds.pop_due(now)) is not None:
            if address not in self._dials:
                self._dials.begin(None, (address,), Purpose.BRIDGE, now, outputs)

    def _dial_member(self, now: float, outputs: list[Output]) -> None:
        node = self._retries.pop_due(now)
        if node is None or node in self._dials:
            return
        if self._is_worth(node, now) and self._dial(node, Purpose.BRIDGE, now, outputs):
            self._retries.pace(now, is_isolated=self._is_cut_off())
        else:
            self._retries.forget(node)

    def _is_worth(self, node: NodeId, now: float) -> bool:
        if self._connections.is_connected(node):
            return False
        entry = self._table.get(node)
        if entry is None or entry.state is State.LEFT:
            return entry is None and bool(self._recalled.addresses(node, now))
        return entry.state is State.FAILED or self._lacking() > 0 or self._is_cut_off()

    def _give_up(self, attempt: Attempt, is_final: bool, now: float, outputs: list[Output]) -> None:
        """All addresses failed."""
        node = attempt.node
        self._fill_soon(now)
        if node is None:
            self._seeds.failed(attempt.addresses[0], now, is_final=is_final)
            return
        if self._is_stopped or self._connections.is_connected(node):
            return
        self._retries.failed(node, now, is_final=is_final)
        is_late = self._dials.is_late(attempt, now)
        if self._losses.unreached(node, is_final=is_final, is_late=is_late, is_isolated=self._is_cut_off()):
            outputs.append(ProbeFailed(node))
