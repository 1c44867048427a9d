"""Bundles that were announced and are not here: who has them, and when they are asked for."""

from __future__ import annotations

import math
from collections import Counter
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator

    from quicbus_broker.mesh.messages.bundle_store import BundleId
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["MAX_MISSING", "Missing", "MissingBundles"]

MAX_MISSING = 16_384
"""Bundles that are announced and not here."""
MAX_ANNOUNCED_SHARE = 2
"""Half of them at most that one node was the first to announce: who makes numbers up leaves room for the others."""


class Missing:
    """A bundle that was announced: who has it, and how often it was asked for."""

    __slots__ = ("by", "due", "grafts", "since", "sources")

    def __init__(self, by: NodeId, now: float) -> None:
        self.by = by
        """Who announced it first."""
        self.sources: dict[NodeId, None] = {}
        self.grafts = 0
        self.since = now
        """When it was announced, or last asked for."""
        self.due = math.inf


class MissingBundles:
    """Bounded in all and by who announces them."""

    __slots__ = ("_announced", "_due", "_missing", "next_due")

    def __init__(self) -> None:
        self.next_due = math.inf
        """When `due` has something; not a method, as it is asked for after every event."""
        self._missing: dict[BundleId, Missing] = {}
        self._announced: Counter[NodeId] = Counter()
        self._due: list[tuple[float, BundleId]] = []

    def __len__(self) -> int:
        return len(self._missing)

    def get(self, id: BundleId) -> Missing | None:
        return self._missing.get(id)

    def items(self) -> ItemsView[BundleId, Missing]:
        return self._missing.items()

    def begin(self, id: BundleId, node: NodeId, now: float) -> Missing | None:
        """Note a bundle that `node` announces; `None` where there is no room for it."""
        if len(self._missing) >= MAX_MISSING or self._announced[node] >= MAX_MISSING // MAX_ANNOUNCED_SHARE:
            return None
        self._announced[node] += 1
        missing = self._missing[id] = Missing(node, now)
        return missing

    def end(self, id: BundleId) -> Missing | None:
        """It is here, or will never be; return what was known of it."""
        missing = self._missing.pop(id, None)
        if missing is not None:
            self._announced[missing.by] -= 1
            if not self._announced[missing.by]:
                del self._announced[missing.by]
        return missing

    def ask_at(self, id: BundleId, missing: Missing, due: float) -> None:
        """Have `due` return it then."""
        missing.due = due
        heappush(self._due, (due, id))
        self.next_due = self._due[0][0]

    def due(self, now: float) -> Iterator[tuple[BundleId, Missing]]:
        """Yield what is to be asked for now."""
        while self._due and self._due[0][0] <= now:
            due, id = heappop(self._due)
            self.next_due = self._due[0][0] if self._due else math.inf
            missing = self._missing.get(id)
            if missing is not None and missing.due == due:
                yield id, missing
