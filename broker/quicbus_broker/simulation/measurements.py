"""The big runs: what is measured at which sizes, as jobs that any number of processes can share."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quicbus_broker.simulation.broadcasting import CrashRow, RoundRow, broadcasts_after_crash, rounds
from quicbus_broker.simulation.detection import DetectionRow, detection
from quicbus_broker.simulation.growth import GrowthRow, IdleRow, growth, idle
from quicbus_broker.simulation.scenarios import Failure, Outcome, run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job", "Results", "jobs_of"]

CRASHED = {1_000: (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 10_000: (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)}
"""Shares of the nodes that crash, by the size of the mesh."""
SIZES = (10, 30, 100, 300, 1000)
SEEDS_PER_JOB = 50


@dataclass(frozen=True, slots=True)
class Job:
    """One call in a process of its own; `weight` says roughly how long it takes."""

    label: str
    call: Callable[..., Any]
    arguments: dict[str, Any]
    weight: float = 1.0

    def run(self) -> Any:
        # Nothing here makes cycles worth looking for, and 10,000 machines are millions of objects to look through.
        gc.disable()
        try:
            return self.call(**self.arguments)
        finally:
            gc.enable()
            gc.collect()


@dataclass(slots=True)
class Results:
    """What the jobs have returned."""

    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    rounds: dict[str, list[RoundRow]] = field(default_factory=dict)
    crashes: list[CrashRow] = field(default_factory=list)
    detection: list[DetectionRow] = field(default_factory=list)
    growth: list[GrowthRow] = field(default_factory=list)
    idle: list[IdleRow] = field(default_factory=list)

    def add(self, job: Job, result: Any) -> None:
        if job.call is sweep:
            outcomes, failures = result
            self.outcomes += outcomes
            self.failures += [Failure(seed, why) for seed, why in failures]
        elif job.call is rounds:
            self.rounds[job.label] = result
        elif isinstance(result, CrashRow):
            self.crashes.append(result)
        elif isinstance(result, DetectionRow):
            self.detection.append(result)
        elif isinstance(result, GrowthRow):
            self.growth.append(result)
        else:
            assert isinstance(result, IdleRow)
            self.idle.append(result)

    def sort(self) -> None:
        """The order of the tables, whichever job ended first."""
        self.outcomes.sort(key=lambda row: row.seed)
        self.rounds = dict(sorted(self.rounds.items()))
        self.crashes.sort(key=lambda row: (row.nodes, row.crashed))
        self.detection.sort(key=lambda row: (row.self_doubt, row.starved))
        self.growth.sort(key=lambda row: row.nodes)
        self.idle.sort(key=lambda row: row.nodes)


def sweep(first: int, last: int) -> tuple[list[Outcome], list[tuple[int, str]]]:
    """Run the worlds of the seeds from `first` to `last`; returns those that went well, and what went wrong."""
    outcomes: list[Outcome] = []
    failures: list[tuple[int, str]] = []
    for seed in range(first, last + 1):
        try:
            outcomes.append(run(seed))
        except Failure as failure:
            failures.append((seed, failure.why))
    return outcomes, failures


def jobs_of(seeds: int, largest: int) -> list[Job]:
    """Return all jobs, the longest first; none with more than `largest` nodes."""
    jobs = [
        Job(
            f"worlds {first} to {last}",
            sweep,
            {"first": first, "last": last},
            5,
        )
        for first in range(0, seeds, SEEDS_PER_JOB)
        for last in (min(seeds, first + SEEDS_PER_JOB) - 1,)
    ]
    for nodes, count in ((1_000, 1_000), (10_000, 100)):
        jobs += [
            Job(
                f"{crashed:.0%} of {nodes:,} nodes crash",
                broadcasts_after_crash,
                {"nodes": nodes, "crashed": crashed, "count": count, "seed": 1},
                nodes / 50 * (1.1 - crashed),
            )
            for crashed in CRASHED[nodes]
            if nodes <= largest
        ]
    for nodes in (100, 1_000):
        jobs += [
            Job(
                f"{nodes:,} nodes, {'one sender' if is_one else 'many senders'}",
                rounds,
                {"nodes": nodes, "count": 100, "seed": 1, "is_one_sender": is_one},
                nodes / 100,
            )
            for is_one in (True, False)
            if nodes <= largest
        ]
    jobs += [
        Job(
            f"{starved} starved of 100, {'with' if self_doubt else 'without'} self-doubt",
            detection,
            {"nodes": 100, "starved": starved, "self_doubt": self_doubt, "seeds": range(3)},
            40,
        )
        for self_doubt in (True, False)
        for starved in (0, 1, 4, 10)
    ]
    sizes = [nodes for nodes in SIZES if nodes <= largest]
    jobs += [
        Job(f"growth, {nodes:,} nodes", growth, {"nodes": nodes, "seeds": range(2)}, nodes / 10) for nodes in sizes
    ]
    jobs += [Job(f"idle, {nodes:,} nodes", idle, {"nodes": nodes, "seed": 1}, nodes / 20) for nodes in sizes]
    return sorted(jobs, key=lambda job: -job.weight)
