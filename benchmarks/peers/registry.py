"""All peers, in the order of the tables; those that are missing here say why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.mosquitto_peer import mosquitto_peers
from benchmarks.peers.nats_peer import nats_peers
from benchmarks.peers.quicbus_peer import quicbus_peers
from benchmarks.peers.redis_peer import redis_peers
from benchmarks.peers.zenoh_peer import zenoh_peers

if TYPE_CHECKING:
    from benchmarks.peers.seam import Peer

__all__ = ["all_peers"]


def all_peers() -> list[Peer]:
    return [*quicbus_peers(), *nats_peers(), *zenoh_peers(), *mosquitto_peers(), *redis_peers()]
