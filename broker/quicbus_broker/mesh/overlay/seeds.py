"""The addresses at which this node was told to look for the mesh: dialed for ever until a member answers there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus_broker.mesh.overlay.redial import Redial

if TYPE_CHECKING:
    from random import Random

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Seeds"]

_MAX_SEEDS = 1024


class Seeds:
    """A seed is found while the node that answered there is a member; when that is gone it is looked for again."""

    def __init__(self, config: MeshConfig, rng: Random) -> None:
        self._config = config
        self._found: dict[str, NodeId | None] = {}
        self._redial: Redial[str] = Redial(config, rng, _MAX_SEEDS)

    def add(self, address: str, now: float) -> None:
        self._found[address] = None
        self._redial.soon(address, now)

    def found(self, address: str, node: NodeId) -> None:
        if address in self._found:
            self._found[address] = node
            self._redial.forget(address)

    def forget(self, address: str) -> None:
        """It is this node itself."""
        self._found.pop(address, None)
        self._redial.forget(address)

    def failed(self, address: str, now: float, *, is_final: bool) -> None:
        if address in self._found:
            self._redial.failed(address, now, is_final=is_final)

    def clear(self) -> None:
        """Look for nobody any more."""
        self._found.clear()
        self._redial.clear()

    def gone(self, node: NodeId, now: float) -> None:
        """The member has failed or left: whoever is at the address now may know the mesh."""
        for address, found in self._found.items():
            if found == node:
                self._found[address] = None
                self._redial.failed(address, now)

    def hurry(self, now: float) -> None:
        """This node has no neighbour left: every seed is worth a try."""
        for address in self._found:
            self._redial.soon(address, now, spread_s=self._config.redial_min_s)

    def pop_due(self, now: float) -> str | None:
        return self._redial.pop_due(now)

    def next_timer(self) -> float:
        return self._redial.next_timer()
