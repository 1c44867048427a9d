"""A few overlays that dial and link each other in virtual time: frames keep their order, faults are set by the test."""

from __future__ import annotations

import math
import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Disconnect, MemberRecord, Neighbor, NeighborReply, Signed
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.members.table import Entry, MemberTable
from quicbus_broker.mesh.outputs import (
    CloseConnection,
    ConnectionOpened,
    Dial,
    DialFailed,
    MemberChanged,
    ProbeFailed,
    SendFrame,
    State,
    UseConnection,
)
from quicbus_broker.mesh.overlay.connections import Connections
from quicbus_broker.mesh.overlay.overlay import Overlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.wire.frames import Frame
    from quicbus_broker.mesh.outputs import NodeId, Output

LATENCY_S = 0.01


def node_id(number: int) -> NodeId:
    return number.to_bytes(16, "big")


def address_of(node: NodeId) -> str:
    return f"host{int.from_bytes(node, 'big')}:4433"


def entry_of(node: NodeId, *, mode: str = "hybrid", state: State = State.ALIVE, boot: int = 1) -> Entry:
    addresses = () if mode == "client" else (address_of(node),)
    record = MemberRecord(node=node, name="n", boot=boot, incarnation=boot, mode=mode, addresses=addresses)
    return Entry(record, Signed(b"", b""), state)


class Node:
    """Connections and overlay of one process, with a table that the test fills."""

    def __init__(self, node: NodeId, *, mode: str = "hybrid", seed: int = 1, config: MeshConfig | None = None) -> None:
        self.me = node
        self.mode = mode
        self.boot = 1
        self.config = config or MeshConfig()
        self.table = MemberTable()
        self.table.put(entry_of(node, mode=mode))
        self.connections = Connections(node)
        rng = random.Random(seed)
        self.overlay = Overlay(node, mode, self.table, self.connections, self.config, rng)
        self.outputs: list[Output] = []
        """All that came out so far."""

    @property
    def neighbors(self) -> list[NodeId]:
        return sorted(self.overlay.neighbors)

    def knows(self, *nodes: NodeId, now: float = 0.0, **kind: str) -> None:
        for node in nodes:
            self.learn(entry_of(node, **kind), now)  # type: ignore[arg-type]

    def learn(self, entry: Entry, now: float) -> list[Output]:
        before = self.table.get(entry.record.node)
        self.table.put(entry)
        outputs: list[Output] = []
        change = MemberChanged(
            entry.record.node,
            entry.record.name,
            before.state if before else None,
            entry.state,
            has_moved=before is None or before.record.boot != entry.record.boot,
        )
        self.overlay.member_changed(change, now, outputs)
        self.outputs += outputs
        return outputs

    def set_state(self, node: NodeId, state: State, now: float) -> list[Output]:
        return self.learn(entry_of(node, state=state), now)

    def opened(self, connection: int, node: NodeId, now: float, *, is_dialer: bool, boot: int = 1) -> list[Output]:
        outputs: list[Output] = []
        event = ConnectionOpened(connection, node, boot, is_dialer, address_of(node))
        self.connections.opened(event, now, outputs)
        self.overlay.connected(event, now, outputs)
        self.outputs += outputs
        return outputs

    def closed(self, connection: int, now: float, *, is_clean: bool = False) -> list[Output]:
        outputs: list[Output] = []
        node, was_last = self.connections.closed(connection, outputs)
        if node is not None and was_last:
            self.overlay.disconnected(node, is_clean, now, outputs)
        self.outputs += outputs
        return outputs

    def take(self, node: NodeId, frame: Frame, now: float) -> list[Output]:
        outputs: list[Output] = []
        match frame:
            case Neighbor():
                self.overlay.on_neighbor(node, frame, now, outputs)
            case NeighborReply():
                self.overlay.on_neighbor_reply(node, frame, now, outputs)
            case Disconnect():
                self.overlay.on_disconnect(node, frame, now, outputs)
        self.outputs += outputs
        return outputs

    def link(self, connection: int, node: NodeId, now: float, *, is_dialer: bool = True) -> None:
        """Bring up a link, as the other side asked for it."""
        self.opened(connection, node, now, is_dialer=is_dialer)
        self.take(node, Neighbor(urgent=True), now)

    def tick(self, now: float) -> list[Output]:
        outputs: list[Output] = []
        self.connections.tick(now, outputs)
        self.overlay.tick(now, outputs)
        self.outputs += outputs
        return outputs

    def run(self, start: float, until: float) -> list[Output]:
        """Tick whenever it asks for it."""
        outputs: list[Output] = []
        now = start
        while (timer := max(now, min(self.overlay.next_timer(), self.connections.next_timer()))) <= until:
            assert timer > now or len(outputs) < 10_000, "a timer that does not move on"
            now = timer
            outputs += self.tick(now)
        return outputs


class World:
    """Nodes whose dials become connections and whose frames arrive after `LATENCY_S`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.nodes: dict[NodeId, Node] = {}
        self.down: set[NodeId] = set()
        self.cut: Callable[[NodeId, NodeId], bool] = lambda source, target: False
        """Nothing gets from the one to the other."""
        self.loses: Callable[[NodeId, NodeId, Frame], bool] = lambda source, target, frame: False
        self.dials: list[tuple[NodeId, str]] = []
        self.accused: list[tuple[NodeId, NodeId]] = []
        self._ends: dict[int, tuple[NodeId, NodeId]] = {}
        self._used: dict[tuple[NodeId, NodeId], int] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def add(self, node: Node, *, seeds: tuple[str, ...] = ()) -> None:
        self.nodes[node.me] = node
        outputs: list[Output] = []
        node.overlay.start(seeds, (), self.now, outputs)
        self.perform(node, outputs)

    def introduce(self) -> None:
        """Everybody knows everybody."""
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node:
                    entry = entry_of(other.me, mode=other.mode, boot=other.boot)
                    self.perform(node, node.learn(entry, self.now))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            timers = [
                (min(node.overlay.next_timer(), node.connections.next_timer()), node)
                for node in self.nodes.values()
                if node.me not in self.down
            ]
            timer, ticking = min(timers, key=lambda item: item[0], default=(math.inf, None))
            event = self._queue[0][0] if self._queue else math.inf
            if min(timer, event) > until:
                break
            self.now = max(self.now, min(timer, event))
            if event <= timer:
                heappop(self._queue)[2]()
            elif ticking is not None:
                self.perform(ticking, ticking.tick(self.now))
        self.now = until

    def perform(self, node: Node, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Dial(address=address, node=target):
                    self.dials.append((node.me, address))
                    self._dial(node, address, target)
                case SendFrame(node=target, frame=frame):
                    connection = self._used.get((node.me, target))
                    if connection is not None and not self.loses(node.me, target, frame):
                        self._after(LATENCY_S, self._arrival(connection, node.me, target, frame))
                case UseConnection(node=target, connection=connection):
                    if connection is None:
                        self._used.pop((node.me, target), None)
                    else:
                        self._used[node.me, target] = connection
                case CloseConnection(connection=connection, code=code):
                    self._after(LATENCY_S, lambda c=connection, by=node.me, k=code: self._close(c, by, k == 0))  # type: ignore[misc]
                case ProbeFailed(node=target):
                    self.accused.append((node.me, target))
                case _:
                    pass

    def break_connections(self, node: NodeId) -> None:
        """All its connections end without a goodbye, at both sides."""
        for connection, ends in list(self._ends.items()):
            if node in ends:
                del self._ends[connection]
                for end in ends:
                    self._closed(connection, end, is_clean=False)

    def kill(self, node: NodeId) -> None:
        self.down.add(node)
        self.break_connections(node)

    def one_sided(self) -> list[tuple[NodeId, NodeId]]:
        return [
            (node.me, other)
            for node in self.nodes.values()
            if node.me not in self.down
            for other in node.neighbors
            if other in self.down or node.me not in self.nodes[other].overlay.neighbors
        ]

    def is_connected_graph(self) -> bool:
        alive = [node for node in self.nodes if node not in self.down]
        seen, frontier = {alive[0]}, [alive[0]]
        while frontier:
            for other in self.nodes[frontier.pop()].neighbors:
                if other not in seen and other not in self.down:
                    seen.add(other)
                    frontier.append(other)
        return len(seen) == len(alive)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._number += 1
        heappush(self._queue, (self.now + seconds, self._number, action))

    def _dial(self, node: Node, address: str, target: NodeId | None) -> None:
        found = next((other for other in self.nodes if address_of(other) == address), None)
        blocked = found is None or found in self.down or self.cut(node.me, found) or self.cut(found, node.me)
        if blocked or (target is not None and found != target):
            failure = DialFailed(address, target, "no answer")
            self._after(node.config.dial_timeout_s, lambda: self._fail(node, failure))
            return
        assert found is not None
        self._number += 1
        connection = self._number
        self._ends[connection] = (node.me, found)
        self._after(2 * LATENCY_S, lambda: self._open(connection, node.me, found, is_dialer=True))
        self._after(3 * LATENCY_S, lambda: self._open(connection, found, node.me, is_dialer=False))

    def _open(self, connection: int, me: NodeId, other: NodeId, *, is_dialer: bool) -> None:
        if connection in self._ends and me not in self.down:
            node = self.nodes[me]
            opened = node.opened(connection, other, self.now, is_dialer=is_dialer, boot=self.nodes[other].boot)
            self.perform(node, opened)

    def _fail(self, node: Node, failure: DialFailed) -> None:
        if node.me not in self.down:
            outputs: list[Output] = []
            node.overlay.dial_failed(failure, self.now, outputs)
            self.perform(node, outputs)

    def _arrival(self, connection: int, source: NodeId, target: NodeId, frame: Frame) -> Callable[[], None]:
        def arrive() -> None:
            node = self.nodes[target]
            is_open = connection in self._ends and node.connections.node_of(connection) == source
            if is_open and target not in self.down and not self.cut(source, target):
                self.perform(node, node.take(source, frame, self.now))

        return arrive

    def _close(self, connection: int, by: NodeId, is_clean: bool) -> None:
        ends = self._ends.pop(connection, None)
        for end in ends or ():
            self._closed(connection, end, is_clean=is_clean)

    def _closed(self, connection: int, end: NodeId, *, is_clean: bool) -> None:
        if end not in self.down:
            node = self.nodes[end]
            self.perform(node, node.closed(connection, self.now, is_clean=is_clean))
