"""The results as tables in `benchmarks.md`, between two marks, with plots beside it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from benchmarks.markdown import rewrite, table
from benchmarks.peers.cases import Case, Metric, all_cases
from benchmarks.peers.plots import plot, plot_names
from benchmarks.peers.shown import figure, spread_text
from benchmarks.peers.targets import Judged, judge

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.results import Results

__all__ = ["WRITER", "page", "write_docs"]

WRITER = "`make bench`"
_OURS = "quicbus"
_BELOW = " ▼"
_METRIC_WORDS = {"p50_ms": ", p50", "p99_ms": ", p99", "p999_ms": ", p99.9"}


def write_docs(results: Results, folder: Path, group: str) -> None:
    """Replace what stands between the marks of `benchmarks.md`, or add it; draw the plot of `group`, which has changed.

    To be called after each case: the page links the plots of all groups.
    """
    plot(results, group, folder / "benchmarks")
    rewrite(folder / "benchmarks.md", page(results, plot_names(results)), WRITER)


def page(results: Results, plots: dict[str, str]) -> str:
    """Return the tables in Markdown; `plots` names the picture of a group."""
    sections = [_machine(results), _targets(results), _losses(results)]
    for group, cases in groupby(_measured_cases(results), key=lambda case: case.group):
        sections.append(_group(group, list(cases), results, plots))
    return "\n".join(filter(None, sections))


def _measured_cases(results: Results) -> list[Case]:
    tried = set(results.cases())
    return [case for case in all_cases() if case.name in tried]


def _machine(results: Results) -> str:
    done = [results.rounds_of(case) for case in results.samples]
    rounds = str(results.rounds)
    if min(done, default=0) < results.rounds:
        rounds = f"{min(done, default=0)} or {max(done, default=0)} of {rounds}; the run was cut off"
    facts = [*results.machine.items(), *results.versions.items(), ("rounds", rounds)]
    if len(results.cases()) < results.planned:
        facts.append(("cases", f"{len(results.cases())} of {results.planned}; the run was cut off"))
    if results.again:
        facts.append(("measured later, in a run of their own", "; ".join(results.again)))
    if results.failures:
        facts.append(("rounds that failed", str(len(results.failures))))
    skipped = "".join(f"- skipped: {peer}: {why}\n" for peer, why in results.skipped.items())
    return "### Machine and versions\n\n" + table(("", ""), facts) + ("\n" + skipped if skipped else "")


def _targets(results: Results) -> str:
    judged = [each for each in judge(results) if each.measured is not None]
    if not judged:
        return ""
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [
        (_target_text(each), each.target.wanted, figure(each.measured or 0), words[each.is_reached]) for each in judged
    ]
    reached = sum(each.is_reached is True for each in judged)
    text = f"Ratios of the medians of this run; {reached} of {len(judged)} reached.\n\n"
    return "### What is aimed at\n\n" + text + table(("", "wanted", "measured", "reached"), rows)


def _target_text(judged: Judged) -> str:
    target = judged.target
    metric = _METRIC_WORDS.get(target.metric, "")
    if not target.than:
        return f"{target.case}{metric}: {target.peer}"
    than = f"{target.than_case}" if target.than_case else target.than
    return f"{target.case}{metric}: {target.peer} to {than}"


def _losses(results: Results) -> str:
    """Where the best of quicbus is behind the best of the others."""
    rows = []
    for case in _measured_cases(results):
        for metric in filter(_is_compared, case.metrics):
            medians = _medians(case, metric, results)
            ours = {peer: value for peer, value in medians.items() if peer.startswith(_OURS)}
            others = {peer: value for peer, value in medians.items() if not peer.startswith(_OURS)}
            if not ours or not others:
                continue
            best, winner = _best(ours, metric), _best(others, metric)
            if _is_better(others[winner], ours[best], metric):
                cells = (f"{best}: {figure(ours[best])}", f"{winner}: {figure(others[winner])}")
                ratio = ours[best] / others[winner] if others[winner] else 0.0
                rows.append((f"{case.name}, {metric.unit}", *cells, f"{ratio:.2f}"))
    if not rows:
        return ""
    return "### Where quicbus is behind\n\n" + table(("", "quicbus", "the best of the others", "quicbus to it"), rows)


def _group(group: str, cases: list[Case], results: Results, plots: dict[str, str]) -> str:
    columns = [(case, metric) for case in cases for metric in case.metrics]
    peers = list(dict.fromkeys(peer for case in cases for peer in results.peers(case.name)))
    rows = [(peer, *(_cell(case, metric, peer, results) for case, metric in columns)) for peer in peers]
    header = ("", *(f"{case.label}, {metric.unit}" for case, metric in columns))
    picture = f"\n![{group}](benchmarks/{plots[group]})\n" if group in plots else ""
    legend = f"Median (smallest to largest). Bold: the best;{_BELOW}: quicbus, and another peer is better.\n\n"
    return f"### {group}\n\n{legend}{table(header, rows)}{_failures(cases, results)}{picture}"


def _cell(case: Case, metric: Metric, peer: str, results: Results) -> str:
    spread = results.spread(case.name, peer, metric.name)
    failed = len(results.failures_of(case.name, peer))
    if spread is None:
        return "failed" if failed else "-"
    text = spread_text(spread)
    if metric is case.metrics[0]:
        lost = results.lost(case.name, peer)
        text += (f", {lost:,} lost" if lost else "") + (f", {failed} failed" if failed else "")
    if not metric.is_compared:
        return text
    medians = _medians(case, metric, results)
    if peer == _best(medians, metric):
        return f"**{text}**"
    others = [value for name, value in medians.items() if not name.startswith(_OURS)]
    is_behind = any(_is_better(value, spread.median, metric) for value in others)
    return text + (_BELOW if peer.startswith(_OURS) and is_behind else "")


def _medians(case: Case, metric: Metric, results: Results) -> dict[str, float]:
    spreads = {peer: results.spread(case.name, peer, metric.name) for peer in results.samples.get(case.name, {})}
    return {peer: spread.median for peer, spread in spreads.items() if spread is not None}


def _best(medians: dict[str, float], metric: Metric) -> str:
    choose = max if metric.is_better_high else min
    return choose(medians, key=lambda peer: medians[peer])


def _is_better(one: float, other: float, metric: Metric) -> bool:
    return one > other if metric.is_better_high else one < other


def _is_compared(metric: Metric) -> bool:
    return metric.is_compared


def _failures(cases: list[Case], results: Results) -> str:
    """What went wrong in the rounds that gave nothing."""
    names = {case.name: case.label for case in cases}
    counted = Counter(failure for failure in results.failures if failure.case in names)
    lines = []
    for each, count in counted.items():
        times = f" {count} times" if count > 1 else ""
        lines.append(f"- Failed{times}: {each.peer}, {names[each.case]}: `{each.why.replace('`', '')}`\n")
    return "\n" + "".join(lines) if lines else ""
