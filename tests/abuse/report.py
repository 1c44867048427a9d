"""The table of `make abuse`, for people at a terminal and for docs/abuse.md."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from tests.abuse.attackers import ATTACKS
from tests.abuse.verdict import QUIET_MS, RATIO_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.abuse.arena import Outcome

__all__ = ["COLUMNS", "document", "row"]

COLUMNS = ("attack", "made", "p99 quiet", "attacked", "ratio", "lost", "CPU", "RSS MiB", "fds", "counted by the broker")
_UNTOLD = ("transport.bytes", "transport.datagrams", "transport.closed", "books.", "edge.connections", "mesh.")
"""Counters that rise with everything."""
_TOLD_MAX = 5

INTRODUCTION = f"""\
# Attacks on a broker, measured

Written by `make abuse`. A broker process with its default settings, a publisher and a subscriber in a second process
(200 messages of 128 bytes a second, each stamped with the time of its publish), and an attacker in a third. First the
quiet p99 of the pair is measured, then the p99 during the attack; then the broker has up to a minute to get rid of what
the attack left open. The pair must lose nothing, and its p99 must stay within {RATIO_MAX:g} times the quiet one;
a quiet one below {QUIET_MS:g} ms counts as that.

*made*: what the attacker did, and how it ended. *CPU*: of one processor, by the broker, before and during. *RSS*:
before, the most during the attack, after. *fds*: open file descriptors before and after. The attacker stands for one
with a machine of its own: it runs where broker and pair leave the processors idle (`SCHED_IDLE`).

A small version of each attack runs in `make test`, where what was made and counted must be exact; nothing there depends
on time. Attacks by members of a mesh, who have a node certificate, are tested in `tests/system/test_mesh_hostile.py`.
"""


def row(outcome: Outcome) -> tuple[str, ...]:
    """Return the cells of one outcome."""
    before, peak, after = (size >> 20 for size in outcome.resident)
    return (
        outcome.attack,
        _pairs(outcome.made),
        f"{outcome.quiet.p99_ms:.1f} ms",
        f"{outcome.attacked.p99_ms:.1f} ms",
        f"{outcome.ratio:.1f}",
        str(outcome.lost),
        f"{outcome.busy[0]:.0%} / {outcome.busy[1]:.0%}",
        f"{before} / {peak} / {after}",
        f"{outcome.descriptors[0]} / {outcome.descriptors[1]}",
        _pairs(_telling(outcome.counted)),
    )


def document(outcomes: Sequence[Outcome], command: str) -> str:
    """Return docs/abuse.md."""
    measured = f"Measured with `{command}` on {_machine()}.\n" if outcomes else f"`{command}` writes the table here.\n"
    parts = [INTRODUCTION, measured]
    for engine in dict.fromkeys(outcome.engine for outcome in outcomes):
        parts.append(f"## Broker on {engine}\n")
        lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * 7 + "---|"]
        lines += [f"| {' | '.join(row(each))} |" for each in outcomes if each.engine == engine]
        parts.append("\n".join(lines) + "\n")
    parts.append("## The attacks\n")
    parts.append("\n".join(f"- **{attack.name}**: {attack.about}." for attack in ATTACKS.values()) + "\n")
    return "\n".join(parts)


def _telling(counted: dict[str, int]) -> dict[str, int]:
    """Return what tells of the attack: the largest of the counters that do not rise with everything."""
    told = {name: rise for name, rise in counted.items() if rise > 0 and not name.startswith(_UNTOLD)}
    largest = sorted(told, key=lambda name: -told[name])[:_TOLD_MAX]
    return {name.removeprefix("transport.").removeprefix("edge."): told[name] for name in told if name in largest}


def _pairs(values: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in values.items() if number) or "none"


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        named = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].partition(":")[2].strip() if named else cpu
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} processors ({cpu}), {system}, Python {platform.python_version()}"
