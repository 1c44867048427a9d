"""What people see of the mesh: the answers to clients, and the events. It watches the machine, and moves nothing.

The broker calls `changed` for each `MemberChanged` that comes out of the machine, and `look` when more may have
changed: the own interest has spread further, time has passed, or the turn has ended that `want_turn` asked for.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Protocol

from quicbus.feeds import Feeds
from quicbus.logs import logger_for
from quicbus.wire.frames import PeerEntry
from quicbus_broker.events import (
    BrokerEvent,
    LinkDown,
    LinkUp,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberMoved,
    MemberRecovered,
    MemberRevoked,
    MemberSuspected,
)
from quicbus_broker.mesh.outputs import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.feeds import Feed
    from quicbus_broker.mesh.outputs import MemberChanged, NodeId
    from quicbus_broker.mesh.views import MemberView

__all__ = ["MeshSight", "SeenMesh", "event_of"]

MAX_ADDRESSES = 16
"""Of one member, that clients are told."""


class SeenMesh(Protocol):
    """As much of `mesh.state.Mesh` as is looked at."""

    @property
    def me(self) -> NodeId: ...

    @property
    def is_settled(self) -> bool: ...

    @property
    def interest_version(self) -> int: ...

    @property
    def spread_version(self) -> int: ...

    @property
    def neighbors(self) -> Sequence[NodeId]: ...

    def members(self) -> list[MemberView]: ...


class MeshSight:
    """An `edge.MeshView`. `members_changed` and `want_turn` are called when there is reason to; they return at once.

    `want_turn`: have `Mesh.end_turn` called where something waits for it, and then `look`.
    """

    def __init__(self, mesh: SeenMesh, *, members_changed: Callable[[], None], want_turn: Callable[[], None]) -> None:
        self._mesh = mesh
        self._members_changed = members_changed
        self._want_turn = want_turn
        self._feeds: Feeds[BrokerEvent] = Feeds()
        self._names: dict[NodeId, str] = {}
        self._links: dict[NodeId, None] = {}
        self._unnamed_links: dict[NodeId, None] = {}
        """Of members whose record has not come yet: reported once it has."""
        self._number = count(1)
        self._asked: dict[int, Callable[[int], None]] = {}
        self._spreading: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._log = logger_for("quicbus_broker.mesh", node=mesh.me.hex())

    def events(self) -> Feed[BrokerEvent]:
        """Return the events from now on; they end with `close`."""
        return self._feeds.open()

    def close(self) -> None:
        self._feeds.close()

    # --- what clients ask ---

    def peers(self) -> list[PeerEntry]:
        return [_entry_of(member) for member in self._mesh.members()]

    def when_spread(self, done: Callable[[int], None]) -> Callable[[], object]:
        """What is subscribed to in this turn has its version at the end of it."""
        number = next(self._number)
        self._asked[number] = done
        self._want_turn()
        return lambda: (self._asked.pop(number, None), self._spreading.pop(number, None))

    # --- what the driver tells ---

    def changed(self, change: MemberChanged) -> None:
        """A member changed."""
        if change.node == self._mesh.me:
            return
        self._members_changed()
        self._names[change.node] = change.name
        event = event_of(change)
        if event is not None:
            self.report(event)
        if change.node in self._unnamed_links:
            del self._unnamed_links[change.node]
            self.report(LinkUp(change.node.hex(), change.name))

    def revoked(self, node: NodeId, name: str) -> None:
        """A member was revoked."""
        self._members_changed()
        self._unnamed_links.pop(node, None)
        self.report(MemberRevoked(node.hex(), name))

    def look(self) -> None:
        """See whether links and versions have changed. To be called outside of the machine, after `Mesh.end_turn`."""
        neighbors = self._mesh.neighbors
        if len(neighbors) != len(self._links) or any(node not in self._links for node in neighbors):
            self._links_changed(neighbors)
        if self._asked:
            version = self._mesh.interest_version
            for number, done in self._asked.items():
                self._spreading[number] = (version, done)
            self._asked.clear()
        if self._spreading:
            self._look_for_spread(len(neighbors))

    def _links_changed(self, neighbors: Sequence[NodeId]) -> None:
        before, self._links = self._links, dict.fromkeys(neighbors)
        for node in before:
            if node not in self._links:
                self._link_down(node)
        for node in self._links:
            if node not in before:
                self._link_up(node)
        self._members_changed()

    def _link_up(self, node: NodeId) -> None:
        name = self._names.get(node)
        if name is None:
            self._unnamed_links[node] = None
        else:
            self.report(LinkUp(node.hex(), name))

    def _link_down(self, node: NodeId) -> None:
        if node in self._unnamed_links:
            del self._unnamed_links[node]
        else:
            self.report(LinkDown(node.hex(), self._names.get(node, "")))

    def _look_for_spread(self, links: int) -> None:
        if not self._mesh.is_settled:  # Nobody is linked yet: that would be no spread at all.
            return
        spread = self._mesh.spread_version if links else self._mesh.interest_version
        reached = [number for number, (version, _) in self._spreading.items() if version <= spread]
        for number in reached:
            waiting = self._spreading.pop(number, None)
            if waiting is not None:
                waiting[1](links)

    def report(self, event: BrokerEvent) -> None:
        """Tell people."""
        if isinstance(event, LinkUp | LinkDown):  # the driver has logged what happens to members
            state = "linked" if isinstance(event, LinkUp) else "no longer linked"
            self._log.info("= node %s (%s) is %s", event.name, event.node, state, extra={"peer": event.node})
        self._feeds.put(event)


def event_of(change: MemberChanged) -> BrokerEvent | None:
    """Return what a change of a member means to people; `None` where it means nothing."""
    if change.before == change.after:
        kind: type[BrokerEvent] | None = MemberMoved if change.has_moved else None
    elif change.after is State.SUSPECT:
        kind = MemberSuspected
    elif change.after is State.ALIVE:
        kind = MemberRecovered if change.before in (State.SUSPECT, State.FAILED) else MemberJoined
    elif change.before in (None, State.LEFT):
        kind = None  # one that was gone before it was known here
    else:
        kind = MemberFailed if change.after is State.FAILED else MemberLeft
    return kind(change.node.hex(), change.name) if kind is not None else None


def _entry_of(member: MemberView) -> PeerEntry:
    addresses = member.addresses[:MAX_ADDRESSES]
    return PeerEntry(
        node=member.node.hex(),
        name=member.name,
        url=f"quic://{addresses[0]}" if addresses and member.mode != "client" else "",
        state=member.state.value,
        rtt_ms=None if member.rtt_s is None else round(member.rtt_s * 1000, 3),
        linked=member.is_linked,
        mode=member.mode,
        boot=member.boot,
        addresses=addresses,
        is_self=member.is_me,
    )
