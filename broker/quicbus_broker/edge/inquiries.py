"""What one client asks about the mesh, and the answers: in turn, and no faster than it reads them."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.frames import Peers, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quicbus.transport.connection import Connection
    from quicbus.wire.frames import PeerEntry
    from quicbus_broker.edge.control import ControlStream
    from quicbus_broker.edge.mesh_view import MeshView

__all__ = ["Inquiries"]

MAX_PEERS_WANTED: Final = 64
MAX_SPREADS_WANTED: Final = 1024
PAGE_SIZE: Final = 128 * 1024
"""Of the nodes in one Peers, as `_size_of` counts: the frame stays well below `limits.MAX_CONTROL_FRAME_SIZE`."""
_ENTRY_OVERHEAD: Final = 160
"""Field names and what has a fixed size."""


class Inquiries:
    """Of one session. `closed` must be called."""

    def __init__(self, connection: Connection, control: ControlStream, mesh: Callable[[], MeshView]) -> None:
        self._connection = connection
        self._control = control
        self._mesh = mesh
        self._peers_wanted: deque[int] = deque()
        self._pages: Iterator[Peers] | None = None
        self._spreads: dict[int, Callable[[], object]] = {}

    def peers_wanted(self, id: int) -> None:
        """Answer with `write`; raises `ProtocolViolation` where too many are unanswered."""
        if len(self._peers_wanted) >= MAX_PEERS_WANTED:
            raise ProtocolViolation(f"PeersWanted: more than {MAX_PEERS_WANTED} are unanswered")
        self._peers_wanted.append(id)
        self._connection.transmit_soon()

    def spread_wanted(self, id: int, *, is_subscribed: bool) -> None:
        """Answer once the subscription has spread; raises `ProtocolViolation` likewise."""
        if not is_subscribed:
            self._control.write(Spread(id=id, nodes=0))
            return
        if id in self._spreads or len(self._spreads) >= MAX_SPREADS_WANTED:
            raise ProtocolViolation(f"SpreadWanted: the id is in use, or more than {MAX_SPREADS_WANTED} are unanswered")
        self._spreads[id] = lambda: None
        stop = self._mesh().when_spread(partial(self._on_spread, id))
        if id in self._spreads:
            self._spreads[id] = stop

    def write(self, size: int) -> None:
        """Answer what is asked about peers, until so many bytes have been written; go on in a later turn."""
        end = self._control.sent_size + size
        while (self._pages is not None or self._peers_wanted) and self._control.sent_size < end:
            if self._pages is None:
                self._pages = _pages(self._peers_wanted.popleft(), self._mesh().peers())
            page = next(self._pages, None)
            if page is None:
                self._pages = None
            else:
                self._control.write(page)

    def closed(self) -> None:
        spreads, self._spreads = self._spreads, {}
        for stop in spreads.values():
            stop()

    def _on_spread(self, id: int, nodes: int) -> None:
        if self._spreads.pop(id, None) is not None:
            self._control.write(Spread(id=id, nodes=nodes))


def _pages(id: int, peers: Sequence[PeerEntry]) -> Iterator[Peers]:
    page: list[PeerEntry] = []
    size = 0
    for peer in peers:
        size += _size_of(peer)
        if page and size > PAGE_SIZE:
            yield Peers(id=id, peers=tuple(page), more=True)
            page, size = [], _size_of(peer)
        page.append(peer)
    yield Peers(id=id, peers=tuple(page))


def _size_of(peer: PeerEntry) -> int:
    """Return at least what the entry takes in the frame."""
    texts = (peer.node, peer.name, peer.url, peer.state, peer.mode, *peer.addresses)
    return _ENTRY_OVERHEAD + sum(len(text.encode()) + 3 for text in texts)
