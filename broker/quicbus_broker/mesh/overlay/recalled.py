"""Where nodes that are not in the table may be dialed: members of an earlier run, and revoked ones that are to be told.

Those are of mode `server`, which dials nobody by itself. They are dialed for as long as members that have failed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Recalled"]

_MAX_TO_TELL = 256
"""As many as `Retries` has times for."""


class Recalled:
    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._addresses: dict[NodeId, tuple[str, ...]] = {}
        self._to_tell: dict[NodeId, float] = {}
        """Until when."""

    def remember(self, node: NodeId, address: str) -> None:
        """It was a member in an earlier run, and may be dialed there, too."""
        self._addresses[node] = (*self._addresses.get(node, ()), address)

    def tell(self, node: NodeId, addresses: tuple[str, ...], now: float) -> None:
        """It was revoked and may not know."""
        self.forget(node)
        self._addresses[node] = addresses
        self._to_tell[node] = now + self._config.failed_retention_s
        if len(self._to_tell) > _MAX_TO_TELL:
            self.forget(next(iter(self._to_tell)))

    def forget(self, node: NodeId) -> None:
        """It is not to be dialed, or was told."""
        self._addresses.pop(node, None)
        self._to_tell.pop(node, None)

    def addresses(self, node: NodeId, now: float) -> tuple[str, ...]:
        """Return where to dial a node; empty where it is not to be dialed."""
        if now >= self._to_tell.get(node, math.inf):
            self.forget(node)
        return self._addresses.get(node, ())
