"""The results of the wide-area paths in `benchmarks.md`: what is aimed at, a table a load, pictures."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import rewrite, table
from benchmarks.peers.machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.wide_area.case import Case, Result
    from benchmarks.wide_area.report import Row

__all__ = ["WRITER", "page", "write_docs"]

WRITER = "`python -m benchmarks.wide_area`"
RIVAL = "NATS/TLS"
_AIMS = (("p90_ms", 0.6), ("p99_ms", 1.0))
"""The most, in what the rival takes, at a round trip of 80 ms, 3 % of loss, 16 topics, 200 messages a second."""
_COLORS = {"quicbus qh3": "#0b6e4f", "quicbus aioquic": "#6bbf59", "NATS/TLS": "#d1495b", "zenoh/QUIC": "#30638e"}


def write_docs(rows: Sequence[Row], rounds: int, folder: Path) -> None:
    """Replace what stands between the marks of `benchmarks.md`, and draw the picture."""
    picture = _draw(rows, folder / "benchmarks" / "wide-area.svg")
    rewrite(folder / "benchmarks.md", page(rows, rounds, picture), WRITER)


def page(rows: Sequence[Row], rounds: int, picture: str = "") -> str:
    """Return the tables in Markdown."""
    machine = describe_machine()
    text = f"### Wide-area paths\n\n{machine['date']}, {machine['processor']}, {machine['cores']} cores; "
    seconds = rows[0].case.seconds if rows else 0
    text += f"{rounds} round(s) of {seconds:g} s, medians. Times are from when a message was due.\n\n"
    if aims := list(_aims(rows)):
        text += table(("80 ms, 3 %, 16 topics, 200/s", "wanted", "measured", "reached"), aims) + "\n"
    if picture:
        text += f"![p99 over lossy paths](benchmarks/{picture})\n\n"
    still = [row for row in rows if not row.case.move_every_s]
    moving = [row for row in rows if row.case.move_every_s]
    if still:
        text += "Delivered a second · p50 · p99 in ms:\n\n" + _grid(still, _paced) + "\n"
    if moving:
        text += (
            "The subscriber's address changes every "
            f"{moving[0].case.move_every_s:g} s: longest pause in ms · p99 in ms:\n\n{_grid(moving, _moved)}\n"
        )
    return text


def _aims(rows: Sequence[Row]) -> Iterable[tuple[str, str, str, str]]:
    judged = {
        row.peer: row.result
        for row in rows
        if (row.case.round_trip_ms, row.case.loss, row.case.topics, row.case.rate) == (80, 0.03, 16, 200)
        and not row.case.move_every_s
        and not isinstance(row.result, str)
    }
    rival = judged.get(RIVAL)
    for peer, result in judged.items():
        if rival is None or not peer.startswith("quicbus"):
            continue
        for metric, most in _AIMS:
            ratio = getattr(result, metric) / getattr(rival, metric)
            reached = "yes" if ratio <= most else "**no**"
            yield f"{peer} to {RIVAL}, {metric.removesuffix('_ms')}", f"<= {most:g} x", f"{ratio:.2f}", reached


def _grid(rows: Sequence[Row], cell: Any) -> str:
    peers = list(dict.fromkeys(row.peer for row in rows))
    by_case: dict[Case, dict[str, str]] = defaultdict(dict)
    for row in rows:
        by_case[row.case][row.peer] = "failed" if isinstance(row.result, str) else cell(row.result)
    lines = [(_path(case), *(cells.get(peer, "-") for peer in peers)) for case, cells in by_case.items()]
    return table(("round trip, loss, topics", *peers), lines)


def _path(case: Case) -> str:
    return f"{case.round_trip_ms:g} ms, {case.loss:.0%}, {case.topics}"


def _paced(result: Result) -> str:
    return f"{result.messages_per_s:.0f} · {result.p50_ms:.0f} · {result.p99_ms:.0f}" + _doubts(result)


def _moved(result: Result) -> str:
    return f"{result.longest_pause_ms:,.0f} · {result.p99_ms:,.0f}" + _doubts(result)


def _doubts(result: Result) -> str:
    lost = f", {result.lost:,} lost" if result.lost else ""
    return lost + ("" if result.is_exact else ", link late")


def _draw(rows: Sequence[Row], path: Path) -> str:
    """Draw p99 over loss, a panel a round trip and number of topics; returns its file name, empty without rows.

    Needs matplotlib, of the extra `bench`.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    # The same picture for the same numbers, byte for byte.
    mpl.rcParams.update({"svg.hashsalt": "quicbus", "font.size": 9})
    lines: dict[tuple[int, float], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not isinstance(row.result, str) and not row.case.move_every_s:
            panel = lines[row.case.topics, row.case.round_trip_ms]
            panel[row.peer].append((row.case.loss * 100, row.result.p99_ms))
    if not lines:
        return ""
    topics, round_trips = (sorted({key[index] for key in lines}) for index in (0, 1))
    figure = Figure(figsize=(3 * len(round_trips), 2.4 * len(topics)), layout="constrained")
    panels = figure.subplots(len(topics), len(round_trips), squeeze=False)
    for (topic_count, round_trip), peers in lines.items():
        panel = panels[topics.index(topic_count)][round_trips.index(round_trip)]
        for peer, points in peers.items():
            panel.plot(*zip(*sorted(points), strict=True), marker="o", label=peer, color=_COLORS.get(peer))
        panel.set_title(f"{round_trip:g} ms, {topic_count} topic(s)", fontsize=9)
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
        panel.set_xlabel("loss, %")
        panel.set_ylabel("p99, ms")
    panels[0][0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return path.name
