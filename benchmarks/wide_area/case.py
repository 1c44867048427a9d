"""One measurement over the path: server and publisher on one side, subscriber on the other, or both clients there."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.peers.seam import Where
from benchmarks.wide_area.forwarder import PathSettings
from benchmarks.wide_area.link import LinkSettings
from benchmarks.wide_area.path import WideAreaPath, open_path
from benchmarks.wide_area.workers import LoadPlan
from quicbus.testing.launcher import BrokerProcess, Launched, LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.seam import Peer

__all__ = ["QUICBUS_PEERS", "Case", "Result", "run_case"]

READY_S = 60.0
QUICBUS_PEERS = {"quicbus qh3": "qh3", "quicbus aioquic": "aioquic"}
STALL_S = 15.0
"""What has not arrived this long after the last publish is lost."""
FORWARDED_LATE_US = 2_000
"""The forwarder's own error at p99; a run in which it was more says little."""


@dataclass(frozen=True, slots=True)
class Case:
    """A path and a load on it."""

    round_trip_ms: float = 80.0
    loss: float = 0.0
    """Of IP packets, in each direction."""
    topics: int = 1
    rate: float = 200.0
    seconds: float = 20.0
    size: int = 128
    jitter_ms: float = 0.0
    reorder: float = 0.0
    rate_mbit: float = 100.0
    move_every_s: float = 0.0
    """The subscriber's address changes so often; 0: never."""
    far_publisher: bool = False
    """The publisher stands beside the subscriber, so that each message goes over the link and back."""
    seed: int = 1

    @property
    def path(self) -> PathSettings:
        link = LinkSettings(
            delay_ms=self.round_trip_ms / 2,
            jitter_ms=self.jitter_ms,
            loss=self.loss,
            reorder=self.reorder,
            rate_mbit=self.rate_mbit,
        )
        return PathSettings(to_broker=link, to_client=link, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Result:
    """What arrived, when, and what the link did. Times are from when a message was due."""

    published: int
    lost: int
    repeated: int = 0
    messages_per_s: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    longest_pause_ms: float = 0.0
    moves: int = 0
    path: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_exact(self) -> bool:
        """Whether the forwarder kept its times."""
        return bool(self.path["late_us"]["p99"] <= FORWARDED_LATE_US)


def run_case(peer: Peer, case: Case) -> Result:
    """Start the peer's server on a new path, load it, and stop all."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quicbus-wide-")))
        path = stack.enter_context(open_path(case.path))
        with path.broker_side.entered():
            where = stack.enter_context(_server(peer, folder, path))
        plan = LoadPlan(where=where, rate=case.rate, seconds=case.seconds, topics=case.topics, size=case.size)
        with path.client_side.entered():
            subscriber = stack.enter_context(_worker("subscribe", plan))
        _result(subscriber, "ready", READY_S)
        with (path.client_side if case.far_publisher else path.broker_side).entered():
            publisher = stack.enter_context(_worker("publish", plan))
        _result(publisher, "ready", READY_S)
        publisher.write(b"begin\n")
        moves = _move(path, case, publisher)
        _result(publisher, "published", case.seconds + READY_S)
        with contextlib.suppress(LaunchError):
            _result(subscriber, "received", STALL_S)
        subscriber.write(b"end\n")
        received = _result(subscriber, "received", READY_S)
        publisher.write(b"end\n")
        statistics = path.statistics()
    del received["event"], statistics["event"]
    lost = plan.messages - received.pop("messages")
    return Result(published=plan.messages, lost=lost, moves=moves, path=statistics, **received)


@contextlib.contextmanager
def _server(peer: Peer, folder: Path, path: WideAreaPath) -> Iterator[Where]:
    """Run the peer's server; a quicbus broker at the link's address, since clients take loopback for what it is."""
    if (engine := QUICBUS_PEERS.get(peer.name)) is None:
        with peer.start(folder) as servers:
            yield servers[0].where
        return
    with BrokerProcess(engine=engine, listen=f"{path.broker_address}:0", own_session=True) as broker:
        yield Where(
            bus="benchmarks.peers.quicbus_peer:QuicbusBus",
            url=broker.url,
            authority=str(broker.credential_path),
            options={"engine": engine, "datagram_size": ""},
        )


def _move(path: WideAreaPath, case: Case, publisher: Launched) -> int:
    """Move the client until the publisher is done, and return how often."""
    moves = 0
    if not case.move_every_s:
        return moves
    due = time.monotonic() + case.move_every_s
    end = time.monotonic() + case.seconds
    while due < end and publisher.is_running:
        time.sleep(max(0.0, due - time.monotonic()))
        path.move_client()
        moves += 1
        due += case.move_every_s
    return moves


def _worker(role: str, plan: LoadPlan) -> Launched:
    command = [sys.executable, "-m", "benchmarks.wide_area.workers", role, msgspec.json.encode(plan).decode()]
    return Launched(command, stdin=True, own_session=True)


def _result(process: Launched, event: str, deadline_s: float) -> dict[str, Any]:
    line = process.wait_line(f'{{"event": "{event}"', deadline_s=deadline_s)
    result: dict[str, Any] = json.loads(line)
    return result
