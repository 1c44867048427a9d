"""Members that only dial and have lost all their links: nobody watches them, and nobody can dial them.

A node that can be dialed is noticed when it is dialed in vain. One that cannot names the nodes that it is linked to:
where those are gone, or know nothing of it, it is a suspect. If it lives it is linked to others by then, and says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus_broker.mesh.outputs import ProbeFailed, State

if TYPE_CHECKING:
    from collections.abc import Collection
    from random import Random

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import Entry, MemberTable
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.overlay.connections import Connections

__all__ = ["Orphans"]


class Orphans:
    """Looks at one random member in each `discover_interval_s`, and accuses it if it is an orphan the next time too."""

    def __init__(
        self, me: NodeId, table: MemberTable, connections: Connections, config: MeshConfig, rng: Random
    ) -> None:
        self._me = me
        self._table = table
        self._connections = connections
        self._config = config
        self._rng = rng
        self._doubted: NodeId | None = None
        self._timer = math.inf

    def start(self, now: float) -> None:
        # Jitter of a half to either side: not all nodes doubt the same one at once.
        self._timer = now + self._config.discover_interval_s * (0.5 + self._rng.random())

    def next_timer(self) -> float:
        return self._timer

    def tick(self, now: float, neighbors: Collection[NodeId], outputs: list[Output]) -> None:
        self.start(now)
        doubted, self._doubted = self._doubted, None
        if not neighbors:
            # Who is alone knows nothing of the others.
            return
        if doubted is not None and (entry := self._table.get(doubted)) is not None and self._is_orphan(entry):
            outputs.append(ProbeFailed(doubted))
        self._doubted = self._table.pick(self._rng, self._is_orphan)

    def _is_orphan(self, entry: Entry) -> bool:
        record = entry.record
        if record.mode != "client" or entry.state is not State.ALIVE or record.node == self._me:
            return False
        if self._connections.is_connected(record.node):
            return False
        return self._me in record.via or not any(self._is_alive(node) for node in record.via)

    def _is_alive(self, node: NodeId) -> bool:
        entry = self._table.get(node)
        return entry is not None and entry.is_alive
