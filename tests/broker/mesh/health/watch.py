"""A detector whose neighbours are played."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from quicbus.wire.frames import Ping, Pong
from quicbus.wire.node_frames import PingRequest, PingResult
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.health.detector import Detector
from quicbus_broker.mesh.outputs import LinkSilent, SendFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.mesh.outputs import NodeId, Output

ME = bytes(16)
CONFIG = MeshConfig()


def node_id(number: int) -> NodeId:
    return number.to_bytes(16, "big")


A, B, C, D, E = (node_id(number) for number in range(1, 6))


class Watch:
    """A detector, and the rest of the mesh as a function that answers its frames at once (or not)."""

    def __init__(self, *neighbors: NodeId, config: MeshConfig = CONFIG, now: float = 0.0) -> None:
        self.connected = dict.fromkeys(neighbors)
        self.detector = Detector(ME, config, random.Random(3), self.connected.__contains__)
        self.now = now
        self.silent: list[tuple[NodeId, bool]] = []
        """What came out about links that are silent; the rest is returned."""
        for node in neighbors:
            self.detector.neighbor_up(node, now)

    def _rest(self, outputs: list[Output]) -> list[Output]:
        self.silent += [(output.node, output.is_silent) for output in outputs if isinstance(output, LinkSilent)]
        return [output for output in outputs if not isinstance(output, LinkSilent)]

    def tick(self) -> list[Output]:
        """Go to the next timer."""
        return self.tick_at(self.detector.next_timer())

    def tick_at(self, now: float) -> list[Output]:
        assert now >= self.now
        self.now = now
        outputs: list[Output] = []
        self.detector.tick(now, outputs)
        return self._rest(outputs)

    def pong(self, node: NodeId, id: int, after: float = 0.0) -> list[Output]:
        self.now += after
        outputs: list[Output] = []
        self.detector.on_pong(node, Pong(id=id), self.now, outputs)
        return self._rest(outputs)

    def result(self, node: NodeId, id: int, answered: bool) -> list[Output]:
        outputs: list[Output] = []
        self.detector.on_ping_result(node, PingResult(id=id, answered=answered), self.now, outputs)
        return self._rest(outputs)

    def request(self, node: NodeId, id: int, target: NodeId) -> list[Output]:
        outputs: list[Output] = []
        self.detector.on_ping_request(node, PingRequest(id=id, target=target), self.now, outputs)
        return self._rest(outputs)

    def probe(self) -> tuple[NodeId, int]:
        """Go to the next probe; return whom it pings, and the id."""
        (output,) = self.tick()
        assert isinstance(output, SendFrame)
        assert isinstance(output.frame, Ping)
        return output.node, output.frame.id

    def run(self, until: float, answer: Callable[[NodeId], bool]) -> list[Output]:
        """Run with neighbours that answer as told; helpers answer honestly. Return what was found out."""
        found: list[Output] = []
        while self.detector.next_timer() <= until:
            todo = self.tick()
            while todo:
                output = todo.pop(0)
                if isinstance(output, SendFrame) and isinstance(output.frame, Ping) and answer(output.node):
                    todo += self.pong(output.node, output.frame.id)
                elif isinstance(output, SendFrame) and isinstance(output.frame, PingRequest) and answer(output.node):
                    todo += self.result(output.node, output.frame.id, answer(output.frame.target))
                elif not isinstance(output, SendFrame):
                    found.append(output)
        return found


def pinged(outputs: list[Output]) -> list[NodeId]:
    return [o.node for o in outputs if isinstance(o, SendFrame) and isinstance(o.frame, Ping)]


def requests(outputs: list[Output]) -> dict[NodeId, PingRequest]:
    return {o.node: o.frame for o in outputs if isinstance(o, SendFrame) and isinstance(o.frame, PingRequest)}
