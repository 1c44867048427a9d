"""Dialing one address of the mesh: a name may stand for several hosts, each of which is tried. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus_broker.mesh.outputs import DialFailed
from quicbus_broker.mesh.session.link_dialer import ITSELF

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import Dial, NodeId
    from quicbus_broker.mesh.session.link_dialer import LinkDialer

__all__ = ["Attempts"]


class Attempts:
    """All connections that were begun for one `Dial`. `failure` tells once all of them are over."""

    def __init__(self, dial: Dial) -> None:
        self.dial = dial
        self.pending: dict[LinkDialer, None] = {}
        self.is_resolving = True
        self._met: set[NodeId] = set()
        self._reasons: dict[str, bool] = {}
        self._has_opened = False

    def meets(self, node: NodeId) -> bool:
        """A listener turns out to be this node; False where another address of the name has led to it already."""
        if node in self._met:
            return False
        self._met.add(node)
        return True

    def opened(self, dialer: LinkDialer) -> None:
        self._has_opened = True
        self.pending.pop(dialer, None)

    def failed(self, dialer: LinkDialer | None, reason: str, *, is_final: bool = False) -> None:
        if dialer is not None:
            self.pending.pop(dialer, None)
        self._reasons[reason] = is_final

    @property
    def failure(self) -> DialFailed | None:
        """What the mesh is told: nothing as long as something is under way, or when there is a link."""
        if self.is_resolving or self.pending or self._has_opened:
            return None
        is_final = bool(self._reasons) and all(self._reasons.values())
        why = "; ".join(self._reasons) or "no address"
        return DialFailed(self.dial.address, self.dial.node, why, is_final, is_self=why == ITSELF)
