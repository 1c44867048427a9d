"""What the measurements must reach: numbers that the literature and comparable projects report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.simulation.broadcasting import RoundRow
    from quicbus_broker.simulation.measurements import Results

__all__ = ["Gate", "gates_of", "mean"]


@dataclass(frozen=True, slots=True)
class Gate:
    what: str
    wanted: str
    measured: str
    is_reached: bool


def gates_of(results: Results) -> list[Gate]:
    """Return a gate for each demand for which something was measured."""
    return [
        *_worlds(results),
        *_rounds(results),
        *_crashes(results),
        *_detection(results),
        *_growth(results),
        *_idle(results),
    ]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _worlds(results: Results) -> list[Gate]:
    total = len(results.outcomes) + len(results.failures)
    if not total:
        return []
    return [Gate("random worlds", "all come right", f"{len(results.outcomes)} of {total}", not results.failures)]


def _rounds(results: Results) -> list[Gate]:
    gates = []
    for label, rows in results.rounds.items():
        if not label.startswith("100 nodes"):
            continue
        is_one = "one sender" in label
        gates += round_gates(label, rows, redundancy_max=0.2 if is_one else 1.0, last_hop_max=15 if is_one else 18)
    return gates


def round_gates(label: str, rows: Sequence[RoundRow], *, redundancy_max: float, last_hop_max: float) -> list[Gate]:
    """iroh-gossip's gates: means over the rounds, the very first one included."""
    missed = sum(row.missed for row in rows)
    redundancy = mean([row.redundancy for row in rows])
    last_hop = mean([row.last_hop for row in rows])
    return [
        Gate(f"{label}: missed", "0", str(missed), missed == 0),
        Gate(f"{label}: redundancy", f"< {redundancy_max}", f"{redundancy:.3f}", redundancy < redundancy_max),
        Gate(f"{label}: last delivery hop", f"< {last_hop_max}", f"{last_hop:.1f}", last_hop < last_hop_max),
    ]


def _crashes(results: Results) -> list[Gate]:
    return [
        Gate(
            f"{row.crashed:.0%} of {row.nodes:,} crash: reliability",
            "≥ 99 %",
            f"{row.reliability:.2%}",
            row.reliability >= 0.99,
        )
        for row in results.crashes
        if row.crashed <= 0.8
    ]


def _detection(results: Results) -> list[Gate]:
    """Lifeguard reports 50 to 100 times fewer false positives; with few or none left, there is no ratio to ask for."""
    by_kind = {(row.starved, row.self_doubt): row for row in results.detection}
    gates = []
    for starved in sorted({row.starved for row in results.detection} - {0}):
        doubting, sure = by_kind.get((starved, True)), by_kind.get((starved, False))
        if doubting is None or sure is None:
            continue
        measured = f"{doubting.false_positives:.1f} against {sure.false_positives:.1f}"
        is_reached = doubting.false_positives <= sure.false_positives / 50
        gates.append(Gate(f"{starved} starved: false positives", "50 times fewer", measured, is_reached))
    return gates


def _growth(results: Results) -> list[Gate]:
    """As the logarithm does, a time grows by the same amount for each factor of ten; half as much again for chance."""
    by_size = {row.nodes: row for row in results.growth}
    if not {10, 100, 1_000} <= set(by_size):
        return []
    gates = []
    for what in ("join", "leave", "heal"):
        small, middle, large = (getattr(by_size[nodes], f"{what}_s") for nodes in (10, 100, 1_000))
        allowed = 1.5 * max(middle - small, 0.2 * middle)
        measured = f"+{large - middle:.3f} s after +{middle - small:.3f} s from 10 to 100"
        wanted = f"at most +{allowed:.3f} s"
        gates.append(Gate(f"{what}, from 100 to 1,000 nodes", wanted, measured, large - middle <= allowed))
    return gates


def _idle(results: Results) -> list[Gate]:
    by_size = {row.nodes: row for row in results.idle}
    if 100 not in by_size or 1_000 not in by_size:
        return []
    small, large = by_size[100], by_size[1_000]
    ratio = large.size / small.size
    return [
        Gate("idle traffic of a node, 100 to 1,000 nodes", "flat: < 1.25 times", f"{ratio:.2f} times", ratio < 1.25)
    ]
