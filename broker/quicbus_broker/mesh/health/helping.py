"""Pings sent on behalf of others: a neighbour whose Ping was not answered asks whether this node gets an answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from quicbus.wire.frames import Ping
from quicbus.wire.node_frames import PingResult
from quicbus_broker.mesh.outputs import SendFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.wire.node_frames import PingRequest
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId, Output

__all__ = ["Helping"]

_MAX_REQUESTS = 256
"""Requests under way, of all neighbours."""
_MAX_OF_ONE = 4
"""Of one neighbour. It has one probe at a time, so more are not honest; nor can it have others pinged without end."""

_ANSWER_SHARE = 0.8
"""Of the probe time-out, so that the answer "no" is back before the asker's time is up (as in memberlist)."""


class _Request(msgspec.Struct):
    asker: NodeId
    id: int
    target: NodeId
    sent_at: float
    until: float


class Helping:
    """Each request is answered once: yes when the Pong comes, no when it does not, or when there is no way."""

    def __init__(self, config: MeshConfig, is_connected: Callable[[NodeId], bool], next_id: Callable[[], int]) -> None:
        self._timeout_s = _ANSWER_SHARE * config.probe_timeout_s
        self._is_connected = is_connected
        self._next_id = next_id
        # By id of the own Ping. All wait equally long, so the first is due first.
        self._requests: dict[int, _Request] = {}

    def on_ping_request(self, asker: NodeId, frame: PingRequest, now: float, outputs: list[Output]) -> None:
        mine = sum([request.asker == asker for request in self._requests.values()])
        if len(self._requests) >= _MAX_REQUESTS or mine >= _MAX_OF_ONE or not self._is_connected(frame.target):
            outputs.append(SendFrame(asker, PingResult(id=frame.id, answered=False)))
            return
        id = self._next_id()
        self._requests[id] = _Request(asker, frame.id, frame.target, now, now + self._timeout_s)
        outputs.append(SendFrame(frame.target, Ping(id=id)))

    def on_pong(self, node: NodeId, id: int, now: float, outputs: list[Output]) -> float | None:
        """Return the round trip if that Pong answers a Ping of a request."""
        request = self._requests.get(id)
        if request is None or request.target != node:
            return None
        del self._requests[id]
        outputs.append(SendFrame(request.asker, PingResult(id=request.id, answered=True)))
        return now - request.sent_at

    def next_timer(self) -> float:
        for request in self._requests.values():
            return request.until
        return math.inf

    def tick(self, now: float, outputs: list[Output]) -> None:
        while self._requests:
            id, request = next(iter(self._requests.items()))
            if request.until > now:
                return
            del self._requests[id]
            outputs.append(SendFrame(request.asker, PingResult(id=request.id, answered=False)))
