"""Throughput over two brokers, beside one and beside a NATS cluster: `python -m benchmarks.mesh_throughput`.

The publisher is at node A, the subscriber at node B: client to A, A to B, B to client are encrypted, nothing is lost.
All rows are of one run with interleaved rounds; the machine runs a process more for two nodes than for one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.nats_server import nats_broker, nats_cluster, nats_server
from benchmarks.nats_workers import NatsPlan
from benchmarks.throughput import run_quicbus, summarize, workload
from quicbus.identity.data_folder import load_authority, prepare_node_folder
from quicbus.process import ended_by_signals
from quicbus.testing.launcher import BrokerProcess
from quicbus_cli.bench_workers import Plan
from quicbus_cli.measuring import Measurement, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    Peer = Callable[[argparse.Namespace], Measurement]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--topics", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(highlight=False, stderr=options.json)
    peers = find_peers(console)
    results: dict[str, list[Measurement]] = {name: [] for name in peers}
    with ended_by_signals():
        for round_number in range(options.rounds):
            for name, run_peer in peers.items():
                measured = run_peer(options)
                results[name].append(measured)
                rate = f"{measured.messages_per_s:,.0f}/s, lost {measured.lost}"
                console.print(f"round {round_number + 1} {name}: {rate}")
    summary = {name: summarize(measured, []) for name, measured in results.items()}
    for name, row in summary.items():
        one = summary.get(name.replace("two nodes", "one node"))
        row["times_one_node"] = None if one is None else round(row["messages_per_s"] / one["messages_per_s"], 2)
    if options.json:
        print(json.dumps(summary))  # a report
    else:
        console.print(_table(summary, options))


def find_peers(console: Console) -> dict[str, Peer]:
    """Return what can be measured here; says why the rest can't."""
    engines = ["qh3", "aioquic"] if importlib.util.find_spec("qh3") else ["aioquic"]
    peers: dict[str, Peer] = {}
    for engine in engines:
        peers[f"quicbus {engine}, one node"] = partial(run_quicbus, engine)
        peers[f"quicbus {engine}, two nodes"] = partial(run_two_nodes, engine)
    if nats_server() is None or importlib.util.find_spec("nats") is None:
        console.print("skipped: NATS (Debian: apt install nats-server; pip install '.[bench]')")
    else:
        peers["NATS/TLS, one node"] = lambda options: run_nats(options, nodes=1)
        peers["NATS/TLS, two nodes"] = lambda options: run_nats(options, nodes=2)
    return peers


def run_two_nodes(engine: str, options: argparse.Namespace) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="quicbus-mesh-") as name, BrokerProcess(engine=engine) as near:
        folder = Path(name) / "far"
        prepare_node_folder(load_authority(near.data_dir), "far", folder)
        with BrokerProcess(engine=engine, data_dir=folder, options=["--seed", near.address]) as far:
            shared: dict[str, Any] = {"engine": engine, **workload(options)}
            publisher = Plan(url=near.url, credentials=str(near.credential_path), **shared)
            subscriber = Plan(url=far.url, credentials=str(far.credential_path), **shared)
            return measure(publisher, subscriber_plan=subscriber, broker_pid=far.pid)


def run_nats(options: argparse.Namespace, *, nodes: int) -> Measurement:
    with nats_broker() if nodes == 1 else nats_cluster() as servers:
        near, far = servers if isinstance(servers, tuple) else (servers, servers)
        shared: dict[str, Any] = {
            "credentials": str(near.authority),
            "server_name": near.server_name,
            **workload(options),
        }
        publisher, subscriber = NatsPlan(url=near.url, **shared), NatsPlan(url=far.url, **shared)
        return measure(publisher, subscriber_plan=subscriber, broker_pid=far.pid, module="benchmarks.nats_workers")


def _table(summary: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    title = f"{options.messages:,} messages of {options.size} bytes, medians of {options.rounds}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE)
    shown.add_column("", no_wrap=True)
    for heading in ("k msg/s", "x one node", "p50 ms", "p99 ms", "lost", "MiB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, row in summary.items():
        ratio = "-" if row["times_one_node"] is None else f"{row['times_one_node']:.2f}"
        shown.add_row(
            name,
            f"{row['messages_per_s'] / 1000:,.0f}",
            ratio,
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            str(row["lost"]),
            str(row["broker_peak_mib"]),
        )
    return shown


if __name__ == "__main__":
    main()
