"""A picture of each table, as SVG."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from benchmarks.peers.cases import Case, Metric, all_cases

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.results import Results

__all__ = ["plot", "plot_names"]

_COLORS = ("#0b6e4f", "#6bbf59", "#d1495b", "#30638e", "#5b8fb9", "#9cc5e0", "#edae49", "#f4d58d", "#7d5ba6")


def plot_names(results: Results) -> dict[str, str]:
    """Return the file names of the pictures by group of cases."""
    groups = [case.group for case in all_cases() if case.name in results.samples]
    return {group: re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-") + ".svg" for group in groups}


def plot(results: Results, group: str, folder: Path) -> None:
    """Draw the picture of a group of cases, bars with the spread of the rounds, if any were measured.

    Needs matplotlib, of the extra `bench`.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same picture for the same numbers, byte for byte.
    mpl.rcParams.update(
        {"svg.hashsalt": "quicbus", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    cases = [case for case in all_cases() if case.group == group and case.name in results.samples]
    if cases:
        folder.mkdir(parents=True, exist_ok=True)
        _draw(folder / plot_names(results)[group], cases, results)


def _draw(path: Path, cases: list[Case], results: Results) -> None:
    """One panel a figure, for they lie far apart."""
    from matplotlib.figure import Figure

    peers = list(dict.fromkeys(peer for case in cases for peer in results.samples[case.name]))
    columns = [(case, metric) for case in cases for metric in case.metrics if metric.is_compared]
    figure = Figure(figsize=(2 + 2.1 * len(columns), 0.8 + 0.3 * len(peers)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, (case, metric) in zip(panels, columns, strict=True):
        _draw_case(panel, case, metric, peers, results)
    panels[0].invert_yaxis()  # the others share it
    figure.savefig(path, metadata={"Date": None})


def _draw_case(panel: Any, case: Case, metric: Metric, peers: list[str], results: Results) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, peer in enumerate(peers):
        spread = results.spread(case.name, peer, metric.name)
        if spread is not None:
            reach = [[spread.median - spread.smallest], [spread.largest - spread.median]]
            color = _COLORS[number % len(_COLORS)]
            panel.barh(number, spread.median, xerr=reach, color=color, error_kw={"elinewidth": 0.8})
    panel.set_yticks(range(len(peers)), peers)
    panel.set_title(case.label, fontsize=9)
    panel.set_xlabel(metric.unit)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.grid(axis="x", alpha=0.3)
