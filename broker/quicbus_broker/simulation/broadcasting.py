"""How good broadcasts are: copies per message, hops, and what arrives right after most nodes have crashed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from quicbus.wire.batch import encode_body
from quicbus_broker.mesh.interest.forwarding import MeshPlan
from quicbus_broker.mesh.state import Publication
from quicbus_broker.simulation.converged import converged_world
from quicbus_broker.simulation.world import Latency, mesh_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.wire.bundles import Bundle
    from quicbus.wire.frames import Frame
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import Deliver
    from quicbus_broker.simulation.network import Host
    from quicbus_broker.simulation.process import Process
    from quicbus_broker.simulation.world import World

__all__ = ["Broadcasts", "CrashRow", "RoundRow", "broadcasts_after_crash", "rounds"]

TOPIC = b"t"
ROUND_LIMIT_S = 5.0
"""iroh-gossip's `gossip_round_timeout`."""
READ_AFTER_S = 60.0


class Broadcasts:
    """Publishes broadcasts in a world and counts what becomes of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.copies = 0
        """Bundles that were sent from node to node."""
        self.delivered: dict[tuple[bytes, int], int] = {}
        """By origin and id: how many nodes got it."""
        self.hops_max = 0
        self._ids: dict[bytes, int] = {}
        self._plan = MeshPlan(is_broadcast=True)
        world.network.meter = self
        world.on_delivered = self._on_delivered

    def publish(self, process: Process) -> tuple[bytes, int]:
        """Broadcast one small message; returns what it is counted under."""
        id = self._ids[process.node] = self._ids.get(process.node, 0) + 1
        key = process.node, id
        self.delivered[key] = 0
        body = encode_body(TOPIC, [b"m"], number=id)
        mesh = mesh_of(process)
        process.perform(mesh.publish(Publication(id, "p", TOPIC, body, self._plan), process.now))
        process.perform(mesh.end_turn(process.now))
        return key

    def is_missed(self, key: tuple[bytes, int], wanted: int) -> bool:
        return self.delivered[key] < wanted

    def frame(self, host: Host, frame: Frame) -> None: ...

    def bundle(self, host: Host, bundle: Bundle) -> None:
        self.copies += 1

    def _on_delivered(self, process: Process, deliver: Deliver) -> None:
        self.delivered[deliver.origin, deliver.batch.id] += 1
        self.hops_max = max(self.hops_max, deliver.hops)


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One message to all. `redundancy` is PlumTree's RMR: copies per node that needed one, less the one it needs."""

    redundancy: float
    last_hop: int
    missed: int
    duration_s: float


def rounds(
    nodes: int, count: int, seed: int, *, is_one_sender: bool, config: MeshConfig | None = None
) -> list[RoundRow]:
    """Broadcast so many messages, each once the last has arrived; as iroh-gossip does, at 10 to 100 ms one way."""
    world = converged_world(nodes, seed, latency=Latency(seed, 0.01, 0.1))
    broadcasts = Broadcasts(world)
    processes = world.processes
    sender = world.rng.choice(processes)
    wanted = nodes - 1
    rows = []
    for _ in range(count):
        broadcasts.copies = broadcasts.hops_max = 0
        key = broadcasts.publish(sender if is_one_sender else world.rng.choice(processes))
        duration_s = world.schedule.run_while(partial(broadcasts.is_missed, key, wanted), ROUND_LIMIT_S, step_s=0.005)
        got = broadcasts.delivered[key]
        rows.append(RoundRow(broadcasts.copies / max(1, got - 1) - 1, broadcasts.hops_max, wanted - got, duration_s))
    return rows


@dataclass(frozen=True, slots=True)
class CrashRow:
    """Broadcasts by survivors, right after so many of the nodes crashed at once."""

    nodes: int
    crashed: float
    broadcasts: int
    reliability: float
    """Share of the surviving nodes that got a broadcast, the mean of all."""
    worst: float
    redundancy: float
    repaired: float
    """Share of what was delivered that came because it was asked for."""
    events: int


def broadcasts_after_crash(
    nodes: int,
    crashed: float,
    count: int,
    seed: int,
    *,
    config: MeshConfig | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> CrashRow:
    """Let a share of the nodes crash, broadcast from survivors every 20 ms, read 60 s after the last."""
    world = converged_world(nodes, seed, config=config)
    broadcasts = Broadcasts(world)
    for _ in range(20):
        # So that there is a tree that the crash can tear.
        broadcasts.publish(world.rng.choice(world.processes))
        world.schedule.run_for(0.25)
    for process in world.rng.sample(world.processes, round(nodes * crashed)):
        process.crash()
    survivors = world.processes
    broadcasts.copies = 0
    keys = []
    for _ in range(count):
        keys.append(broadcasts.publish(world.rng.choice(survivors)))
        world.schedule.run_for(0.02)
    for second in range(round(READ_AFTER_S)):
        progress(second / READ_AFTER_S)
        world.schedule.run_for(1.0)
    shares = [broadcasts.delivered[key] / (len(survivors) - 1) for key in keys]
    delivered = sum(broadcasts.delivered[key] for key in keys)
    repaired = sum(mesh_of(process).statistics().repaired for process in survivors)
    return CrashRow(
        nodes,
        crashed,
        count,
        sum(shares) / len(shares),
        min(shares),
        broadcasts.copies / max(1, delivered) - 1,
        repaired / max(1, delivered),
        world.schedule.happened,
    )
