"""What the edge tells clients of the mesh, as a seam: sessions ask a `MeshView`, whatever stands behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from quicbus.wire.frames import PeerEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MAX_BROKERS", "Alone", "FurtherBrokers", "MeshView", "further_brokers"]

MAX_BROKERS = 16
"""URLs that a client is told: enough to find one that lives, few enough to try them all."""


class FurtherBrokers(NamedTuple):
    """URLs where the clients of a node may go when it is gone, at most `MAX_BROKERS`."""

    alive: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    """Of nodes that are suspect or failed: it may be this node that was cut off, and then these are all that is left
    to its clients."""

    @property
    def urls(self) -> tuple[str, ...]:
        return self.alive + self.doubtful

    def names_the_same(self, other: FurtherBrokers) -> bool:
        """Only the order differs: that is no news for clients."""
        return set(self.alive) == set(other.alive) and set(self.doubtful) == set(other.doubtful)


class MeshView(Protocol):
    """All of it answers at once, from what is known."""

    def peers(self) -> Sequence[PeerEntry]:
        """Return the members, this node included."""
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

    def when_spread(self, done: Callable[[int], None]) -> Callable[[], object]:
        done(0)
        return lambda: None


def further_brokers(peers: Sequence[PeerEntry]) -> FurtherBrokers:
    """Return where clients may go: nodes that can be dialed and have not left.

    The best address of each comes before further ones. Linked nodes come first, the nearest of them before the others;
    the order of the rest depends on the node that asks, so that not all clients of a large mesh go to the same.
    """
    me = next((int(peer.node, 16) for peer in peers if peer.is_self), 0)
    others = [peer for peer in peers if peer.addresses and peer.mode != "client" and not peer.is_self]
    alive = _urls_of([peer for peer in others if peer.state == "alive"], me)
    doubtful = _urls_of([peer for peer in others if peer.state in ("suspect", "failed")], me)
    return FurtherBrokers(alive, tuple(url for url in doubtful if url not in alive)[: MAX_BROKERS - len(alive)])


def _urls_of(peers: list[PeerEntry], me: int) -> tuple[str, ...]:
    # Chosen by what seldom changes, ordered by what was measured.
    peers.sort(key=lambda peer: (not peer.linked, int(peer.node, 16) ^ me))
    peers = peers[:MAX_BROKERS]
    peers.sort(key=lambda peer: (not peer.linked, peer.rtt_ms if peer.rtt_ms is not None else 1e9))
    most = max((len(peer.addresses) for peer in peers), default=0)
    urls = [f"quic://{peer.addresses[rank]}" for rank in range(most) for peer in peers if rank < len(peer.addresses)]
    return tuple(dict.fromkeys(urls))[:MAX_BROKERS]
