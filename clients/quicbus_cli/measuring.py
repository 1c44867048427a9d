"""Runs one measurement: starts publisher and subscribers as processes, follows them, puts their results together."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec
import psutil

from quicbus.exceptions import QuicbusError
from quicbus.testing.launcher import Launched, LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_cli.bench_workers import Plan

__all__ = ["Measurement", "MeasurementFailed", "MemoryPeak", "measure"]

READY_S = 30.0
RESULT_S = 600.0


class MeasurementFailed(QuicbusError):
    """A process of a measurement failed; the sentence says what it said last."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came out: deliveries over the time from the first publish to the last receipt."""

    published: int
    delivered: int
    lost: int
    seconds: float
    messages_per_s: float
    megabytes_per_s: float
    p50_ms: float
    p99_ms: float
    latency_messages: int
    broker_peak_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class MemoryPeak:
    """The highest resident size of a process that was seen."""

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid) if pid is not None else None
        self.peak: int | None = None
        self.look()

    def look(self) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                self.peak = max(self.peak or 0, self._process.memory_info().rss)


def measure(
    plan: Plan,
    *,
    subscribers: int = 1,
    broker_pid: int | None = None,
    progress: Callable[[int], None] = lambda delivered: None,
) -> Measurement:
    """Run `plan` with one publisher and `subscribers` subscribers; `progress` gets the deliveries so far."""
    reading = _worker_command("subscribe", plan)
    memory = MemoryPeak(broker_pid)
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(_Worker(reading)) for _ in range(subscribers)]
        for reader in readers:
            reader.result("ready", READY_S)
        writer = stack.enter_context(_Worker(_worker_command("publish", plan)))
        writer.result("ready", READY_S)
        writer.process.write(b"load\n")
        _follow(readers, memory, progress)
        received = [reader.result("received", RESULT_S) for reader in readers]
        published = writer.result("published", RESULT_S)
        writer.process.write(b"paced\n")
        latencies = [reader.result("latency", RESULT_S) for reader in readers]
        memory.look()
    return _put_together(plan, published, received, latencies, memory.peak)


def _worker_command(role: str, plan: Plan) -> list[str]:
    return [sys.executable, "-m", "quicbus_cli.bench_workers", role, msgspec.json.encode(plan).decode()]


def _follow(readers: list[_Worker], memory: MemoryPeak, progress: Callable[[int], None]) -> None:
    """Look at the broker's memory and tell the progress with each line of the first subscriber, until it is done."""
    seen = 0
    while readers[0].find("received") is None:
        lines = readers[0].wait_for_more(seen)
        seen = len(lines)
        memory.look()
        counts = [json.loads(reader.process.stdout_lines[-1]).get("received", 0) for reader in readers]
        progress(sum(counts))


def _put_together(
    plan: Plan,
    published: dict[str, Any],
    received: list[dict[str, Any]],
    latencies: list[dict[str, Any]],
    memory: int | None,
) -> Measurement:
    delivered = sum(each["messages"] for each in received)
    seconds = max(1e-9, (max(each["last"] for each in received) - published["begin"]) / 1e9)
    size = sum(each["size"] for each in received)
    return Measurement(
        published=published["messages"],
        delivered=delivered,
        lost=published["messages"] * len(received) - delivered,
        seconds=seconds,
        messages_per_s=delivered / seconds,
        megabytes_per_s=size / seconds / 1e6,
        p50_ms=sorted(each["p50_ms"] for each in latencies)[len(latencies) // 2],
        p99_ms=max(each["p99_ms"] for each in latencies),
        latency_messages=min(each["messages"] for each in latencies),
        broker_peak_bytes=memory,
    )


class _Worker:
    """A worker process and the JSON lines that it has printed."""

    def __init__(self, command: list[str]) -> None:
        self.process = Launched(command, stdin=True, own_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.close()

    def find(self, event: str) -> dict[str, Any] | None:
        return _find(self.process.stdout_lines, event)

    def result(self, event: str, deadline_s: float) -> dict[str, Any]:
        try:
            return self.process.wait_lines(lambda lines: _find(lines, event), deadline_s=deadline_s)
        except LaunchError as error:
            raise self._failed(error) from None

    def wait_for_more(self, seen: int) -> list[str]:
        try:
            return self.process.wait_lines(lambda lines: list(lines) if len(lines) > seen else None, deadline_s=READY_S)
        except LaunchError as error:
            raise self._failed(error) from None

    def _failed(self, error: LaunchError) -> MeasurementFailed:
        said = self.process.stderr_lines
        return MeasurementFailed(said[-1].strip() if said else str(error).splitlines()[0])


def _find(lines: list[str], event: str) -> dict[str, Any] | None:
    wanted = f'{{"event": "{event}"'
    line = next((line for line in reversed(lines) if line.startswith(wanted)), None)
    found: dict[str, Any] | None = None if line is None else json.loads(line)
    return found
