"""Throughput beside NATS over TLS, in one run on one machine: `python -m benchmarks.throughput`.

Each peer: a broker process, a publisher process, a subscriber process; everything encrypted, nothing lost; the clock
runs from the first publish to the last receipt. quicbus is read by `async for`; NATS both ways, and compared with its
faster one, the callback. Rounds are interleaved, so that what else the machine does hits all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import secrets
import statistics
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.nats_server import nats_broker, nats_server
from benchmarks.nats_workers import NatsPlan
from quicbus.process import ended_by_signals
from quicbus.testing.launcher import BrokerProcess
from quicbus_cli.bench_workers import Plan
from quicbus_cli.measuring import Measurement, measure

Peer = Callable[[argparse.Namespace], Measurement]
NATS = "NATS/TLS, callback"
NATS_ITERATOR = "NATS/TLS, async for"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--topics", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(highlight=False, stderr=options.json)
    peers, missing = find_peers()
    for sentence in missing:
        console.print(f"skipped: {sentence}")
    results: dict[str, list[Measurement]] = {name: [] for name in peers}
    with ended_by_signals():
        for round_number in range(options.rounds):
            for name, run_peer in peers.items():
                measured = run_peer(options)
                results[name].append(measured)
                console.print(
                    f"round {round_number + 1} {name}: {measured.messages_per_s:,.0f}/s, lost {measured.lost}"
                )
    summary = {name: summarize(measured, results.get(NATS, [])) for name, measured in results.items()}
    if options.json:
        print(json.dumps(summary))  # a report
    else:
        console.print(table(summary, options))


def find_peers() -> tuple[dict[str, Peer], list[str]]:
    """Return what can be measured here, and why the rest can't."""
    peers: dict[str, Peer] = {"quicbus aioquic": lambda options: run_quicbus("aioquic", options)}
    missing = []
    if importlib.util.find_spec("qh3"):
        peers = {"quicbus qh3": lambda options: run_quicbus("qh3", options), **peers}
    else:
        missing.append("quicbus qh3: qh3 is not installed (pip install '.[fast]')")
    if nats_server() is None:
        missing.append(f"{NATS}: nats-server is not on PATH (Debian: apt install nats-server)")
    elif importlib.util.find_spec("nats") is None:
        missing.append(f"{NATS}: nats-py is not installed (pip install '.[bench]')")
    else:
        peers[NATS] = lambda options: run_nats(options, callback=True)
        peers[NATS_ITERATOR] = lambda options: run_nats(options, callback=False)
    return peers, missing


def run_quicbus(engine: str, options: argparse.Namespace) -> Measurement:
    with BrokerProcess(engine=engine, own_session=True) as broker:
        plan = Plan(url=broker.url, credentials=str(broker.credential_path), engine=engine, **workload(options))
        return measure(plan, broker_pid=broker.pid)


def run_nats(options: argparse.Namespace, *, callback: bool) -> Measurement:
    with nats_broker() as server:
        plan = NatsPlan(
            url=server.url,
            credentials=str(server.authority),
            server_name=server.server_name,
            callback=callback,
            **workload(options),
        )
        return measure(plan, broker_pid=server.pid, module="benchmarks.nats_workers")


def workload(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "run": secrets.token_hex(4),
        "messages": options.messages,
        "size": options.size,
        "topics": options.topics,
    }


def summarize(measured: list[Measurement], nats: list[Measurement]) -> dict[str, Any]:
    """Return medians over the rounds, and the ratio to NATS where it was measured."""
    rate = statistics.median(each.messages_per_s for each in measured)
    nats_rate = statistics.median(each.messages_per_s for each in nats) if nats else None
    return {
        "messages_per_s": round(rate),
        "megabytes_per_s": round(statistics.median(each.megabytes_per_s for each in measured), 1),
        "p50_ms": round(statistics.median(each.p50_ms for each in measured), 3),
        "p99_ms": round(statistics.median(each.p99_ms for each in measured), 3),
        "lost": sum(each.lost for each in measured),
        "broker_peak_mib": round(max(each.broker_peak_bytes or 0 for each in measured) / 2**20),
        "times_nats": round(rate / nats_rate, 2) if nats_rate else None,
    }


def table(summary: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    title = (
        f"{options.messages:,} messages of {options.size} bytes, {options.topics} topic(s), medians of {options.rounds}"
    )
    shown = Table(title=title, title_justify="left", box=box.SIMPLE)
    shown.add_column("", no_wrap=True)
    for heading in ("k msg/s", "MB/s", "p50 ms", "p99 ms", "lost", "MiB", "x NATS"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, row in summary.items():
        values = {**row, "messages_per_s": round(row["messages_per_s"] / 1000)}
        shown.add_row(name, *("-" if value is None else f"{value:,}" for value in values.values()))
    return shown


if __name__ == "__main__":
    main()
