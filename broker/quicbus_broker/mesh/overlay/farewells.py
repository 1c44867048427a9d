"""Revoked nodes of mode `server` dial nobody: they are dialed to be told, for as long as failed members are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Farewells"]

_MAX_FAREWELLS = 256
"""As many as `Retries` has times for."""


class Farewells:
    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._owed: dict[NodeId, tuple[tuple[str, ...], float]] = {}
        """Where they may be dialed, and until when."""

    def add(self, node: NodeId, addresses: tuple[str, ...], now: float) -> None:
        self._owed.pop(node, None)
        self._owed[node] = addresses, now + self._config.failed_retention_s
        if len(self._owed) > _MAX_FAREWELLS:
            del self._owed[next(iter(self._owed))]

    def forget(self, node: NodeId) -> None:
        """It was told."""
        self._owed.pop(node, None)

    def addresses(self, node: NodeId, now: float) -> tuple[str, ...]:
        """Return where to dial the node; empty where nothing is to be told."""
        addresses, until = self._owed.get(node, ((), now))
        if now >= until:
            self.forget(node)
            return ()
        return addresses
