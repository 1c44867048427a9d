"""Broadcasts that come while a node joins: kept until it knows from which number on they are for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import IHave
from quicbus_broker.mesh.messages.reordering import AFTER_SIZE, HELD_OVERHEAD

if TYPE_CHECKING:
    from quicbus.wire.bundles import Bundle
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Early"]

MAX_EARLY_SIZE = 16 * 1024 * 1024
MAX_EARLY = 4096
"""Joining takes a few round trips; what is beyond this is announced and asked for as any other loss."""
ID_SIZE = 200
"""Bytes of memory that one announced bundle takes: an id is five objects."""


class Early:
    """In the order of arrival, with who sent it."""

    __slots__ = ("_items", "_size")

    def __init__(self) -> None:
        self._items: list[tuple[NodeId, Bundle | IHave]] = []
        self._size = 0

    def keep(self, node: NodeId, item: Bundle | IHave) -> None:
        size = _size_of(item)
        if len(self._items) < MAX_EARLY and self._size + size <= MAX_EARLY_SIZE:
            self._items.append((node, item))
            self._size += size

    def take(self) -> list[tuple[NodeId, Bundle | IHave]]:
        items, self._items = self._items, []
        self._size = 0
        return items


def _size_of(item: Bundle | IHave) -> int:
    if isinstance(item, IHave):
        return ID_SIZE * len(item.bundles)
    return sum(HELD_OVERHEAD + len(batch.body) + AFTER_SIZE * len(batch.after) for batch in item.batches)
