"""The demo's books: what each subscriber got of what was published, by whom it was served, and what it missed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quicbus import Gap
from quicbus_cli.bench_workers import percentile
from quicbus_cli.demo_publisher import SENT_HEADER, UNIT_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus import Event, Message, Peer

__all__ = ["Books", "Row", "Seen"]


@dataclass(slots=True)
class Row:
    """The last message of one topic."""

    value: str = ""
    unit: str = ""
    count: int = 0
    latency_ms: float = 0.0
    sent_ns: int = 0


@dataclass(slots=True)
class Seen:
    """What the subscriber at one broker has got: `published` = `received` + `dropped` + `missed`, at the end."""

    broker: str
    """The one it began at."""
    now: str
    """The one it is at; empty while it has none."""
    rows: dict[str, Row] = field(default_factory=dict)
    received: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    by_broker: Counter[str] = field(default_factory=Counter)
    """Messages by the broker that handed them over."""
    dropped: Counter[str] = field(default_factory=Counter)
    gaps: list[Gap] = field(default_factory=list)
    repeated: int = 0
    disordered: int = 0
    ids: set[str] = field(default_factory=set)

    def take(self, message: Message) -> None:
        sent_ns = int(message.headers[SENT_HEADER])
        row = self.rows.setdefault(message.topic, Row())
        self.repeated += message.id in self.ids
        self.disordered += sent_ns < row.sent_ns
        self.ids.add(message.id)
        row.value, row.unit = message.payload.decode(), message.headers[UNIT_HEADER]
        row.count += 1
        row.sent_ns = sent_ns
        row.latency_ms = (time.monotonic_ns() - sent_ns) / 1e6
        self.latencies_ms.append(row.latency_ms)
        self.by_broker[self.now] += 1
        self.received += 1

    def summary(self, published: int) -> dict[str, Any]:
        dropped = sum(self.dropped.values())
        return {
            "broker": self.broker,
            "ended_at": self.now,
            "received": self.received,
            "dropped": dropped,
            "missed": max(0, published - self.received - dropped),
            "repeated": self.repeated,
            "disordered": self.disordered,
            "gaps": len(self.gaps),
            "gap_s": round(max((gap.duration_s for gap in self.gaps), default=0.0), 3),
        }


@dataclass(slots=True)
class Books:
    """Of the whole demo. `steady` stays with its broker, `moving` loses it."""

    steady: Seen
    moving: Seen
    names: dict[str, str]
    """Of the brokers, by node id."""
    published: int = 0
    begin: float = 0.0
    end: float = 0.0
    peers: Sequence[Peer] = ()
    """The mesh, as the broker of `steady` sees it."""
    killed: str = ""
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The statistics of the brokers that lived to print them, by name."""
    story: list[tuple[float, str]] = field(default_factory=list)
    """What happened, and when, in seconds since the first message."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def subscribers(self) -> tuple[Seen, Seen]:
        return self.steady, self.moving

    @property
    def is_complete(self) -> bool:
        """Nothing is under way any more: all has come that can, and the subscriber that lost its broker has another."""
        settled = not self.killed or self.moving.gaps
        return bool(self.steady.received >= self.published and settled)

    def take(self, seen: Seen, message: Message) -> None:
        seen.take(message)
        self.end = time.monotonic()
        self.begin = self.begin or self.end
        self.changed.set()

    def tell(self, sentence: str) -> None:
        self.story.append((time.monotonic() - self.begin if self.begin else 0.0, sentence))
        self.changed.set()

    def take_event(self, seen: Seen, event: Event) -> None:
        if isinstance(event, Gap):
            seen.gaps.append(event)
            self.changed.set()

    def summary(self) -> dict[str, Any]:
        ordered = sorted(latency for seen in self.subscribers for latency in seen.latencies_ms)
        elapsed = self.end - self.begin
        received = sum(seen.received for seen in self.subscribers)
        dropped = self.steady.dropped + self.moving.dropped
        return {
            "published": self.published,
            "messages": self.steady.received,
            "topics": len(self.steady.rows),
            "deliveries": received,
            "deliveries_per_s": round(received / elapsed, 1) if elapsed else 0.0,
            "latency_p50_ms": round(percentile(ordered, 0.5), 3),
            "latency_p99_ms": round(percentile(ordered, 0.99), 3),
            "dropped": sum(dropped.values()),
            "dropped_by_reason": dict(dropped),
            "killed": self.killed,
            "brokers": [self._broker(node, name) for node, name in self.names.items()],
            "subscribers": [seen.summary(self.published) for seen in self.subscribers],
            "story": [{"at_s": round(at, 2), "what": what} for at, what in self.story],
        }

    def _broker(self, node: str, name: str) -> dict[str, Any]:
        state = next((peer.state for peer in self.peers if peer.node == node), "unknown")
        delivered = sum(seen.by_broker[name] for seen in self.subscribers)
        return {
            "name": name,
            "node": node,
            "state": "killed" if name == self.killed else state,
            "delivered": delivered,
            "books": self.told.get(name, {}).get("books"),
            "mesh": self.told.get(name, {}).get("mesh"),
        }
