"""How often what is known of a member may change: by records of its own, and by what others claim of it.

Each change is told to the whole mesh. What comes faster is not taken here; tables are compared, so that the last state
comes all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus_broker.mesh.conduct import Bucket

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["ACCUSATIONS", "RECORDS", "REFUTATIONS", "Turnover"]

RECORDS = (32.0, 1.0)
"""Records of one member at once, and in a second after that: a node refutes, moves, or finds others to go through."""
ACCUSATIONS = (8.0, 0.2)
"""So often others may have one member suspected that lives and says so. After that only this node's own probes do,
until it has been quiet for a while: who really fails does so once."""
REFUTATIONS = (16.0, 1.0)
"""Records of this node because of what others say of it; the next one waits, and answers all that was said meanwhile.
Fewer than others take."""

assert REFUTATIONS[0] <= RECORDS[0]
assert REFUTATIONS[1] <= RECORDS[1]


class Turnover:
    """Buckets are made when they are first needed, and forgotten with the member."""

    __slots__ = ("_accusations", "_records")

    def __init__(self) -> None:
        self._records: dict[NodeId, Bucket] = {}
        self._accusations: dict[NodeId, Bucket] = {}

    def may_renew(self, node: NodeId, now: float) -> bool:
        """Whether a further record of a member may be taken."""
        bucket = self._records.get(node)
        return bucket is None or bucket.has(*RECORDS, now)

    def renewed(self, node: NodeId, now: float) -> None:
        """A record was taken that changes one that was known."""
        bucket = self._records.get(node)
        if bucket is None:
            bucket = self._records[node] = Bucket(RECORDS[0], now)
        bucket.take(1.0, *RECORDS, now)

    def accuses(self, node: NodeId, now: float) -> bool:
        """Another accuses a member that is taken for alive: whether that is to be listened to."""
        bucket = self._accusations.get(node)
        if bucket is None:
            bucket = self._accusations[node] = Bucket(ACCUSATIONS[0], now)
        return bucket.take(1.0, *ACCUSATIONS, now)

    def forget(self, node: NodeId) -> None:
        self._records.pop(node, None)
        self._accusations.pop(node, None)
