"""What a session asks its broker and is answered by id: pings, the members of the mesh, how far interest has spread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.frames import Peers, PeersWanted, Ping, SpreadWanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.wire.frames import Frame, PeerEntry, Pong, Spread

__all__ = ["MAX_PEERS", "Queries"]

MAX_PEERS = 100_000
"""Of one answer: ten times the largest mesh that is simulated."""


class Queries:
    """Of one session. Each `answered` is called once, or never where the session is closed before."""

    def __init__(self, send: Callable[[Frame], None]) -> None:
        self._send = send
        self._last_id = 0
        self._pings: dict[int, Callable[[], None]] = {}
        self._spreads: dict[int, Callable[[int], None]] = {}
        self._peers: dict[int, tuple[list[PeerEntry], Callable[[list[PeerEntry]], None]]] = {}

    def ping(self, answered: Callable[[], None] = lambda: None) -> None:
        if len(self._pings) >= limits.EVENTS_BUFFER:
            del self._pings[next(iter(self._pings))]
        id = self._next_id()
        self._pings[id] = answered
        self._send(Ping(id=id))

    def peers(self, answered: Callable[[list[PeerEntry]], None]) -> Callable[[], object]:
        """Ask for the members of the mesh; what is returned ends the interest in the answer."""
        id = self._next_id()
        self._peers[id] = ([], answered)
        self._send(PeersWanted(id=id))
        return partial(self._peers.pop, id, None)

    def spread(self, subscription: int, answered: Callable[[int], None]) -> Callable[[], object]:
        """Ask to be told once all linked nodes know the subscription; likewise."""
        id = self._next_id()
        self._spreads[id] = answered
        self._send(SpreadWanted(id=id, subscription=subscription))
        return partial(self._spreads.pop, id, None)

    # --- frames

    def on_pong(self, frame: Pong) -> None:
        # The watchdog looks at `Connection.last_heard`, which has moved.
        answered = self._pings.pop(frame.id, None)
        if answered is not None:
            answered()

    def on_peers(self, frame: Peers) -> None:
        known = self._peers.get(frame.id)
        if known is None:
            return
        gathered, answered = known
        gathered.extend(frame.peers)
        if len(gathered) > MAX_PEERS:
            raise ProtocolViolation(f"Peers: more than {MAX_PEERS} nodes")
        if not frame.more:
            del self._peers[frame.id]
            answered(gathered)

    def on_spread(self, frame: Spread) -> None:
        answered = self._spreads.pop(frame.id, None)
        if answered is not None:
            answered(frame.nodes)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id
