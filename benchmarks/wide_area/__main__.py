"""`python -m benchmarks.wide_area`: publish/subscribe over a lossy wide-area path, quicbus beside its peers.

The server and the publisher are on one side of the path, the subscriber is on the other, so each message crosses it
once. `--check` measures the path itself. Needs Linux and root.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peers.registry import all_peers
from benchmarks.wide_area import namespaces
from benchmarks.wide_area.case import QUICBUS_PEERS, Case, Result, run_case
from benchmarks.wide_area.check import check_path
from benchmarks.wide_area.report import Row, medians, table
from quicbus.process import Interrupted, ended_by_signals
from quicbus.testing.launcher import LaunchError

if TYPE_CHECKING:
    from benchmarks.peers.seam import Peer

USUAL_PEERS = (*QUICBUS_PEERS, "NATS/TLS", "zenoh/QUIC")
MOVING_S = 22.0
"""Four changes of address; what `--write` measures besides the paths with losses."""


def main() -> int:
    options = _parser().parse_args()
    console = Console(highlight=False, stderr=options.json)
    if (missing := namespaces.why_not_here()) is not None:
        console.print(f"skipped: {missing}")
        return 1
    with ended_by_signals():
        try:
            return check(console) if options.check else measure(options, console)
        except Interrupted as interrupted:
            return 128 + interrupted.signal


def check(console: Console) -> int:
    findings = check_path()
    shown = Table(box=box.SIMPLE)
    for heading in ("", "wanted", "measured", ""):
        shown.add_column(heading)
    for finding in findings:
        shown.add_row(finding.name, finding.wanted, finding.measured, "ok" if finding.is_good else "NOT AS WANTED")
    console.print(shown)
    return 0 if all(finding.is_good for finding in findings) else 1


def measure(options: argparse.Namespace, console: Console) -> int:
    peers = choose_peers(options.only, console)
    rows: list[Row] = []
    cases = make_cases(options)
    seconds = sum(case.seconds + 3 for case in cases) * len(peers) * options.rounds
    console.print(
        f"{len(cases)} cases x {len(peers)} peers x {options.rounds} rounds: about {seconds / 60:.0f} minutes"
    )
    begin = time.monotonic()
    for round_number in range(options.rounds):
        for case, peer in product(cases, peers):
            # Each round meets other losses; within a round all peers meet the same.
            row = Row(peer.name, case, _run(peer, case, options.seed + round_number))
            rows.append(row)
            console.print(f"[{time.monotonic() - begin:5.0f} s] {row}", markup=False, soft_wrap=True)
    results = medians(rows)
    if options.json:
        print(json.dumps([row.as_dict() for row in results]))  # a report
    else:
        console.print(table(results))
    if options.write is not None:
        from benchmarks.wide_area.document import write_docs

        write_docs(results, options.rounds, options.write)
    return 0


def choose_peers(only: str, console: Console) -> list[Peer]:
    """Return the peers that are wanted and here; says why the others are not."""
    known = {peer.name: peer for peer in all_peers() if not peer.cases}
    wanted = USUAL_PEERS if not only else [name for name in known if any(part in name for part in only.split(","))]
    peers = [known[name] for name in wanted]
    for peer in peers:
        if peer.missing:
            console.print(f"skipped: {peer.name}: {peer.missing}")
    return [peer for peer in peers if not peer.missing]


def make_cases(options: argparse.Namespace) -> list[Case]:
    """Return every combination of what the options list; for a document also a client that moves."""
    grid = product(options.rate, options.round_trip, options.loss, options.topics)
    cases = [
        Case(
            round_trip_ms=round_trip,
            loss=loss / 100,
            topics=topics,
            rate=rate,
            seconds=options.seconds,
            size=options.size,
            jitter_ms=options.jitter,
            reorder=options.reorder / 100,
            rate_mbit=options.megabits,
            move_every_s=options.move_every,
            far_publisher=options.far_publisher,
        )
        for rate, round_trip, loss, topics in grid
    ]
    if options.write is not None:
        cases += [
            replace(case, move_every_s=5.0, seconds=MOVING_S)
            for case in cases
            if (case.round_trip_ms, case.loss, case.rate) == (80, 0, options.rate[0])
        ]
    return cases


def _run(peer: Peer, case: Case, seed: int) -> Result | str:
    try:
        return run_case(peer, replace(case, seed=seed))
    except LaunchError as error:
        return str(error).splitlines()[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure the path with plain sockets")
    parser.add_argument("--only", default="", help=f"parts of peers' names, with commas (usual: {USUAL_PEERS})")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each load lasts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rate", type=_numbers, default=[200.0], help="messages a second, e.g. 200,500")
    parser.add_argument("--round-trip", type=_numbers, default=[20.0, 80.0, 200.0], help="milliseconds, there and back")
    parser.add_argument("--loss", type=_numbers, default=[0.0, 1.0, 3.0, 5.0], help="per cent, in each direction")
    parser.add_argument("--topics", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16])
    parser.add_argument("--jitter", type=float, default=0.0, help="milliseconds added at most")
    parser.add_argument("--reorder", type=float, default=0.0, help="per cent of packets that come 5 ms later")
    parser.add_argument("--megabits", type=float, default=100.0, help="the link's rate; 0: unbounded")
    parser.add_argument("--move-every", type=float, default=0.0, help="seconds between changes of the client's address")
    parser.add_argument("--far-publisher", action="store_true", help="the publisher is beside the subscriber")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", metavar="DOCS", type=Path, help="write tables and a plot into this folder")
    return parser


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
