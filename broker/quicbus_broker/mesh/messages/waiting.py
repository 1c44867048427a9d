"""Bundles for nodes that have no connection yet: they wait while one is dialed, bounded in bytes and time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from quicbus.wire.bundles import KIND_RELAY
from quicbus.wire.node_frames import Skipped

if TYPE_CHECKING:
    from quicbus.wire.bundles import Bundle
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Waiting"]

MAX_WAITING_SIZE = 8 * 1024 * 1024
"""Bytes of bodies that wait for one node: two publish windows."""
MAX_WAITING_TOTAL = 64 * 1024 * 1024
"""Of all nodes: a neighbour may send relays for dozens that cannot be reached."""
MAX_SKIPS = 64
"""Ranges of numbers that a node is told not to wait for; beyond it the node finds out by its own time-out."""


class _Queue(msgspec.Struct):
    deadline: float
    bundles: deque[tuple[float, Bundle]] = msgspec.field(default_factory=deque)
    size: int = 0


class Waiting:
    """What is dropped here has its numbers told to the receiver, once there is a connection, as `Skipped`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._queues: dict[NodeId, _Queue] = {}
        self._size = 0
        self._skips: dict[NodeId, list[Skipped]] = {}

    def __contains__(self, node: NodeId) -> bool:
        return node in self._queues

    def nodes(self) -> list[NodeId]:
        return list(self._queues)

    def put(self, node: NodeId, bundle: Bundle, now: float) -> list[Bundle]:
        """Keep a bundle for when a connection is open; returns those that were dropped to make room."""
        queue = self._queues.get(node)
        if queue is None:
            queue = self._queues[node] = _Queue(now + self._timeout_s)
        queue.bundles.append((now, bundle))
        size = _size_of(bundle)
        queue.size += size
        self._size += size
        dropped: list[Bundle] = []
        while queue.size > MAX_WAITING_SIZE and len(queue.bundles) > 1:
            dropped.append(self._drop_oldest(node, queue))
        while self._size > MAX_WAITING_TOTAL:
            largest, queue = max(self._queues.items(), key=lambda item: item[1].size)
            if len(queue.bundles) < 2:
                break
            dropped.append(self._drop_oldest(largest, queue))
        return dropped

    def _drop_oldest(self, node: NodeId, queue: _Queue) -> Bundle:
        _, oldest = queue.bundles.popleft()
        size = _size_of(oldest)
        queue.size -= size
        self._size -= size
        self.skip(node, oldest)
        return oldest

    def take(self, node: NodeId) -> tuple[list[Skipped], list[tuple[float, Bundle]]]:
        """A connection is open: return what the node must not wait for, and the bundles with the time they came."""
        return self._skips.pop(node, []), self.take_bundles(node)

    def take_bundles(self, node: NodeId) -> list[tuple[float, Bundle]]:
        """There is a way through another node: return the bundles. What must not be waited for is told later."""
        queue = self._pop(node)
        return list(queue.bundles) if queue else []

    def give_up(self, node: NodeId) -> list[Bundle]:
        """No connection came about; returns what is dropped."""
        queue = self._pop(node)
        dropped = [bundle for _, bundle in queue.bundles] if queue else []
        for bundle in dropped:
            self.skip(node, bundle)
        return dropped

    def forget(self, node: NodeId) -> None:
        """The node has restarted, or left: its numbers are of no use."""
        self._pop(node)
        self._skips.pop(node, None)

    def _pop(self, node: NodeId) -> _Queue | None:
        queue = self._queues.pop(node, None)
        if queue is not None:
            self._size -= queue.size
        return queue

    def skip(self, node: NodeId, bundle: Bundle) -> None:
        """Remember the numbers of a bundle that will not be sent; another origin's are not this node's to tell."""
        if bundle.kind == KIND_RELAY:
            return
        skips = self._skips.setdefault(node, [])
        for batch in bundle.batches:
            last = next((each for each in reversed(skips) if each.lane == batch.lane), None)
            if last is not None and last.boot == bundle.target_boot and last.last + 1 == batch.sequence:
                skips[skips.index(last)] = Skipped(
                    boot=last.boot, lane=last.lane, first=last.first, last=batch.sequence, messages=0
                )
            elif len(skips) < MAX_SKIPS:
                skips.append(
                    Skipped(
                        boot=bundle.target_boot, lane=batch.lane, first=batch.sequence, last=batch.sequence, messages=0
                    )
                )

    def overdue(self, now: float) -> list[NodeId]:
        """Return the nodes for which a connection took too long."""
        return [node for node, queue in self._queues.items() if queue.deadline <= now]

    def next_timer(self) -> float:
        if not self._queues:
            return math.inf
        return min(queue.deadline for queue in self._queues.values())


def _size_of(bundle: Bundle) -> int:
    return sum(len(batch.body) for batch in bundle.batches)
