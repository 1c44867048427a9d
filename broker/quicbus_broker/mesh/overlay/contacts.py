"""Connections that are no links: dialed to serve a node directly, or left over. Bounded, and closed when idle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.overlay.connections import Connections

__all__ = ["Contacts"]

_GUESTS_FACTOR = 4
"""Who dialed closes what is idle; the other side only when it has so many times `max_contacts` of them."""


class Contacts:
    """Least recently used first. The dialer's side closes; a goodbye is clean, so nobody dials again because of it."""

    def __init__(self, config: MeshConfig, connections: Connections) -> None:
        self._config = config
        self._connections = connections
        self._used: dict[NodeId, float] = {}
        self._guests: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._used or node in self._guests

    def add(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        self.remove(node)
        if self._connections.is_dialer(node):
            self._used[node] = now
            if len(self._used) > self._config.max_contacts:
                self._close(next(iter(self._used)), "too many contacts", outputs)
        else:
            self._guests[node] = now
            if len(self._guests) > _GUESTS_FACTOR * self._config.max_contacts:
                self._close(next(iter(self._guests)), "too many contacts", outputs)

    def remove(self, node: NodeId) -> None:
        """It is a link now, or gone."""
        self._used.pop(node, None)
        self._guests.pop(node, None)

    def touch(self, node: NodeId, now: float) -> None:
        for contacts in (self._used, self._guests):
            if contacts.pop(node, None) is not None:
                contacts[node] = now

    def next_timer(self) -> float:
        for used_at in self._used.values():
            return used_at + self._config.contact_idle_s
        return math.inf

    def tick(self, now: float, outputs: list[Output]) -> None:
        while self._used:
            node, used_at = next(iter(self._used.items()))
            if used_at + self._config.contact_idle_s > now:
                return
            self._close(node, "not used any more", outputs)

    def _close(self, node: NodeId, reason: str, outputs: list[Output]) -> None:
        self.remove(node)
        self._connections.close(node, CloseCode.GOODBYE, reason, outputs)
