"""All peers, in the order of the tables; those that are missing here say why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.nats_peer import nats_peers
from benchmarks.peers.quicbus_peer import quicbus_peers

if TYPE_CHECKING:
    from benchmarks.peers.seam import Peer

__all__ = ["all_peers"]


def all_peers() -> list[Peer]:
    return [*quicbus_peers(), *nats_peers()]
