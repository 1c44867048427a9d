"""The one node whose overlay is tested: whom it knows and is linked to, and what of its outputs is looked at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus.wire.node_frames import NeighborReply
from quicbus_broker.mesh.config import MeshConfig, active_links
from quicbus_broker.mesh.outputs import Dial, DialFailed, SendFrame
from tests.broker.mesh.overlay_world import Node, node_id

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId, Output

CONFIG = MeshConfig()
ME = node_id(50)
A, B, C = node_id(1), node_id(2), node_id(3)
MANY = [node_id(number) for number in range(100, 200)]
GRANTED, REFUSED = NeighborReply(granted=True), NeighborReply(granted=False)


def dials(outputs: list[Output]) -> list[NodeId | None]:
    return [output.node for output in outputs if isinstance(output, Dial)]


def sent(outputs: list[Output], node: NodeId) -> list[object]:
    return [output.frame for output in outputs if isinstance(output, SendFrame) and output.node == node]


def fail(node: Node, address: str, target: NodeId | None, now: float, *, is_final: bool = False) -> list[Output]:
    outputs: list[Output] = []
    node.overlay.dial_failed(DialFailed(address, target, "no answer", is_final), now, outputs)
    return outputs


def full_node(count: int | None = None) -> tuple[Node, int]:
    """A node of a large mesh with as many links as it grants, or so many; and their number."""
    node = Node(ME)
    node.overlay.start((), (), 0.0, [])
    node.knows(*MANY)
    target = active_links(len(MANY), CONFIG.small_mesh)
    count = math.ceil(CONFIG.max_links_factor * target) if count is None else count
    for connection, other in enumerate(MANY[:count], 1):
        node.link(connection, other, 0.0)
    assert len(node.neighbors) == count
    return node, count
