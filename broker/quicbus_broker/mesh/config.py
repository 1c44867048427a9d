"""Times and sizes of the mesh machines, with where they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["MeshConfig", "active_links", "suspicion_timeout_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """Times in seconds, sizes in bytes. All nodes of a mesh should use the same."""

    # Failure detection: SWIM (Das et al., 2002) and Lifeguard (Dadgar et al., 2018).
    probe_interval_s: float = 1.0
    """One neighbour is pinged so often, each in turn: the traffic does not grow with the mesh."""
    probe_timeout_s: float = 0.5
    """How long a Pong may take, unless the measured round trip asks for more."""
    indirect_probes: int = 3
    """Neighbours that are asked to ping one that did not answer."""
    suspicion_multiplier: float = 4.0
    suspicion_max_multiplier: float = 6.0
    """Lifeguard: a suspicion that nobody shares lives this much longer than one that several share."""
    suspicion_confirmations: int = 3
    awareness_max: int = 8
    """Lifeguard: how often a node that is itself late multiplies its own time-outs."""
    self_doubt: bool = True
    """Lifeguard's awareness and long suspicion; off only to measure what they bring."""

    # Overlay: HyParView (Leitao et al., 2007), on a full member table.
    small_mesh: int = 6
    """Up to so many other members every node is linked to every other."""
    max_links_factor: float = 2.0
    """Links that others ask for are taken up to so many times the own target."""
    redial_min_s: float = 0.5
    redial_max_s: float = 30.0
    """Failed members and seeds are dialed for ever, with growing, jittered pauses."""
    dial_timeout_s: float = 5.0
    rotate_interval_s: float = 60.0
    """In a large mesh one link so often is replaced by one to a random member: two merged halves mix."""
    contact_idle_s: float = 60.0
    """A connection that is no link, dialed to serve a node directly, is kept so long without use."""
    max_contacts: int = 64

    # Members.
    gossip_interval_s: float = 0.2
    """News that come faster than this are gathered (memberlist's gossip interval); a lone one goes on at once."""
    discover_interval_s: float = 10.0
    """A random neighbour's table is compared so often."""
    failed_retention_s: float = 24 * 3600.0
    left_retention_s: float = 3600.0

    # Broadcast: PlumTree (Leitao et al., 2007).
    max_hops: int = 32
    announce_interval_s: float = 0.1
    """IHave frames are gathered so long."""
    graft_timeout_s: float = 0.4
    """How long an announced bundle may take to come by itself: an announcement interval and a few round trips."""
    retention_s: float = 30.0
    retention_size: int = 64 * 1024 * 1024
    """Recent bundles are kept to answer Graft."""
    gap_timeout_s: float = 2.0
    """A missing number of a lane is waited for so long."""
    reorder_size: int = 64 * 1024 * 1024
    """Batches that wait for a missing one, of all origins."""

    # Interest.
    direct_max: int = 8
    """Up to so many interested nodes are served directly, others by broadcast."""
    max_interest: int = 10_000
    """Filters that a node announces; more are made coarser."""

    def __post_init__(self) -> None:
        assert self.graft_timeout_s > self.announce_interval_s
        assert self.retention_s > self.gap_timeout_s


def active_links(members: int, small_mesh: int) -> int:
    """Return how many neighbours a node wants in a mesh of so many other members (alive, that can be linked).

    All in a small mesh. log2 n + 2 otherwise: HyParView's fanout of log n keeps a random graph connected when most of
    it fails.
    """
    if members <= small_mesh:
        return members
    return max(small_mesh, math.ceil(math.log2(members + 1)) + 2)


def suspicion_timeout_s(config: MeshConfig, members: int, confirmations: int) -> float:
    """Return how long a suspect may take to refute (Lifeguard, "Dogpile").

    The minimum grows with the time that news take through the mesh; confirmations by others shorten it from the
    maximum towards the minimum, logarithmically.
    """
    minimum = config.suspicion_multiplier * max(1.0, math.log10(max(1, members))) * config.probe_interval_s
    if not config.self_doubt:
        return minimum
    maximum = config.suspicion_max_multiplier * minimum
    share = math.log(confirmations + 1) / math.log(config.suspicion_confirmations + 1)
    return max(minimum, maximum - (maximum - minimum) * share)
