"""Recent bundles, kept to answer Graft and to tell a duplicate from a forgery: bounded in bytes and time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus_broker.mesh.messages.reordering import AFTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus.wire.bundles import Bundle
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["BundleId", "BundleStore", "Stored"]

BundleId = tuple[bytes, int, int]
"""Origin, boot and number."""
ENTRY_OVERHEAD = 512
"""Bytes that each batch costs beside its content."""
EXPIRY_SLACK_S = 1.0
"""Expired bundles are thrown away together, so often at most."""


class Stored:
    """A bundle as it came."""

    __slots__ = ("at", "bundle", "copies", "grafts", "size", "source")

    def __init__(self, bundle: Bundle, source: NodeId, size: int, at: float) -> None:
        self.bundle = bundle
        self.source = source
        """The node that it came from."""
        self.size = size
        self.at = at
        self.copies: dict[NodeId, int] | None = None
        """How many duplicates of it came from each node."""
        self.grafts: dict[NodeId, int] | None = None
        """How often each node was given it because it asked."""

    def is_same(self, bundle: Bundle) -> bool:
        """Whether `bundle` is this one to the last byte, so that its signature need not be checked again."""
        mine = self.bundle
        if mine.signature != bundle.signature or mine.target != bundle.target:
            return False
        # Without encoded bytes both come out of this process: the simulator's.
        return mine.signed == bundle.signed if mine.signed else mine.batches is bundle.batches


class BundleStore:
    """The oldest bundles go first: by `retention_s`, and as soon as all together exceed `max_size` bytes."""

    def __init__(self, retention_s: float, max_size: int) -> None:
        self.size = 0
        self._retention_s = retention_s
        self._max_size = max_size
        self._stored: dict[BundleId, Stored] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[BundleId]:
        """The ids of all, oldest first."""
        return iter(self._stored)

    def get(self, id: BundleId) -> Stored | None:
        return self._stored.get(id)

    def put(self, id: BundleId, bundle: Bundle, source: NodeId, now: float) -> None:
        """Keep a bundle that is not kept yet. One larger than the whole store is not kept."""
        size = ENTRY_OVERHEAD * len(bundle.batches) + AFTER_SIZE * sum([len(batch.after) for batch in bundle.batches])
        size += len(bundle.signed) or sum([len(batch.body) for batch in bundle.batches])
        if size > self._max_size:
            return
        self._stored[id] = Stored(bundle, source, size, now)
        self.size += size
        while self.size > self._max_size:
            self._drop(next(iter(self._stored)))

    def next_timer(self) -> float:
        for oldest in self._stored.values():
            return oldest.at + self._retention_s + EXPIRY_SLACK_S
        return math.inf

    def expire(self, now: float) -> None:
        """Throw away what is older than the retention time."""
        limit = now - self._retention_s
        while self._stored:
            id, oldest = next(iter(self._stored.items()))
            if oldest.at > limit:
                return
            self._drop(id)

    def _drop(self, id: BundleId) -> None:
        self.size -= self._stored.pop(id).size
