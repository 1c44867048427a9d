"""Drivers between machines that only record, and connections that are pipes."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

from quicbus.identity import Verifier
from quicbus.testing.pipe import Pipe
from quicbus_broker.edge import Edge, EdgeLimits, Exchange
from quicbus_broker.mesh.driver import MeshDriver
from quicbus_broker.mesh.outputs import ConnectionOpened, Deliver, Dial, MemberChanged, MemberRevoked, UseConnection
from quicbus_broker.routing import Router
from tests.broker.mesh.linked import authority, node_credential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.engine import EngineConfiguration
    from quicbus_broker.mesh.outputs import MeshInput, MeshOutput

DEADLINE_S = 120.0


class FakeMesh:
    """Records what it is told; `answer` says what it wants done."""

    def __init__(self, name: str, boot: int) -> None:
        self.me = node_credential(name).node_id
        self.name = name
        self.boot = boot
        self.mode = "hybrid"
        self.events: list[MeshInput] = []
        self.answer: Callable[[MeshInput], list[MeshOutput]] = lambda event: []
        self.starts: list[dict[str, Any]] = []
        self.ticks: list[float] = []
        self.timer = math.inf
        self.ended_turns = 0
        self.wants_turn = False
        self.at_end_of_turn: list[MeshOutput] = []
        self.given_back: list[tuple[bytes, object]] = []
        self.leaves = 0
        self.refused: list[bytes] = []

    def start(self, **arguments: Any) -> list[MeshOutput]:
        self.starts.append(arguments)
        return [Dial(seed, None) for seed in arguments["seeds"]]

    def handle(self, event: MeshInput, now: float) -> list[MeshOutput]:
        self.events.append(event)
        outputs: list[MeshOutput] = []
        if isinstance(event, ConnectionOpened):
            outputs.append(UseConnection(event.node, event.connection))
        return outputs + self.answer(event)

    def tick(self, now: float) -> list[MeshOutput]:
        self.ticks.append(now)
        self.timer = math.inf
        return []

    def next_timer(self) -> float:
        return self.timer

    def end_turn(self, now: float) -> list[MeshOutput]:
        self.ended_turns += 1
        outputs, self.at_end_of_turn = self.at_end_of_turn, []
        return outputs

    def give_back(self, origin: bytes, batch: object, age_ms: int, now: float) -> list[MeshOutput]:
        self.given_back.append((origin, batch))
        return []

    def is_refused(self, node: bytes, now: float) -> bool:
        return node in self.refused

    def leave(self, now: float) -> list[MeshOutput]:
        self.leaves += 1
        return []

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Told:
    """DriverEvents and Receiver."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.takes = True
        self.on_deliver: Callable[[], None] = lambda: None

    def deliver(self, deliver: Deliver) -> bool:
        self.calls.append(("deliver", deliver))
        self.on_deliver()
        return self.takes

    def returned(self, node: bytes, batch: object, age_ms: int) -> None:
        self.calls.append(("returned", node, batch))

    def pause_changed(self, node: bytes, filter: str, is_paused: bool) -> None:
        self.calls.append(("pause", node, filter, is_paused))

    def congestion_changed(self, is_congested: bool) -> None:
        self.calls.append(("congestion", is_congested))

    def spread_reached(self, version: int) -> None:
        self.calls.append(("spread", version))

    def member_changed(self, change: MemberChanged) -> None:
        self.calls.append(("member", change))

    def member_revoked(self, revoked: MemberRevoked) -> None:
        self.calls.append(("revoked", revoked))

    def trust_learned(self, signed: bytes) -> None:
        self.calls.append(("trust", signed))

    def self_revoked(self) -> None:
        self.calls.append(("self revoked",))

    def superseded(self, boot: int, addresses: tuple[str, ...]) -> None:
        self.calls.append(("superseded", boot, addresses))


class Node:
    """A driver behind an edge, as a broker has them."""

    def __init__(self, name: str, boot: int = 1) -> None:
        self.name = name
        self.credential = node_credential(name)
        self.mesh = FakeMesh(name, boot)
        self.told = Told()
        clock = asyncio.get_running_loop().time
        self.driver = MeshDriver(
            self.mesh,  # type: ignore[arg-type]  # as much of it as a driver calls
            self.told,
            credential=lambda: self.credential,
            clock=clock,
            dial_timeout_s=0.05,
        )
        self.driver.receiver = self.told
        exchange = Exchange(Router(block_timeout_s=30.0), origin=self.mesh.me, boot=boot, clock=clock)
        self.edge = Edge(exchange, EdgeLimits())
        self.admission = self.edge.admission(Verifier(authority().certificate_pem, authority().mesh))
        self.admission.nodes = self.driver

    def link(self, node: Node) -> int:
        """Return the number of the connection with a node."""
        return next(link.number for link in self.driver.links if link.node == node.mesh.me)


class Network:
    """Which node is at which address; as an `Endpoint` it dials. What is nowhere never answers."""

    def __init__(self) -> None:
        self.nodes: dict[Address, Node] = {}
        self.names: dict[str, list[Address]] = {}
        self.pipes: list[Pipe] = []
        self.dialed: list[Address] = []
        self._wants_pump = False

    def dial(
        self,
        address: Address,
        configuration: EngineConfiguration,
        make_handler: Callable[[Connection], ConnectionHandler],
    ) -> Connection:
        assert configuration.server_name == f"node.{authority().mesh}.quicbus.internal"
        if address[0] == "::9":
            raise OSError(101, "Network is unreachable")
        self.dialed.append(address)
        pipe = Pipe()
        handler = make_handler(pipe.dialer)
        node = self.nodes.get(address)
        if node is not None:
            pipe.dialer.listener_node = node.mesh.me
            pipe.start(handler, node.edge.make_session(pipe.listener, node.admission))
        else:
            pipe.dialer.handler = pipe.listener.handler = handler
        pipe.wake = self._pump_soon
        self.pipes.append(pipe)
        self._pump_soon()
        return pipe.dialer

    async def addresses_of(self, name: str) -> list[Address]:
        if name not in self.names:
            raise OSError("no such name")
        return self.names[name]

    def _pump_soon(self) -> None:
        if not self._wants_pump:
            self._wants_pump = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        while any(pipe.pump_once() for pipe in list(self.pipes)):
            pass
        self._wants_pump = False


@contextlib.asynccontextmanager
async def started(network: Network, *names: str, **seeds: str) -> AsyncIterator[list[Node]]:
    """Nodes that are started, each at the name `<name>:1`; `seeds` are dialed at once."""
    async with asyncio.timeout(DEADLINE_S):
        nodes = [Node(name) for name in names]
        for index, node in enumerate(nodes):
            address = (f"192.0.2.{index + 1}", 1)
            network.nodes[address] = node
            network.names[f"{node.name}:1"] = [address]
        for node in nodes:
            seed = (seeds[node.name],) if node.name in seeds else ()
            node.driver.start(network, addresses=(f"{node.name}:1",), seeds=seed)  # type: ignore[arg-type]
        await settled()
        yield nodes
        for node in nodes:
            node.driver.close()
        await settled()


async def settled() -> None:
    """Let everything that is ready happen."""
    for _ in range(20):
        await asyncio.sleep(0)


def perform(node: Node, *outputs: MeshOutput) -> None:
    node.driver.perform(list(outputs))
