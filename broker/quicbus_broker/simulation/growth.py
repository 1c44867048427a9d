"""How long joining, leaving and healing take as the mesh grows, and what a mesh says when nothing happens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus_broker.mesh.outputs import MemberChanged, State
from quicbus_broker.simulation.converged import converged_world
from quicbus_broker.simulation.on_the_wire import ByteMeter
from quicbus_broker.simulation.world import mesh_of

if TYPE_CHECKING:
    from quicbus_broker.simulation.process import Process
    from quicbus_broker.simulation.world import World

__all__ = ["GrowthRow", "IdleRow", "growth", "heal_time_s", "idle", "join_time_s", "leave_time_s"]

LIMIT_S = 300.0
WARM_UP_S = 15.0
CUT_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """Means, in seconds of virtual time."""

    nodes: int
    join_s: float
    """From the start of a process until it knows everybody and everybody knows it."""
    leave_s: float
    """From its farewell until everybody knows that it has left."""
    heal_s: float
    """From the end of a partition into halves, in which both took each other for failed, until nobody does."""


def growth(nodes: int, seeds: range) -> GrowthRow:
    count = len(seeds)
    return GrowthRow(
        nodes,
        sum(join_time_s(nodes, seed) for seed in seeds) / count,
        sum(leave_time_s(nodes, seed) for seed in seeds) / count,
        sum(heal_time_s(nodes, seed) for seed in seeds) / count,
    )


def join_time_s(nodes: int, seed: int) -> float:
    """Let one more node join a mesh of so many, with one seed."""
    world = converged_world(nodes, seed)
    world.schedule.run_for(WARM_UP_S)
    place = world.add_place()
    known: dict[Process, None] = {}
    knows: dict[bytes, None] = {}

    def changed(process: Process, change: MemberChanged) -> None:
        if change.after is State.ALIVE:
            if change.node == place.node:
                known[process] = None
            elif process is place.process:
                knows[change.node] = None

    world.on_member_changed = changed
    world.start(place, [world.rng.choice(world.processes).address])
    return world.schedule.run_while(lambda: len(known) < nodes or len(knows) < nodes, LIMIT_S, step_s=0.01)


def leave_time_s(nodes: int, seed: int) -> float:
    """Let one of so many leave."""
    world = converged_world(nodes, seed)
    world.schedule.run_for(WARM_UP_S)
    leaving = world.rng.choice(world.processes)
    told: dict[Process, None] = {}

    def changed(process: Process, change: MemberChanged) -> None:
        if change.after is State.LEFT and change.node == leaving.node and process is not leaving:
            told[process] = None

    world.on_member_changed = changed
    world.leave(leaving)
    return world.schedule.run_while(lambda: len(told) < nodes - 1, LIMIT_S, step_s=0.01)


def heal_time_s(nodes: int, seed: int) -> float:
    """Cut a mesh into halves until both have given each other up, then join them again."""
    world = converged_world(nodes, seed)
    failed = _failed_pairs(world)
    world.schedule.run_for(WARM_UP_S)
    half = nodes // 2
    ways = [way for one in range(half) for other in range(half, nodes) for way in ((one, other), (other, one))]
    for way in ways:
        world.network.block(*way)
    world.schedule.run_while(lambda: failed["pairs"] < 2 * half * (nodes - half), CUT_LIMIT_S, step_s=1.0)
    for way in ways:
        world.network.unblock(*way)
    return world.schedule.run_while(lambda: failed["pairs"] > 0, LIMIT_S, step_s=0.05)


def _failed_pairs(world: World) -> Counter[str]:
    """Count who takes whom for failed, from now on."""
    failed: Counter[str] = Counter()

    def changed(process: Process, change: MemberChanged) -> None:
        failed["pairs"] += (change.after is State.FAILED) - (change.before is State.FAILED)

    world.on_member_changed = changed
    return failed


@dataclass(frozen=True, slots=True)
class IdleRow:
    """What one node sends in a second while nobody publishes and nothing changes."""

    nodes: int
    links: float
    frames: float
    size: float
    """Bytes, with UDP, IP and QUIC headers of a packet for each frame; without ACKs."""
    by_type: dict[str, float]
    """Bytes by type of frame."""


def idle(nodes: int, seed: int, seconds: float = 60.0) -> IdleRow:
    world = converged_world(nodes, seed)
    world.schedule.run_for(WARM_UP_S)
    frames: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    world.network.meter = ByteMeter(frames, sizes)
    world.schedule.run_for(seconds)
    node_seconds = nodes * seconds
    return IdleRow(
        nodes,
        sum(len(mesh_of(process).neighbors) for process in world.processes) / nodes,
        frames.total() / node_seconds,
        sizes.total() / node_seconds,
        {name: sizes[name] / node_seconds for name in sorted(sizes)},
    )
