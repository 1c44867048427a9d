"""Back-pressure between nodes: which publishers elsewhere this node holds back, and who holds back those here.

The frames travel straight to the origin. They last as long as the connection: who loses it lets go, and who still
needs it says so again over the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Pause, Resume
from quicbus_broker.mesh.outputs import PauseChanged, SendFrame

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId, Output

__all__ = ["Pauses"]

MAX_PAUSES = 10_000
"""Filters for which one node may hold publishers back: as many as it may be interested in."""


class Pauses:
    """Both directions. `wanted`: what this node asks of origins, by (origin, filter)."""

    def __init__(self) -> None:
        self.wanted: dict[NodeId, dict[str, None]] = {}
        self._granted: dict[NodeId, dict[str, None]] = {}

    def want(self, origin: NodeId, filter: str, is_paused: bool, outputs: list[Output]) -> None:
        """Ask an origin to hold back who publishes to `filter`, or to let them go."""
        filters = self.wanted.setdefault(origin, {})
        if is_paused:
            filters[filter] = None
        else:
            filters.pop(filter, None)
            if not filters:
                del self.wanted[origin]
        outputs.append(SendFrame(origin, Pause(filter=filter) if is_paused else Resume(filter=filter)))

    def connected(self, node: NodeId, outputs: list[Output]) -> None:
        outputs.extend(SendFrame(node, Pause(filter=filter)) for filter in self.wanted.get(node, ()))

    def gone(self, node: NodeId, outputs: list[Output]) -> None:
        """The connection to a node is lost: it holds nobody back any longer."""
        outputs.extend(PauseChanged(node, filter, False) for filter in self._granted.pop(node, ()))

    def on_pause(self, node: NodeId, frame: Pause, now: float, outputs: list[Output]) -> None:
        filters = self._granted.setdefault(node, {})
        if frame.filter not in filters and len(filters) < MAX_PAUSES:
            filters[frame.filter] = None
            outputs.append(PauseChanged(node, frame.filter, True))

    def on_resume(self, node: NodeId, frame: Resume, now: float, outputs: list[Output]) -> None:
        filters = self._granted.get(node, {})
        if frame.filter in filters:
            del filters[frame.filter]
            outputs.append(PauseChanged(node, frame.filter, False))
