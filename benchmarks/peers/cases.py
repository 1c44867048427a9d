"""The cases: what is measured of a peer in one round, each on a server of its own."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.driving import peak_memory, workers
from benchmarks.peers.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.peers.seam import Peer, Server, StartServers, Where

__all__ = ["Case", "Effort", "Metric", "Sample", "all_cases"]

Sample = dict[str, float]
"""What one round gave, by name of metric; `lost` says how many messages did not arrive."""

MEBIBYTE = 1024 * 1024
SIZES = {16: "16 B", 128: "128 B", 1024: "1 KiB", 16 * 1024: "16 KiB", 256 * 1024: "256 KiB"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each round may take."""

    seconds: float = 1.5
    """Of publishing as fast as it goes."""
    max_size: int = 400 * MEBIBYTE
    """Published in that time at most: what some peers keep in queues."""
    share: float = 1.0
    """Of what is counted rather than timed."""

    def count(self, number: int) -> int:
        return max(1, int(number * self.share))


@dataclass(frozen=True, slots=True)
class Metric:
    """One column."""

    name: str
    unit: str
    is_better_high: bool = True


RATE = Metric("messages_per_s", "messages/s")
VOLUME = Metric("megabytes_per_s", "MB/s")


@dataclass(frozen=True, slots=True)
class Case:
    """`metrics[0]` is what the peers are compared by."""

    name: str
    group: str
    metrics: tuple[Metric, ...]
    run: Callable[[Peer, Effort], Sample]
    can: Callable[[Peer], bool] = lambda peer: True

    def takes(self, peer: Peer) -> bool:
        return self.can(peer) and (not peer.cases or peer.cases in self.name)


def all_cases() -> list[Case]:
    return [_throughput(size, topics) for topics in (1, 100, 10_000) for size in SIZES]


@contextlib.contextmanager
def running(start: StartServers) -> Iterator[list[Server]]:
    with tempfile.TemporaryDirectory(prefix="quicbus-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # mosquitto reads its files without root's rights
        with start(folder) as servers:
            yield list(servers)


def _throughput(size: int, topics: int) -> Case:
    many = "1 topic" if topics == 1 else f"{topics:,} topics"

    def run(peer: Peer, effort: Effort) -> Sample:
        with running(peer.start) as servers:
            where = servers[0].where
            return measure_load(servers[0], where, where, effort, size=size, topics=topics)

    name = f"throughput, {SIZES[size]}, {many}"
    return Case(name, f"Throughput, {many}", (RATE, VOLUME) if size < 1024 else (VOLUME, RATE), run)


def measure_load(
    server: Server,
    publish_at: Where,
    subscribe_at: Where,
    effort: Effort,
    *,
    size: int = 128,
    topics: int = 1,
    publishers: int = 1,
    subscribers: int = 1,
    processes: int = 2,
) -> Sample:
    """Publish as fast as it goes; deliveries over the time from the first publish to the last receipt.

    Many publishers or subscribers share `processes` processes.
    """
    writing = [
        Plan(role="publish", where=publish_at, size=size, topics=topics, connections=count, seed=1 + number)
        for number, count in enumerate(_shares(publishers, processes))
    ]
    reading = [
        Plan(role="subscribe", where=subscribe_at, size=size, topics=topics, connections=count)
        for count in _shares(subscribers, processes)
    ]
    with workers(*reading) as readers, workers(*writing) as writers:
        for writer in writers:
            writer.tell("warm")
        for reader in readers:
            reader.result("warm")
            reader.ask("count", "counting")
        most = min(effort.max_size // (size * subscribers) + 1, effort.count(10_000_000))
        for writer in writers:
            writer.tell("load", seconds=effort.seconds, messages=most // len(writers))
        published = [writer.result("published") for writer in writers]
        count = sum(each["messages"] for each in published)
        for reader in readers:
            reader.tell("expect", messages=count)
        received = [reader.result("received") for reader in readers]
    delivered = sum(each["messages"] for each in received)
    seconds = max(1e-9, (max(each["last"] for each in received) - min(each["begin"] for each in published)) / 1e9)
    return {
        "messages_per_s": delivered / seconds,
        "megabytes_per_s": sum(each["size"] for each in received) / seconds / 1e6,
        "published": count,
        "delivered": delivered,
        "lost": count * subscribers - delivered,
        "server_peak_bytes": peak_memory(server.pid) or 0,
    }


def _shares(count: int, processes: int) -> list[int]:
    """Divide `count` over at most `processes`."""
    processes = min(count, processes)
    return [count // processes + (number < count % processes) for number in range(processes)]
