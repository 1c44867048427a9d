"""How other nodes behave: what no honest one does is counted, and what is dear to answer is answered so often.

The bounds are several times what honest nodes do when the mesh is at its worst. They grow with the mesh, as what a node
has to ask does.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["MAX_OFFENCES", "OFFENCE_MEMORY_S", "Allowance", "Ask", "Bucket", "Conduct"]

MAX_OFFENCES = 8
"""Forged or replayed things that a peer may send before its connection is closed: an honest one sends none."""
OFFENCE_MEMORY_S = 600.0
"""After so long without another one they are forgotten: what happens once an hour is a rare race, no attack."""


class Allowance(msgspec.Struct, frozen=True):
    """So much at once, and so much a second after that; each with so much more for every member of the mesh."""

    burst: float
    per_s: float
    burst_by_member: float = 0.0
    per_s_by_member: float = 0.0


class Ask(Enum):
    """What one node may have of another, and how much of it."""

    MEMBERS = Allowance(2_000, 200, 6, 0.2)
    """Told of by Discover: all of them six times at once, when links flap, and then once in five seconds. Joining nodes
    ask once in five seconds at most, others compare tables, which costs a sixteenth of that."""
    NEIGHBOR = Allowance(16, 1)
    """Each grant brings all that this node wants. An honest node asks the same one every few seconds."""
    CLAIMS = Allowance(1_000, 25, 10, 0.1)
    """About others, that say something new here: an honest node passes on five for each member that fails, and again
    where it refutes."""
    PAUSES = Allowance(20_000, 500)
    """Pause and Resume. Over a new connection all that are wanted are said again."""
    TRUST = Allowance(16, 0.5)
    """Trust lists: each may have to be read and its signature checked. Honest nodes send later ones only."""
    EXPIRED = Allowance(256, 4, 2)
    """Records whose certificate is not valid now, which costs as much to find out as for any other."""


class Bucket:
    """Holds up to `burst` and gains `per_s`; full at first."""

    __slots__ = ("at", "left")

    def __init__(self, burst: float, now: float) -> None:
        self.left = burst
        self.at = now

    def has(self, burst: float, per_s: float, now: float) -> bool:
        """Whether there is one in it."""
        self.left = min(burst, self.left + (now - self.at) * per_s)
        self.at = now
        return self.left >= 1.0

    def take(self, cost: float, burst: float, per_s: float, now: float) -> bool:
        """Take `cost` out; False, and nothing is taken, where there is less."""
        self.has(burst, per_s, now)
        # What costs more than a full bucket holds is had once it is full.
        if self.left < min(cost, burst):
            return False
        self.left -= cost
        return True


class Conduct:
    """Of all nodes. `members` tells how many there are."""

    def __init__(self, members: Callable[[], int]) -> None:
        self.refused: Counter[str] = Counter()
        """What was not taken or answered, by reason."""
        self._members = members
        self._offences: dict[NodeId, tuple[int, float]] = {}
        self._buckets: dict[tuple[NodeId, Ask], Bucket] = {}

    def allows(self, node: NodeId, ask: Ask, now: float, cost: float = 1.0) -> bool:
        """Whether a node may have this now; it then has it."""
        bucket, burst, per_s = self._bucket(node, ask, now)
        return bucket.take(cost, burst, per_s, now)

    def is_spent(self, node: NodeId, ask: Ask, now: float) -> bool:
        """Whether a node has had all of it; what it costs is found out by `spend`."""
        bucket, burst, per_s = self._bucket(node, ask, now)
        return not bucket.has(burst, per_s, now)

    def spend(self, node: NodeId, ask: Ask, now: float, cost: float = 1.0) -> None:
        """A node has had so much, be it more than there was."""
        bucket, burst, per_s = self._bucket(node, ask, now)
        bucket.has(burst, per_s, now)
        bucket.left -= cost

    def _bucket(self, node: NodeId, ask: Ask, now: float) -> tuple[Bucket, float, float]:
        allowance = ask.value
        members = self._members()
        burst = allowance.burst + members * allowance.burst_by_member
        bucket = self._buckets.get((node, ask))
        if bucket is None:
            bucket = self._buckets[node, ask] = Bucket(burst, now)
        return bucket, burst, allowance.per_s + members * allowance.per_s_by_member

    def offended(self, node: NodeId, why: str, now: float) -> str:
        """Count an offence; returns why the connections with the node must end, empty where they need not yet."""
        self.refused["misbehaved"] += 1
        count, last = self._offences.get(node, (0, now))
        count = 1 if now - last > OFFENCE_MEMORY_S else count + 1
        if count < MAX_OFFENCES:
            self._offences[node] = count, now
            return ""
        del self._offences[node]
        return f"{MAX_OFFENCES} times something that no honest node sends, last: {why}; check node {node.hex()}"

    def forget(self, node: NodeId) -> None:
        """The node is no member any more."""
        self._offences.pop(node, None)
        for ask in Ask:
            self._buckets.pop((node, ask), None)
