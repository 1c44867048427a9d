"""Back-pressure between nodes: which publishers elsewhere this node holds back, and who holds back those here.

The frames travel straight to the origin. A pause lasts as long as the connection, and as it is said again: who loses
the connection, or says nothing, lets go. Who still needs it says so again over the next connection.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.node_frames import Pause, Resume
from quicbus_broker.mesh.outputs import PauseChanged, SendFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.mesh.outputs import NodeId, Output

__all__ = ["PAUSE_MAX_S", "PAUSE_TIMEOUT_S", "REPEAT_S", "Pauses"]

MAX_PAUSES = 10_000
"""Filters for which one node may hold publishers back: as many as it may be interested in."""
PAUSE_TIMEOUT_S = 60.0
"""What is not said again for so long is over. An honest node says it every 20 to 35 s."""
REPEAT_S = 20.0
PAUSE_MAX_S = 900.0
"""A pause without a Resume in between ends after so long. A subscription that takes nothing is ended by its own node
after `block_timeout_s`; one that takes something lets go now and then."""

assert PAUSE_TIMEOUT_S > 2 * limits.BLOCK_TIMEOUT_S - 1
assert PAUSE_MAX_S > 10 * limits.BLOCK_TIMEOUT_S


class _Grant:
    __slots__ = ("is_over", "said_at", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.said_at = now
        self.is_over = False
        """It lasted too long, and holds nobody any more."""


class Pauses:
    """Both directions. `wanted`: what this node asks of origins, by (origin, filter).

    `dropped` counts Pauses that were not taken, by reason.
    """

    def __init__(self, blocks: Callable[[NodeId, str], bool] = lambda node, filter: True) -> None:
        """`blocks(node, filter)` tells whether a node has said that subscribers of it to this filter block."""
        self.wanted: dict[NodeId, dict[str, None]] = {}
        self.dropped: Counter[str] = Counter()
        self._blocks = blocks
        self._granted: dict[NodeId, dict[str, _Grant]] = {}
        self._sizes: dict[NodeId, int] = {}
        self._repeat_at = 0.0

    # --- what this node asks for ---

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

    # --- what others ask for ---

    def gone(self, node: NodeId, outputs: list[Output]) -> None:
        """The connection to a node is lost: it holds nobody back any longer."""
        self._sizes.pop(node, None)
        for filter, grant in self._granted.pop(node, {}).items():
            if not grant.is_over:
                outputs.append(PauseChanged(node, filter, False))

    def on_pause(self, node: NodeId, frame: Pause, now: float, outputs: list[Output]) -> None:
        filters = self._granted.setdefault(node, {})
        grant = filters.get(frame.filter)
        if not self._blocks(node, frame.filter):
            self.dropped["pause_without_interest"] += 1
            if grant is not None:
                self._release(node, frame.filter, outputs)
        elif grant is not None:
            grant.said_at = now
        elif len(filters) >= MAX_PAUSES or self._sizes.get(node, 0) + len(frame.filter) > limits.MAX_INTEREST_SIZE:
            self.dropped["too_many_pauses"] += 1
        else:
            filters[frame.filter] = _Grant(now)
            self._sizes[node] = self._sizes.get(node, 0) + len(frame.filter)
            outputs.append(PauseChanged(node, frame.filter, True))

    def on_resume(self, node: NodeId, frame: Resume, now: float, outputs: list[Output]) -> None:
        if frame.filter in self._granted.get(node, {}):
            self._release(node, frame.filter, outputs)

    def _release(self, node: NodeId, filter: str, outputs: list[Output]) -> None:
        grant = self._granted[node].pop(filter)
        self._sizes[node] -= len(filter)
        if not grant.is_over:
            outputs.append(PauseChanged(node, filter, False))

    # --- time ---

    def sweep(self, now: float, outputs: list[Output]) -> None:
        """End pauses that are over, and say again what this node needs. Called every few seconds."""
        for node, filters in self._granted.items():
            for filter, grant in list(filters.items()):
                if now - grant.said_at > PAUSE_TIMEOUT_S:
                    self._release(node, filter, outputs)
                elif not grant.is_over and now - grant.since > PAUSE_MAX_S:
                    grant.is_over = True
                    self.dropped["pause_too_long"] += 1
                    outputs.append(PauseChanged(node, filter, False))
        if now >= self._repeat_at and self.wanted:
            self._repeat_at = now + REPEAT_S
            for origin in self.wanted:
                self.connected(origin, outputs)
