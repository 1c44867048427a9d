"""The measurements as a page with tables and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus_broker.simulation.gates import gates_of, mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from quicbus_broker.simulation.measurements import Results

__all__ = ["page", "plot"]

_HEAD = """# The mesh, simulated

`make simulate` wrote this page. The machines are those that run in production; time, network and signatures are not:
`broker/quicbus_broker/simulation/`. Connections behave as QUIC's do: what is lost comes later, what is cut off dies
after 30 s of silence, nobody is told of a crash. Everything follows from seeds.

See the world of one seed again, with all that happens in it: `python -m quicbus_broker.simulation --seed 17 --trace`.
"""


def page(results: Results) -> str:
    """Return the page in Markdown; the plots stand beside it in `simulation/`."""
    sections = (_gates, _worlds, _rounds, _crashes, _detection, _growth, _idle)
    return "\n".join([_HEAD, *filter(None, (section(results) for section in sections))])


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _gates(results: Results) -> str:
    rows = [
        (gate.what, gate.wanted, gate.measured, "yes" if gate.is_reached else "**no**") for gate in gates_of(results)
    ]
    return "## What is demanded\n\n" + _table(("", "wanted", "measured", "reached"), rows)


def _worlds(results: Results) -> str:
    outcomes = results.outcomes
    if not outcomes:
        return ""
    calm = sorted(outcome.calm_s for outcome in outcomes)
    rows = [
        ("worlds", len(outcomes) + len(results.failures)),
        ("of them wrong", len(results.failures)),
        ("nodes in each", f"{min(o.nodes for o in outcomes)} to {max(o.nodes for o in outcomes)}"),
        ("faults", f"{sum(o.faults for o in outcomes):,}"),
        ("messages", f"{sum(o.messages for o in outcomes):,}"),
        ("deliveries checked", f"{sum(o.deliveries for o in outcomes):,}"),
        ("events", f"{sum(o.events for o in outcomes):,}"),
        ("until all was right again, median", f"{calm[len(calm) // 2]:.0f} s"),
        ("longest", f"{calm[-1]:.0f} s"),
    ]
    text = """## Random worlds

Faults first: crashes, restarts (also elsewhere), two processes of one node, partitions of both ways and of one, loss,
slow links, stopped and starved processes, wall clocks that step, nodes that are revoked, while everybody publishes and
subscribes. Then calm, in which links must be symmetric, tables and interest equal and true, all must go by the latest
list of whom to trust, nobody revoked may run, and every message must reach every subscriber. At no time may one be
delivered twice, out of order, or to two members of a group.

"""
    wrong = "".join(f"- seed {failure.seed}: {failure.why.splitlines()[0]}\n" for failure in results.failures)
    return text + _table(("", ""), rows) + ("\n" + wrong if wrong else "")


def _rounds(results: Results) -> str:
    if not results.rounds:
        return ""
    rows = [
        (
            label,
            sum(row.missed for row in rounds),
            f"{rounds[0].redundancy:.2f}",
            f"{mean([row.redundancy for row in rounds[:20]]):.3f}",
            f"{mean([row.redundancy for row in rounds]):.3f}",
            f"{mean([row.last_hop for row in rounds]):.1f}",
            max(row.last_hop for row in rounds),
            f"{1000 * mean([row.duration_s for row in rounds]):.0f} ms",
        )
        for label, rounds in results.rounds.items()
    ]
    header = (
        f"{len(next(iter(results.rounds.values())))} broadcasts, 10 to 100 ms one way",
        "missed",
        "redundancy of the first",
        "of the first 20",
        "of all",
        "last hop",
        "highest",
        "until all had it",
    )
    text = """## Broadcasts without faults

Redundancy is PlumTree's RMR: copies sent per node that needs one, less one. The last hop is the longest way of a
message.

"""
    return text + _table(header, rows)


def _crashes(results: Results) -> str:
    if not results.crashes:
        return ""
    rows = [
        (
            f"{row.nodes:,}",
            f"{row.crashed:.0%}",
            row.broadcasts,
            f"{row.reliability:.2%}",
            f"{row.worst:.2%}",
            f"{row.repaired:.1%}",
            f"{row.redundancy:.2f}",
        )
        for row in results.crashes
    ]
    header = ("nodes", "crashed", "broadcasts", "reliability", "worst broadcast", "repaired", "redundancy")
    text = """## Most nodes crash at once

Right after it survivors broadcast every 20 ms; what has arrived is read 60 s after the last. Reliability is the share
of the survivors that got a broadcast; repaired is what came because it was asked for.

![Reliability](simulation/reliability.svg)

"""
    return text + _table(header, rows)


def _detection(results: Results) -> str:
    if not results.detection:
        return ""
    rows = [
        (
            row.starved,
            "yes" if row.self_doubt else "no",
            f"{row.first_s:.1f} s",
            f"{row.all_s:.1f} s",
            f"{row.false_positives:.1f}",
            f"{row.expelled:.1f}",
        )
        for row in results.detection
    ]
    header = (
        "starved of 100",
        "self-doubt",
        "crash noticed",
        "by all",
        "the well taken for failed",
        "the starved taken for failed",
    )
    text = """## Starved members

A starved member is stopped for 6 to 18 s, runs for 50 to 150 ms, and again, for five minutes. Counted is how often a
member that is well takes another for failed; means of three seeds. Lifeguard counts those of members that are well.

![False positives](simulation/false_positives.svg)

"""
    return text + _table(header, rows)


def _growth(results: Results) -> str:
    if not results.growth:
        return ""
    rows = [
        (f"{row.nodes:,}", f"{row.join_s:.2f} s", f"{row.leave_s:.2f} s", f"{row.heal_s:.1f} s")
        for row in results.growth
    ]
    text = """## As the mesh grows

Joining: until the new node knows all and all know it. Healing: halves that have given each other up, from the end of
the partition until nobody takes anybody for failed; dials of the lost are up to 30 s apart. Means of two seeds.

![Growth](simulation/growth.svg)

"""
    return text + _table(("nodes", "join", "leave", "heal"), rows)


def _idle(results: Results) -> str:
    if not results.idle:
        return ""
    rows = [
        (
            f"{row.nodes:,}",
            f"{row.links:.1f}",
            f"{row.frames:.1f}",
            f"{row.size:,.0f}",
            ", ".join(f"{name} {size:,.0f}" for name, size in row.by_type.items()),
        )
        for row in results.idle
    ]
    text = """## Idle traffic

Of one node in a second. Bytes are those of the frames as encoded, each in a packet of its own with 59 bytes of IP, UDP
and QUIC headers; ACKs, which QUIC adds, are not in it.

![Idle traffic](simulation/idle.svg)

"""
    return text + _table(("nodes", "links", "frames", "bytes", "bytes by frame"), rows)


def plot(results: Results, folder: Path) -> None:
    """Draw the plots; needs the extra `simulate`."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same picture for the same numbers, byte for byte.
    mpl.rcParams.update(
        {"svg.hashsalt": "quicbus", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    folder.mkdir(parents=True, exist_ok=True)
    if results.crashes:
        lines = {
            f"{nodes:,} nodes": [(100 * r.crashed, 100 * r.reliability) for r in results.crashes if r.nodes == nodes]
            for nodes in sorted({row.nodes for row in results.crashes})
        }
        _draw(folder / "reliability.svg", lines, "crashed at once, %", "reliability, %")
    if results.detection:
        lines = {
            f"{'with' if doubt else 'without'} self-doubt": [
                (r.starved, r.false_positives) for r in results.detection if r.self_doubt is doubt
            ]
            for doubt in (True, False)
        }
        _draw(folder / "false_positives.svg", lines, "starved of 100", "the well taken for failed, times")
    if results.growth:
        lines = {
            what: [(row.nodes, getattr(row, f"{what}_s")) for row in results.growth]
            for what in ("join", "leave", "heal")
        }
        _draw(folder / "growth.svg", lines, "nodes", "seconds", is_log=True, is_log_y=True)
    if results.idle:
        lines = {"bytes per node and second": [(row.nodes, row.size) for row in results.idle]}
        _draw(folder / "idle.svg", lines, "nodes", "bytes per node and second", is_log=True)


def _draw(
    path: Path,
    lines: dict[str, list[tuple[float, float]]],
    x: str,
    y: str,
    *,
    is_log: bool = False,
    is_log_y: bool = False,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for label, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    if is_log:
        axes.set_xscale("log")
    if is_log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
