"""What a node shows of its mesh: its members as it sees them, and counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quicbus_broker.mesh.outputs import NodeId, State

__all__ = ["MemberView", "MeshStatistics"]


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
