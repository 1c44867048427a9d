"""The table of a case in the terminal, and how figures are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from benchmarks.peers.arithmetic import Spread
    from benchmarks.peers.cases import Case
    from benchmarks.peers.results import Results

__all__ = ["figure", "show_case", "spread_text"]


def figure(value: float) -> str:
    """Write a number with three digits that count, and no exponent."""
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread_text(spread: Spread | None) -> str:
    """`median (smallest to largest)`."""
    if spread is None:
        return "-"
    if spread.smallest == spread.largest:
        return figure(spread.median)
    return f"{figure(spread.median)} ({figure(spread.smallest)} to {figure(spread.largest)})"


def show_case(case: Case, results: Results) -> Table:
    table = Table(title=case.name, title_justify="left", box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for metric in case.metrics:
        table.add_column(metric.unit, justify="right", no_wrap=True)
    table.add_column("lost", justify="right")
    for peer in results.peers(case.name):
        cells = [spread_text(results.spread(case.name, peer, metric.name)) for metric in case.metrics]
        table.add_row(peer, *cells, f"{results.lost(case.name, peer):,}")
    why = [f"failed: {failure.peer}: {failure.why}" for failure in results.failures if failure.case == case.name]
    table.caption, table.caption_justify = escape("\n".join(why)) or None, "left"
    return table
