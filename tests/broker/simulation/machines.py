"""A machine that does next to nothing, to test the network below with."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from quicbus.wire.frames import Ping
from quicbus_broker.mesh.outputs import (
    ConnectionClosed,
    ConnectionOpened,
    Deliver,
    FrameArrived,
    MeshInput,
    MeshOutput,
    SendFrame,
    UseConnection,
)
from quicbus_broker.simulation.dialing import Dialing
from quicbus_broker.simulation.network import Network
from quicbus_broker.simulation.process import Process
from quicbus_broker.simulation.schedule import Schedule

if TYPE_CHECKING:
    from quicbus.wire.frames import Frame

DIAL_TIMEOUT_S = 5.0


class Notebook:
    """Writes down what it is told, with the time; uses the latest connection with each node; ticks when told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, MeshInput]] = []
        self.ticks: list[float] = []
        self.timer = math.inf

    def handle(self, event: MeshInput, now: float) -> list[MeshOutput]:
        self.seen.append((now, event))
        if isinstance(event, ConnectionOpened):
            return [UseConnection(event.node, event.connection)]
        return []

    def tick(self, now: float) -> list[MeshOutput]:
        self.ticks.append(now)
        self.timer = math.inf
        return []

    def next_timer(self) -> float:
        return self.timer

    @property
    def pings(self) -> list[int]:
        return [event.frame.id for event in self.frames if isinstance(event.frame, Ping)]

    @property
    def frames(self) -> list[FrameArrived]:
        return [event for _, event in self.seen if isinstance(event, FrameArrived)]

    @property
    def opened(self) -> list[ConnectionOpened]:
        return [event for _, event in self.seen if isinstance(event, ConnectionOpened)]

    @property
    def closed(self) -> list[tuple[float, ConnectionClosed]]:
        return [(time, event) for time, event in self.seen if isinstance(event, ConnectionClosed)]


class Pair:
    """Two processes, a and b, 10 ms apart, on a network of their own."""

    def __init__(self, latency_s: float = 0.01, jitter: float = 0.0) -> None:
        self.schedule = Schedule()
        self.network = Network(self.schedule, random.Random(1), lambda source, target: latency_s, jitter=jitter)
        self.dialing = Dialing(self.network, DIAL_TIMEOUT_S)
        self.machines = Notebook(), Notebook()
        self.a, self.b = (self.process(index, machine) for index, machine in enumerate(self.machines))

    def process(self, index: int, machine: Notebook) -> Process:
        return Process(
            node=bytes([index + 1]) * 16,
            name="ab"[index],
            boot=1,
            place=index,
            address=f"{'ab'[index]}:1",
            mode="hybrid",
            zero=0.0,
            machine=machine,
            network=self.network,
            dialing=self.dialing,
            observer=self,
        )

    def connect(self) -> None:
        self.dialing.dial(self.a, self.b.address, self.b.node)
        self.schedule.run_for(1.0)

    def send(self, source: Process, target: Process, frame: Frame) -> None:
        source.perform([SendFrame(target.node, frame)])

    def delivered(self, process: Process, deliver: Deliver) -> None:
        raise AssertionError(deliver)

    def happened(self, process: Process, output: MeshOutput) -> None:
        pass
