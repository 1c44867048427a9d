"""How far the broadcasts of others had come when this node joined, as one member told it: believed until others differ.

A node that joins must not take a replay for news, and heads are not signed: whoever tells them could name numbers that
an origin never reaches, and this node would be deaf to it. So a head is given up once two neighbours, or the origin
itself, still bring what it says is over, long after honest ones have forgotten that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from quicbus import limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.wire.node_frames import Head
    from quicbus_broker.mesh.messages.bundle_store import BundleId
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["SLACK_S", "Heads"]

SLACK_S = 5.0
"""Beyond the time that bundles are kept: what was asked for at the last moment is on its way."""
NEEDED = 2
"""Neighbours that must contradict: one alone may replay what is over."""


class _Believed:
    __slots__ = ("boot", "bundle", "doubters")

    def __init__(self, head: Head) -> None:
        self.boot = head.boot
        self.bundle = head.bundle
        self.doubters: dict[NodeId, None] = {}


class Heads:
    """`told` while joining, `begin` when that is done; `doubt` and `confirm` by what comes after that."""

    def __init__(self, retention_s: float, max_told: int = limits.MAX_KNOWN_KEYS) -> None:
        self._quiet_s = retention_s + SLACK_S
        self._max_told = max_told
        self._told: dict[NodeId, Head] = {}
        self._believed: dict[NodeId, _Believed] = {}
        self._quiet_from = math.inf

    def __bool__(self) -> bool:
        return bool(self._believed)

    def told(self, head: Head) -> None:
        """A head that a joining node is told. Of one origin the last one counts, of too many the first ones."""
        if head.origin in self._told or len(self._told) < self._max_told:
            self._told[head.origin] = replace(head, lanes=head.lanes[: limits.LANES])

    def begin(self, now: float, boot_of: Callable[[NodeId], int | None]) -> list[Head]:
        """The node has joined: return the heads of members to go by, none of a boot that its origin has not told of."""
        told, self._told = self._told, {}
        heads = [head for head in told.values() if head.boot <= (boot_of(head.origin) or -1)]
        self._believed = {head.origin: _Believed(head) for head in heads}
        self._quiet_from = now + self._quiet_s
        return heads

    def confirm(self, id: BundleId) -> None:
        """A genuine bundle came that no head covers: its origin has come past it."""
        believed = self._believed.get(id[0])
        if believed is not None and (id[1], id[2]) > (believed.boot, believed.bundle):
            del self._believed[id[0]]

    def doubt(self, id: BundleId, node: NodeId, neighbors: int, now: float) -> bool:
        """`node` brings or announces what was seen. True where a head said so, and is not believed any more."""
        believed = self._believed.get(id[0])
        if believed is None or now < self._quiet_from or id[1] != believed.boot or id[2] > believed.bundle:
            return False
        believed.doubters[node] = None
        if node != id[0] and len(believed.doubters) < min(NEEDED, neighbors):
            return False
        del self._believed[id[0]]
        return True

    def forget(self, origin: NodeId) -> None:
        """The node is no member any more."""
        self._believed.pop(origin, None)
