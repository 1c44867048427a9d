"""What becomes of nodes that the trust list revokes: they are told, and then they are members no more.

A revoked node is let in once, to be sent the list: a close code alone, which any member may send, stops nobody. Nothing
is taken from it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import MemberForgotten, MemberRevoked, SelfRevoked, State, UseConnection

if TYPE_CHECKING:
    from quicbus_broker.mesh.members.discovery import Discovery
    from quicbus_broker.mesh.members.membership import Membership
    from quicbus_broker.mesh.members.table import Entry, MemberTable
    from quicbus_broker.mesh.messages.pauses import Pauses
    from quicbus_broker.mesh.messages.traffic import Traffic
    from quicbus_broker.mesh.outputs import ConnectionOpened, NodeId, Output
    from quicbus_broker.mesh.overlay.connections import Connections
    from quicbus_broker.mesh.overlay.overlay import Overlay
    from quicbus_broker.mesh.trust.keeper import TrustKeeper
    from quicbus_broker.mesh.trust.spreading import Spreading

__all__ = ["REVOKED", "Expelling"]

REVOKED = "the key of this node was revoked; make it a new one with `quicbus cert issue --node NAME --out DIR`"


class Expelling:
    def __init__(
        self,
        me: NodeId,
        keeper: TrustKeeper,
        spreading: Spreading,
        table: MemberTable,
        connections: Connections,
        membership: Membership,
        overlay: Overlay,
        discovery: Discovery,
        traffic: Traffic,
        pauses: Pauses,
    ) -> None:
        self._me = me
        self._keeper = keeper
        self._spreading = spreading
        self._table = table
        self._connections = connections
        self._membership = membership
        self._overlay = overlay
        self._discovery = discovery
        self._traffic = traffic
        self._pauses = pauses

    def changed(self, source: NodeId | None, now: float, outputs: list[Output]) -> None:
        """There is a later list, from `source`: pass it on, and go by it."""
        revoked = [node for node in self._known() if self._keeper.is_revoked(node)]
        neighbors = [node for node in self._overlay.neighbors if node not in revoked]
        self._spreading.spread(neighbors, self._traffic.broadcast.eager, source, now, outputs)
        for node in revoked:
            self._expel(node, now, outputs)
        if self._keeper.is_revoked(self._me):
            outputs.append(SelfRevoked())

    def turns_away(self, event: ConnectionOpened, now: float, outputs: list[Output]) -> bool:
        """Whether a node that has connected is revoked; then it is told why, and its connection soon ends."""
        node = event.node
        if not self._keeper.is_revoked(node):
            return False
        outputs.append(UseConnection(node, event.connection))
        self._spreading.tell(node, now, outputs)
        outputs.append(UseConnection(node, None))
        self._connections.condemn(event.connection, CloseCode.CREDENTIAL_REVOKED, REVOKED, now)
        self._overlay.expelled(node, now, outputs)
        return True

    def without_revoked(self, remembered: tuple[tuple[NodeId, str], ...]) -> tuple[tuple[NodeId, str], ...]:
        """Of nodes with addresses return those that may be dialed."""
        return tuple(pair for pair in remembered if not self._keeper.is_revoked(pair[0]))

    def is_refused(self, node: NodeId, now: float) -> bool:
        """Whether a node is to be refused at once: it is revoked, and was told so a short while ago."""
        return self._keeper.is_revoked(node) and self._spreading.was_told(node, now)

    def _known(self) -> list[NodeId]:
        known = dict.fromkeys(self._table.nodes())
        known |= dict.fromkeys(self._connections.connected())
        known.pop(self._me, None)
        return list(known)

    def _expel(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        entry = self._table.get(node)
        tell_at = () if entry is None else self._tell_at(entry)
        if self._connections.is_connected(node):
            self._spreading.tell(node, now, outputs)
            self._connections.expel(node, CloseCode.CREDENTIAL_REVOKED, REVOKED, now, outputs)
        self._spreading.disconnected(node)
        self._pauses.gone(node, outputs)
        self._discovery.disconnected(node)
        self._traffic.unreachable(node)
        self._membership.expel(node)
        self._overlay.expelled(node, now, outputs, tell_at=tell_at)
        if entry is not None:
            outputs.append(MemberRevoked(node, entry.record.name))
            outputs.append(MemberForgotten(node))

    def _tell_at(self, entry: Entry) -> tuple[str, ...]:
        """Return where to dial a node in order to tell it: one that dials nobody, and may be cut off or down now.

        All dial one that has failed, as before. One that is alive is told by those that are connected with it.
        """
        record = entry.record
        if record.mode != "server" or (entry.state is State.ALIVE and not self._connections.is_connected(record.node)):
            return ()
        return record.addresses
