"""Rows of the wide-area benchmark: one a measurement, medians over rounds, the table."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from benchmarks.wide_area.case import Case, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Row", "medians", "table"]

SUMMED = ("published", "lost", "repeated", "moves")


@dataclass(frozen=True, slots=True)
class Row:
    """A peer on a path. `result` is a sentence where it failed."""

    peer: str
    case: Case
    result: Result | str

    def __str__(self) -> str:
        case, result = self.case, self.result
        what = f"{self.peer}: {case.round_trip_ms:g} ms, {case.loss:.0%}, {case.topics} topic(s), {case.rate:g}/s: "
        if isinstance(result, str):
            return what + result
        times = f"p50 {result.p50_ms:.0f}, p90 {result.p90_ms:.0f}, p99 {result.p99_ms:.0f} ms"
        doubt = "" if result.is_exact else ", the forwarder was late"
        return f"{what}{result.messages_per_s:.0f}/s, {times}, lost {result.lost}{doubt}"

    def as_dict(self) -> dict[str, Any]:
        result = {"failed": self.result} if isinstance(self.result, str) else self.result.as_dict()
        return {"peer": self.peer, "case": asdict(self.case), **result}


def medians(rows: Sequence[Row]) -> list[Row]:
    """Return one row a peer and case, in the order of the first; counts are summed, the rest are medians."""
    grouped: dict[tuple[str, Case], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.peer, row.case), []).append(row)
    return [Row(peer, case, _middle([row.result for row in group])) for (peer, case), group in grouped.items()]


def _middle(results: Sequence[Result | str]) -> Result | str:
    good = [result for result in results if not isinstance(result, str)]
    if len(good) < len(results):
        return next(result for result in results if isinstance(result, str))
    names = [each.name for each in fields(Result) if each.name != "path"]
    values = {name: [getattr(result, name) for result in good] for name in names}
    return replace(
        good[0],
        **{name: sum(each) if name in SUMMED else statistics.median(each) for name, each in values.items()},
    )


def table(rows: Sequence[Row]) -> Table:
    shown = Table(box=box.SIMPLE)
    for heading in ("path and load", "peer"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("msg/s", "p50", "p90", "p99 ms", "pause", "lost"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        case, result = row.case, row.result
        cells = [f"{case.round_trip_ms:g} ms {case.loss:.0%} {case.topics} x {case.rate:g}/s", row.peer]
        if isinstance(result, str):
            shown.add_row(*cells, result)
            continue
        times = (result.p50_ms, result.p90_ms, result.p99_ms, result.longest_pause_ms)
        shown.add_row(*cells, f"{result.messages_per_s:.0f}", *(f"{time:,.0f}" for time in times), f"{result.lost:,}")
    return shown
