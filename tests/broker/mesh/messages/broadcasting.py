"""Broadcast machines under test: one node whose neighbours are played, and a whole simulated mesh."""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING

from quicbus.wire.bundles import EVERYONE, KIND_BROADCAST, Bundle, BundleBatch
from quicbus.wire.node_frames import Graft, IHave, InterestPiece, MemberRecord, Prune, Signed
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.messages.broadcast import Broadcast
from quicbus_broker.mesh.outputs import Output, SendBundle, SendFrame

if TYPE_CHECKING:
    from quicbus.wire.frames import Frame

ME, A, B, C, ORIGIN, STRANGER = (letter * 16 for letter in (b"m", b"a", b"b", b"c", b"o", b"s"))
CONFIG = MeshConfig(max_hops=8)


class Signatures:
    """Stands in for `Signing`: `good` is the signature of everyone, of whom all but some are known."""

    def __init__(self) -> None:
        self.unknown = {STRANGER}
        self.checked = 0

    def knows(self, node: bytes) -> bool:
        return node not in self.unknown

    def check_bundle(self, origin: bytes, signed: bytes, signature: bytes) -> bool:
        self.checked += 1
        return origin not in self.unknown and signature == b"good"

    def sign_bundle(self, signed: bytes) -> bytes:
        return b"good"

    def seal_record(self, record: MemberRecord) -> Signed:
        raise NotImplementedError

    def open_record(self, signed: Signed) -> MemberRecord:
        raise NotImplementedError

    def seal_interest(self, piece: InterestPiece) -> Signed:
        raise NotImplementedError

    def open_interest(self, signed: Signed) -> InterestPiece:
        raise NotImplementedError


def bundle(
    number: int = 1, *, boot: int = 1, origin: bytes = ORIGIN, hops: int = 5, signature: bytes = b"good"
) -> Bundle:
    batches = (BundleBatch(number, 0, number, 0, "alice", b"body"),)
    signed = b"%d of %d" % (number, boot)
    return Bundle(KIND_BROADCAST, origin, boot, number, EVERYONE, 0, batches, hops, 0, signed, signature)


class Node:
    def __init__(self, *neighbors: bytes, lazy: tuple[bytes, ...] = ()) -> None:
        self.signing = Signatures()
        self.boots: dict[bytes, int | None] = {}
        self.machine = Broadcast(ME, CONFIG, self.signing, random.Random(1), lambda node: self.boots.get(node, 1))
        self.counters = self.machine.counters
        self.now = 50.0
        for node in (*neighbors, *lazy):
            self.machine.neighbor_up(node)
        for node in lazy:
            self.machine.on_prune(node, Prune(), self.now, [])

    def publish(self, each: Bundle) -> list[Output]:
        outputs: list[Output] = []
        self.machine.publish(each, self.now, outputs)
        return outputs

    def take(self, node: bytes, each: Bundle) -> tuple[bool, list[Output]]:
        outputs: list[Output] = []
        return self.machine.on_bundle(node, each, self.now, outputs), outputs

    def hear(self, node: bytes, frame: Frame) -> list[Output]:
        outputs: list[Output] = []
        match frame:
            case IHave():
                self.machine.on_ihave(node, frame, self.now, outputs)
            case Graft():
                self.machine.on_graft(node, frame, self.now, outputs)
            case Prune():
                self.machine.on_prune(node, frame, self.now, outputs)
        return outputs

    def wait(self, seconds: float) -> list[Output]:
        """Let time pass, with a tick whenever one is due."""
        end = self.now + seconds
        outputs: list[Output] = []
        while (due := self.machine.next_timer()) <= end:
            self.now = max(self.now, due)
            self.machine.tick(self.now, outputs)
        self.now = end
        return outputs


class Mesh:
    """Many machines on a random graph, with latencies. What is sent to a node that has crashed is lost."""

    def __init__(self, size: int, links: int, seed: int) -> None:
        print("seed", seed)
        self.rng = random.Random(seed)
        self.config = MeshConfig()
        self.nodes = [number.to_bytes(16, "big") for number in range(size)]
        self.machines = {
            node: Broadcast(node, self.config, Signatures(), random.Random(self.rng.random())) for node in self.nodes
        }
        self.neighbors: dict[bytes, dict[bytes, float]] = {node: {} for node in self.nodes}
        self.now = 0.0
        self.queue: list[tuple[float, int, bytes, bytes, SendBundle | SendFrame]] = []
        self.count = 0
        self.copies: dict[int, int] = {}
        self.hops: dict[int, dict[bytes, int]] = {}
        for node in self.nodes:
            while len(self.neighbors[node]) < links:
                self.link(node, self.rng.choice(self.nodes))

    def link(self, one: bytes, other: bytes) -> None:
        if one == other or other in self.neighbors[one]:
            return
        self.neighbors[one][other] = self.neighbors[other][one] = self.rng.uniform(0.005, 0.05)
        self.machines[one].neighbor_up(other)
        self.machines[other].neighbor_up(one)

    def crash(self, node: bytes) -> None:
        del self.machines[node]

    def notice(self, dead: bytes) -> None:
        """Those that had a link to a dead node replace it."""
        for node in self.neighbors.pop(dead):
            if node in self.machines:
                del self.neighbors[node][dead]
                self.machines[node].neighbor_down(dead)
                self.link(node, self.rng.choice(list(self.machines)))

    def publish(self, node: bytes, number: int, own: int) -> None:
        batches = (BundleBatch(number, 0, own, 0, "", b""),)
        each = Bundle(KIND_BROADCAST, node, 1, own, EVERYONE, 0, batches, self.config.max_hops, 0, b"", b"good")
        self.copies[number], self.hops[number] = 0, {node: 0}
        outputs: list[Output] = []
        self.machines[node].publish(each, self.now, outputs)
        self.send(node, outputs)

    def send(self, node: bytes, outputs: list[Output]) -> None:
        for output in outputs:
            assert isinstance(output, SendBundle | SendFrame)
            self.count += 1
            at = self.now + self.neighbors[node].get(output.node, 0.05)
            heapq.heappush(self.queue, (at, self.count, node, output.node, output))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due, node = min((machine.next_timer(), node) for node, machine in self.machines.items())
            at = self.queue[0][0] if self.queue else math.inf
            if min(due, at) > end:
                break
            outputs: list[Output] = []
            if due <= at:
                self.now = max(due, self.now)
                self.machines[node].tick(self.now, outputs)
            else:
                self.now, _, source, node, sent = heapq.heappop(self.queue)
                if node not in self.machines:
                    continue
                self.arrive(source, node, sent, outputs)
            self.send(node, outputs)
        self.now = end

    def arrive(self, source: bytes, node: bytes, sent: SendBundle | SendFrame, outputs: list[Output]) -> None:
        machine = self.machines[node]
        match sent:
            case SendBundle(bundle=each):
                number = each.batches[0].id
                self.copies[number] += 1
                if machine.on_bundle(source, each, self.now, outputs):
                    assert node not in self.hops[number], "taken twice"
                    self.hops[number][node] = self.config.max_hops - each.hops + 1
            case SendFrame(frame=IHave() as frame):
                machine.on_ihave(source, frame, self.now, outputs)
            case SendFrame(frame=Graft() as frame):
                machine.on_graft(source, frame, self.now, outputs)
            case SendFrame(frame=Prune() as frame):
                machine.on_prune(source, frame, self.now, outputs)

    def missed(self) -> int:
        return sum(node not in hops for hops in self.hops.values() for node in self.machines)

    def redundancy(self) -> float:
        """Relative message redundancy, on average."""
        return sum(copies / (len(self.hops[number]) - 1) - 1 for number, copies in self.copies.items()) / len(
            self.copies
        )

    def last_hop(self) -> float:
        return sum(max(hops.values()) for hops in self.hops.values()) / len(self.hops)
