"""What a node shows of its mesh: its members as it sees them, and counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from quicbus_broker.mesh.members.table import Entry
    from quicbus_broker.mesh.messages.traffic import Traffic
    from quicbus_broker.mesh.outputs import NodeId, State

__all__ = ["MemberView", "MeshStatistics", "statistics_of", "view_of"]


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member as this node sees it."""

    node: NodeId
    name: str
    addresses: tuple[str, ...]
    """`HOST:PORT`, best first."""
    state: State
    mode: str
    boot: int
    rtt_s: float | None
    """Measured over the link; `None` without one."""
    is_linked: bool
    is_me: bool


@dataclass(frozen=True, slots=True)
class MeshStatistics:
    """Counters since the start. Bundles hold the batches that one node had for others in one turn of its loop."""

    members: Mapping[str, int]
    """Members by state, this node included."""
    links: int
    connections: int
    """Links, and connections that serve a node directly."""
    sent: int
    """Bundles of this node, counted once for each node that they were sent to."""
    relayed: int
    """Bundles of others, passed on."""
    received: int
    """Bundles that were new."""
    duplicates: int
    repaired: int
    """Bundles that came because they were asked for."""
    dropped: Mapping[str, int]
    """By reason: messages that were sent and not taken, and bundles that were refused (`forged`, `replayed`, ...)."""
    hops_mean: float
    hops_max: int
    lost_in_mesh: int
    """Batches that never came, and were waited for."""
    late: int
    """Messages that came after they had been given up."""
    refutations: int
    """How often this node was suspected and said that it lives."""
    kept: int = 0
    """Bytes of recent bundles, kept for neighbours that ask for them."""
    held: int = 0
    """Bytes of batches that wait for one that is missing before them."""
    shares: int = 0
    """Bytes of shares of groups that were sent to other nodes and may come back."""
    unannounced: int = 0
    """Filters and groups of subscribers here that other nodes are not told of: there are too many."""


def view_of(entry: Entry, rtt_s: float | None, neighbors: Container[NodeId], me: NodeId) -> MemberView:
    record = entry.record
    is_linked = record.node in neighbors
    return MemberView(
        record.node,
        record.name,
        record.addresses,
        entry.state,
        record.mode,
        record.boot,
        rtt_s,
        is_linked,
        record.node == me,
    )


def statistics_of(
    members: Mapping[str, int],
    links: int,
    connections: int,
    traffic: Traffic,
    refused: Counter[str],
    refutations: int,
    unannounced: int,
) -> MeshStatistics:
    broadcast, sequencer = traffic.broadcast.counters, traffic.sequencer.counters
    return MeshStatistics(
        members=dict(members),
        links=links,
        connections=connections,
        sent=broadcast.sent + traffic.sent_direct,
        relayed=broadcast.relayed + traffic.relayed,
        received=broadcast.received + traffic.received_direct,
        duplicates=broadcast.duplicates,
        repaired=broadcast.repaired,
        dropped=dict(Counter(broadcast.dropped) + Counter(sequencer.dropped) + traffic.dropped + refused),
        hops_mean=sequencer.hops_sum / sequencer.delivered if sequencer.delivered else 0.0,
        hops_max=sequencer.hops_max,
        lost_in_mesh=sequencer.lost_in_mesh,
        late=sequencer.late,
        refutations=refutations,
        kept=traffic.broadcast.store.size,
        held=traffic.sequencer.held_size,
        shares=traffic.shares_size,
        unannounced=unannounced,
    )
