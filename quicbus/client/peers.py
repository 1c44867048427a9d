"""What `bus.peers()` returns: the nodes of the mesh, as the broker that answers sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus.wire.frames import PeerEntry

__all__ = ["Peer", "peer_of"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the mesh. `node` tells nodes apart; names and addresses need not."""

    node: str
    """Its id, 32 hex digits: a hash of its key, the same after restarts and moves."""
    name: str
    url: str
    """Where clients reach it; empty: it cannot be dialed."""
    state: str
    """`alive`, `suspect` (did not answer, may refute), `failed` or `left` (by itself)."""
    rtt_ms: float | None
    """Round trip from the broker that answers, where it measures one: over its links."""
    linked: bool
    """The broker that answers has a link to it."""
    mode: str
    """`hybrid`, `server` (accepts only) or `client` (dials only)."""
    boot: int
    """Grows with each start."""
    addresses: tuple[str, ...]
    """`HOST:PORT`, best first."""
    is_self: bool
    """This is the broker that answers."""


def peer_of(entry: PeerEntry) -> Peer:
    return Peer(
        node=entry.node,
        name=entry.name,
        url=entry.url,
        state=entry.state,
        rtt_ms=entry.rtt_ms,
        linked=entry.linked,
        mode=entry.mode,
        boot=entry.boot,
        addresses=entry.addresses,
        is_self=entry.is_self,
    )
