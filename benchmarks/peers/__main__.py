"""Measures quicbus beside other brokers, in one run on one machine.

Each round of each peer has a server of its own and workers in processes of their own. Rounds are interleaved, so that
what else the machine does hits all; every message is counted at the subscriber.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.peers.cases import all_cases
from benchmarks.peers.machine import allow_open_files, describe_machine
from benchmarks.peers.registry import all_peers
from benchmarks.peers.results import Results
from benchmarks.peers.running import Run
from benchmarks.peers.shapes import Effort
from benchmarks.peers.shown import show_case
from quicbus.process import Interrupted, ended_by_signals

if TYPE_CHECKING:
    from benchmarks.peers.cases import Case
    from benchmarks.peers.seam import Peer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", action="append", help="cases whose name contains TEXT; repeatable")
    parser.add_argument("--peers", metavar="TEXT", action="append", help="peers whose name contains TEXT; repeatable")
    parser.add_argument(
        "--rounds", type=int, help="of each case and peer (default 3; --quick: 1; not with --update: as before)"
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: shows that all works, not how fast")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples of all rounds")
    parser.add_argument(
        "--update",
        metavar="FILE",
        type=Path,
        help="of an earlier --json: keep all cases but those measured now",
    )
    parser.add_argument("--write", metavar="DOCS", type=Path, help="write tables and plots into this folder")
    parser.add_argument("--list", action="store_true", help="name cases and peers, and what is missing here")
    options = parser.parse_args()
    console = Console(highlight=False, stderr=True)
    cases = [case for case in all_cases() if _is_chosen(case.name, options.only)]
    peers = [peer for peer in all_peers() if _is_chosen(peer.name, options.peers)]
    if options.list:
        _list(Console(highlight=False), cases, peers)
        return 0
    if not cases or not peers:
        parser.error("no case or no peer has such a name; see --list")
    if options.write is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--write draws plots by matplotlib, which is not installed (pip install '.[bench]')")
    if options.update is not None and options.rounds:
        parser.error("--update measures as many rounds as FILE has of the other cases; leave out --rounds")
    effort = Effort(seconds=0.3, max_size=30_000_000, share=0.1) if options.quick else Effort()
    rounds = options.rounds or (1 if options.quick else 3)
    if options.update is None:
        results = Results(describe_machine(), rounds=rounds, planned=len(cases))
    else:
        try:
            results = Results.read(options.update)
        except (OSError, msgspec.DecodeError) as error:
            parser.error(f"--update {options.update}: {error}")
        results.begin_again(cases)
    for peer in peers:
        results.note_peer(peer)
        if peer.missing:
            console.print(f"skipped: {peer.name}: {peer.missing}")
    allow_open_files()
    return _measure(Run(cases, [peer for peer in peers if not peer.missing], effort, results), options, console)


def _measure(run: Run, options: argparse.Namespace, console: Console) -> int:
    """Measure, and keep what was measured after each case; returns the exit code."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with ended_by_signals(), Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=run.rounds)
            for case, peer in run.steps():
                if peer is not None:
                    progress.update(bar, description=f"{case.name}: {peer.name}", completed=run.done)
                    continue
                console.print(show_case(case, run.results), run.time_text())
                _keep(run.results, case, options, console)
    except Interrupted as error:
        if run.case is not None:
            _keep(run.results, run.case, options, console)
        console.print("interrupted; what was measured is written, if --json or --write were given")
        return 128 + error.signal
    return 0


def _keep(results: Results, case: Case, options: argparse.Namespace, console: Console) -> None:
    """Write all so far; a file that cannot be written is no reason to measure no further."""
    try:
        if options.json is not None:
            options.json.write_text(json.dumps(results.as_dict(), indent=1) + "\n")
        if options.write is not None:
            from benchmarks.peers.report import write_docs

            write_docs(results, options.write, case.group)
    except OSError as error:
        console.print(f"not written: {error}")


def _list(console: Console, cases: list[Case], peers: list[Peer]) -> None:
    for case in cases:
        console.print(case.name)
    for peer in peers:
        console.print(f"peer {peer.name}: {peer.missing or ', '.join(f'{k} {v}' for k, v in peer.versions.items())}")


def _is_chosen(name: str, texts: list[str] | None) -> bool:
    return not texts or any(text.lower() in name.lower() for text in texts)


if __name__ == "__main__":
    sys.exit(main())
