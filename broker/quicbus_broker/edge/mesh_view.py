"""What the edge tells clients of the mesh, as a seam: sessions ask a `MeshView`, whatever stands behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quicbus.wire.frames import PeerEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MAX_BROKERS", "Alone", "MeshView", "urls_of"]

MAX_BROKERS = 16
"""URLs that a client is told: enough to find one that lives, few enough to try them all."""


class MeshView(Protocol):
    """All of it answers at once, from what is known."""

    def peers(self) -> Sequence[PeerEntry]:
        """Return the members, this node included."""
        ...

    def brokers(self) -> Sequence[str]:
        """Return the URLs that clients of this node should try when it is gone, see `urls_of`."""
        ...

    def when_spread(self, done: Callable[[int], None]) -> Callable[[], object]:
        """Call `done` with the number of linked nodes once they all know what is subscribed to here now.

        It may be called before this returns. What is returned ends the interest in it.
        """
        ...


class Alone:
    """A broker without a mesh."""

    def __init__(self, node: bytes, boot: int, *, name: str = "", url: str = "") -> None:
        self._me = PeerEntry(node=node.hex(), name=name, url=url, state="alive", mode="hybrid", boot=boot, is_self=True)

    def peers(self) -> Sequence[PeerEntry]:
        return (self._me,)

    def brokers(self) -> Sequence[str]:
        return ()

    def when_spread(self, done: Callable[[int], None]) -> Callable[[], object]:
        done(0)
        return lambda: None


def urls_of(peers: Sequence[PeerEntry]) -> tuple[str, ...]:
    """Return where clients may go: nodes that are alive and can be dialed, at most `MAX_BROKERS` URLs.

    The best address of each comes before further ones. Linked nodes come first, the nearest of them before the others;
    the order of the rest depends on the node that asks, so that not all clients of a large mesh go to the same.
    """
    me = next((int(peer.node, 16) for peer in peers if peer.is_self), 0)
    others = [peer for peer in peers if peer.state == "alive" and peer.addresses and not peer.is_self]
    others = [peer for peer in others if peer.mode != "client"]
    # Chosen by what seldom changes, ordered by what was measured.
    others.sort(key=lambda peer: (not peer.linked, int(peer.node, 16) ^ me))
    others = others[:MAX_BROKERS]
    others.sort(key=lambda peer: (not peer.linked, peer.rtt_ms if peer.rtt_ms is not None else 1e9))
    most = max((len(peer.addresses) for peer in others), default=0)
    urls = [f"quic://{peer.addresses[rank]}" for rank in range(most) for peer in others if rank < len(peer.addresses)]
    return tuple(dict.fromkeys(urls))[:MAX_BROKERS]
