"""How fast a crash is noticed, and how often the living are taken for dead, while some members are starved.

After Lifeguard (Dadgar, Phillips, Currey, 2018, section V): members that get the processor only now and then accuse
others, as answers reach them late. What counts are members that are well, and that members that are well take for dead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.outputs import MemberChanged, State
from quicbus_broker.simulation.converged import converged_world

if TYPE_CHECKING:
    from quicbus_broker.simulation.process import Process

__all__ = ["DetectionRow", "detection"]

WARM_UP_S = 20.0
STARVED_FOR_S = 300.0
DETECTION_LIMIT_S = 200.0


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """Means over the seeds. Times are from the crash of one member that was well."""

    nodes: int
    starved: int
    self_doubt: bool
    first_s: float
    """Until the first took it for failed."""
    all_s: float
    """Until all that are well did."""
    false_positives: float
    """Times that a member that is well took one that is well for failed."""
    expelled: float
    """Times that a member that is well took a starved one for failed."""


def detection(
    nodes: int, starved: int, *, self_doubt: bool, seeds: range, stopped_s: float = 12.0, running_s: float = 0.1
) -> DetectionRow:
    """Starve members for five minutes: stopped for about `stopped_s`, then running for about `running_s`, and again."""
    runs = [
        _run(nodes, starved, replace(MeshConfig(), self_doubt=self_doubt), seed, stopped_s, running_s) for seed in seeds
    ]
    first, everybody, false_positives, expelled = (sum(column) / len(runs) for column in zip(*runs, strict=True))
    return DetectionRow(nodes, starved, self_doubt, first, everybody, false_positives, expelled)


def _run(
    nodes: int, starved: int, config: MeshConfig, seed: int, stopped_s: float, running_s: float
) -> tuple[float, float, float, float]:
    world = converged_world(nodes, seed, config=config)
    chosen = world.rng.sample(world.processes, starved + 1)
    victim, starving = chosen[0], dict.fromkeys(chosen[1:])
    starving_nodes = {process.node: None for process in starving}
    false_positives = expelled = 0
    seen_at: list[float] = []
    crashed_at = math.inf

    def changed(process: Process, change: MemberChanged) -> None:
        nonlocal false_positives, expelled
        if change.after is not State.FAILED or process in starving:
            return
        if change.node == victim.node and world.now >= crashed_at:
            seen_at.append(world.now)
        elif change.node in starving_nodes:
            expelled += 1
        else:
            false_positives += 1

    world.on_member_changed = changed
    world.schedule.run_for(WARM_UP_S)
    until = world.now + STARVED_FOR_S
    for process in starving:
        world.schedule.after(world.rng.uniform(0.0, stopped_s), world.starve, process, until, stopped_s, running_s)
    world.schedule.run_for(STARVED_FOR_S / 2)
    crashed_at = world.now
    victim.crash()
    well = nodes - 1 - starved
    all_s = world.schedule.run_while(lambda: len(seen_at) < well, DETECTION_LIMIT_S, step_s=0.05)
    world.schedule.run_until(until)
    first_s = seen_at[0] - crashed_at if seen_at else math.inf
    return first_s, all_s, float(false_positives), float(expelled)
