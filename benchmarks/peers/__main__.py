"""Measures quicbus beside other brokers, in one run on one machine.

Each round of each peer has a server of its own and workers in processes of their own. Rounds are interleaved, so that
what else the machine does hits all; every message is counted at the subscriber.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.peers.cases import all_cases
from benchmarks.peers.driving import RunFailed
from benchmarks.peers.machine import allow_open_files, describe_machine
from benchmarks.peers.registry import all_peers
from benchmarks.peers.results import Failure, Results
from benchmarks.peers.shapes import Effort
from benchmarks.peers.shown import show_case
from quicbus.process import Interrupted, ended_by_signals
from quicbus.testing.launcher import LaunchError

if TYPE_CHECKING:
    from benchmarks.peers.cases import Case
    from benchmarks.peers.seam import Peer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", action="append", help="cases whose name contains TEXT; repeatable")
    parser.add_argument("--peers", metavar="TEXT", action="append", help="peers whose name contains TEXT; repeatable")
    parser.add_argument("--rounds", type=int, help="of each case and peer (default 3, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="short rounds: shows that all works, not how fast")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples of all rounds")
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
    effort = Effort(seconds=0.3, max_size=30_000_000, share=0.1) if options.quick else Effort()
    results = Results(describe_machine(), rounds=options.rounds or (1 if options.quick else 3))
    for peer in peers:
        results.note_peer(peer)
        if peer.missing:
            console.print(f"skipped: {peer.name}: {peer.missing}")
    allow_open_files()
    try:
        with ended_by_signals():
            for case in cases:
                _run_case(case, [peer for peer in peers if not peer.missing], effort, results, console)
                console.print(show_case(case, results))
                if options.json is not None:
                    options.json.write_text(json.dumps(results.as_dict(), indent=1) + "\n")
    except Interrupted as error:
        console.print("interrupted; nothing is written but the cases of --json that were complete")
        return 128 + error.signal
    if options.write is not None:
        from benchmarks.peers.report import write_docs

        write_docs(results, options.write)
    return 0


def _run_case(case: Case, peers: list[Peer], effort: Effort, results: Results, console: Console) -> None:
    peers = [peer for peer in peers if case.takes(peer)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(case.name, total=results.rounds * len(peers))
        for _ in range(results.rounds):
            for peer in peers:
                progress.update(bar, description=f"{case.name}: {peer.name}")
                try:
                    results.add(case, peer, case.run(peer, effort))
                except (RunFailed, LaunchError, OSError) as error:
                    failure = Failure(case.name, peer.name, str(error).splitlines()[-1][:300])
                    results.failures.append(failure)
                    console.print(f"failed: {failure.case}: {failure.peer}: {failure.why}")
                progress.advance(bar)


def _list(console: Console, cases: list[Case], peers: list[Peer]) -> None:
    for case in cases:
        console.print(case.name)
    for peer in peers:
        console.print(f"peer {peer.name}: {peer.missing or ', '.join(f'{k} {v}' for k, v in peer.versions.items())}")


def _is_chosen(name: str, texts: list[str] | None) -> bool:
    return not texts or any(text.lower() in name.lower() for text in texts)


if __name__ == "__main__":
    sys.exit(main())
