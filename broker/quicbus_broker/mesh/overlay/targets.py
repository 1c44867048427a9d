"""How many neighbours to have, and with whom a link is possible at all: arithmetic on the member table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus_broker.mesh.config import active_links
from quicbus_broker.mesh.outputs import State

if TYPE_CHECKING:
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import Entry, MemberTable
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Targets"]

_COUNTED_MAX = 64
"""Up to so many members their modes are counted; beyond, a few that cannot be linked do not matter."""

_CLIENT_TARGET = 3
"""A node that only dials carries nobody else's links; this many keep it connected when one fails, and another."""


class Targets:
    """Nodes that only dial are left out: they come by themselves, and are no way to the rest of the mesh."""

    def __init__(self, me: NodeId, mode: str, table: MemberTable, config: MeshConfig) -> None:
        self._me = me
        self._mode = mode
        self._table = table
        self._config = config
        self._counted: int | None = None

    def changed(self) -> None:
        """A member is new, gone, or another than before."""
        self._counted = None

    def others(self) -> int:
        """Return how many alive members a link is possible with. In a large mesh nobody counts: nearly all."""
        others = self._table.alive_count - (self._me in self._table)
        if others > _COUNTED_MAX:
            return others
        if self._counted is None:
            self._counted = sum(self._is_linkable(node) for node in self._table.nodes())
        return self._counted

    def wanted(self) -> int:
        others = self.others()
        target = active_links(others, self._config.small_mesh)
        if self._mode == "client" and others > self._config.small_mesh:
            return min(target, _CLIENT_TARGET)
        return target

    def accepted(self) -> int:
        """Return how many links are granted to those who ask."""
        # A node that joins knows of nobody yet: it takes what a small mesh would.
        return math.ceil(self._config.max_links_factor * max(self.wanted(), self._config.small_mesh))

    def is_large(self) -> bool:
        return self.others() > self._config.small_mesh

    def can_dial(self, entry: Entry) -> bool:
        return self._mode != "server" and entry.record.mode != "client" and bool(entry.record.addresses)

    def _is_linkable(self, node: NodeId) -> bool:
        entry = self._table.get(node)
        if entry is None or node == self._me or entry.state not in (State.ALIVE, State.SUSPECT):
            return False
        return entry.record.mode == "hybrid" or (entry.record.mode == "server" and self._mode != "server")
