"""The cases: what is measured of a peer in one round, each on a server of its own."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.peers.seam import Peer, Server
    from benchmarks.peers.shapes import Effort, Sample

__all__ = ["Case", "Metric", "all_cases"]

SIZES = {16: "16 B", 128: "128 B", 1024: "1 KiB", 16 * 1024: "16 KiB", 256 * 1024: "256 KiB"}
_HELD = "datagrams held"
_BESIDE_HELD = ("NATS/TLS", "zenoh/QUIC", "Mosquitto/TLS, paho")


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of figures."""

    name: str
    unit: str
    is_better_high: bool = True
    is_compared: bool = True
    """Otherwise it says under what the others were measured."""


RATE = Metric("messages_per_s", "messages/s")
VOLUME = Metric("megabytes_per_s", "MB/s")
REQUESTS = Metric("requests_per_s", "requests/s")
CONNECTIONS = Metric("connections_per_s", "connections/s")
LATENCIES = tuple(
    Metric(name, f"ms, {label}", is_better_high=False)
    for name, label in (("p50_ms", "p50"), ("p99_ms", "p99"), ("p999_ms", "p99.9"))
)
LOAD = Metric("load_messages_per_s", "messages/s beside", is_compared=False)
KILOBYTES = Metric("kilobytes", "KB", is_better_high=False)
START_UP = Metric("start_ms", "ms", is_better_high=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A column of a table; `group` is the table."""

    name: str
    group: str
    label: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Sequence[Server], Effort], Sample]
    servers: int = 1
    is_crowd: bool = False
    """Hundreds of clients of one address."""

    def takes(self, peer: Peer) -> bool:
        if _HELD in self.name:
            return peer.cases == _HELD or peer.name in _BESIDE_HELD
        return not peer.cases and (self.servers == 1 or peer.start_two is not None)

    def run(self, peer: Peer, effort: Effort) -> Sample:
        """Start the peer, measure and stop it."""
        with self._running(peer) as servers:
            return self.measure(servers, effort)

    @contextlib.contextmanager
    def _running(self, peer: Peer) -> Iterator[Sequence[Server]]:
        start = peer.start_two if self.servers == 2 else (self.is_crowd and peer.start_crowd) or peer.start
        assert start is not None
        with tempfile.TemporaryDirectory(prefix="quicbus-bench-", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)  # mosquitto and redis read their files without root's rights
            with start(Path(name)) as servers:
                yield servers


def all_cases() -> list[Case]:
    return [
        *(_throughput(size, topics) for topics in (1, 100, 10_000) for size in SIZES),
        *(_throughput(size, 1, held=f", {_HELD}") for size in (16, 128)),
        *(_fan_out(count) for count in (1, 10, 100, 1000)),
        _case("fan-in, 100 to 1", "Fan-in", "100 to 1", (RATE,), shapes.measure_load, publishers=100, is_crowd=True),
        _round_trip("idle"),
        _round_trip("half load", share=0.5),
        _round_trip("beside 50,000/s", load=50_000),
        *(_requests(in_flight) for in_flight in (1, 50)),
        _case("two nodes, 128 B", "Two nodes", "two nodes", (RATE,), shapes.measure_load, servers=2),
        _case(
            "connections per second", "Connections", "opened", (CONNECTIONS,), shapes.measure_connects, is_crowd=True
        ),
        _case(
            "memory, idle client", "Memory", "idle client", (KILOBYTES,), shapes.measure_client_memory, is_crowd=True
        ),
        _case(
            "memory, 1,000 subscriptions",
            "Memory",
            "1,000 subscriptions",
            (KILOBYTES,),
            shapes.measure_subscription_memory,
        ),
        _case("start-up", "Start-up", "until it takes clients", (START_UP,), _start_up),
    ]


def _case(
    name: str,
    group: str,
    label: str,
    metrics: tuple[Metric, ...],
    measure: Callable[..., Sample],
    *,
    servers: int = 1,
    is_crowd: bool = False,
    **parameters: object,
) -> Case:
    return Case(name, group, label, metrics, partial(measure, **parameters), servers=servers, is_crowd=is_crowd)


def _throughput(size: int, topics: int, held: str = "") -> Case:
    many = ("1 topic" if topics == 1 else f"{topics:,} topics") + held
    metrics = (RATE,) if size < 1024 else (VOLUME,)
    name = f"throughput, {SIZES[size]}, {many}"
    return _case(name, f"Throughput, {many}", SIZES[size], metrics, shapes.measure_load, size=size, topics=topics)


def _fan_out(count: int) -> Case:
    name = f"1 to {count:,}"
    is_crowd = count >= 100
    return _case(
        f"fan-out, {name}", "Fan-out", name, (RATE,), shapes.measure_load, subscribers=count, is_crowd=is_crowd
    )


def _round_trip(label: str, share: float = 0.0, load: float | None = None) -> Case:
    name = f"round trip, {label}"
    metrics = (*LATENCIES, LOAD) if share or load else LATENCIES
    return _case(name, f"Round trip, {label}", "round trip", metrics, shapes.measure_round_trip, share=share, load=load)


def _requests(in_flight: int) -> Case:
    label = f"{in_flight} in flight"
    return _case(f"requests, {label}", "Requests", label, (REQUESTS,), shapes.measure_requests, in_flight=in_flight)


def _start_up(servers: Sequence[Server], _effort: Effort) -> Sample:
    return {"start_ms": 1000 * servers[0].started_s, "lost": 0}
