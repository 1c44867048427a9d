"""What quicbus shall reach, as ratios within one run, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.results import Results

__all__ = ["TARGETS", "Judged", "Target", "judge"]

QH3 = "quicbus qh3"
AIOQUIC = "quicbus aioquic"
HELD_QH3 = "quicbus qh3, 1,440-byte datagrams"
HELD_AIOQUIC = "quicbus aioquic, 1,200-byte datagrams"
NATS = "NATS/TLS"
RATE = "messages_per_s"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of a peer of quicbus, divided by that of another one, or of another case, or by nothing."""

    case: str
    peer: str
    bound: float
    than: str = ""
    """The other peer; empty: the bound is of the figure itself."""
    than_case: str = ""
    """Where it is not the same case."""
    metric: str = RATE
    is_least: bool = True
    """The bound is the least, not the most."""

    @property
    def wanted(self) -> str:
        sign = ">=" if self.is_least else "<="
        unit = "x" if self.than else "KB"
        return f"{sign} {self.bound:g} {unit}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A target and what came out; `measured` is `None` where one of both is missing."""

    target: Target
    measured: float | None

    @property
    def is_reached(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.target.bound if self.target.is_least else self.measured <= self.target.bound


def _targets() -> list[Target]:
    one = "throughput, {}, 1 topic".format
    held = "throughput, {}, 1 topic, datagrams held".format
    topics_100, topics_10_000 = "throughput, 128 B, 100 topics", "throughput, 128 B, 10,000 topics"
    small, large = ("16 B", "128 B"), ("1 KiB", "16 KiB", "256 KiB")
    loopback = (("zenoh/QUIC", 2.0), ("zenoh/TCP", 1.5), (NATS, 5.0))
    volume = "megabytes_per_s"
    return [
        *(Target(one(size), QH3, bound, than) for size in small for than, bound in loopback),
        *(
            Target(held(size), HELD_QH3, bound, than)
            for size in small
            for than, bound in (("zenoh/QUIC", 1.2), (NATS, 3))
        ),
        *(Target(case, QH3, 1.5, NATS) for case in (topics_100, topics_10_000)),
        Target(topics_100, QH3, 0.7, QH3, one("128 B")),
        *(Target(one(size), QH3, 1.2, than, metric=volume) for size in large for than in ("zenoh/QUIC", NATS)),
        *(
            Target(f"round trip, {load}", QH3, 1.1, NATS, metric=metric, is_least=False)
            for load in ("idle", "half load", "beside 50,000/s")
            for metric in ("p50_ms", "p99_ms")
        ),
        *(Target(f"fan-out, 1 to {count}", QH3, 4.0, NATS) for count in (10, 100)),
        Target("memory, idle client", QH3, 60.0, metric="kilobytes", is_least=False),
        Target(one("128 B"), AIOQUIC, 1.0, NATS),
        Target(held("128 B"), HELD_AIOQUIC, 1.0, "Mosquitto/TLS, paho"),
    ]


TARGETS = _targets()


def judge(results: Results) -> list[Judged]:
    """Return all targets with what came out, by the medians of the rounds."""
    return [Judged(target, _measured(target, results)) for target in TARGETS]


def _measured(target: Target, results: Results) -> float | None:
    own = results.spread(target.case, target.peer, target.metric)
    if own is None or not target.than:
        return None if own is None else own.median
    other = results.spread(target.than_case or target.case, target.than, target.metric)
    return own.median / other.median if other is not None and other.median > 0 else None
