"""Starts workers, tells them their phases, and puts together what they report."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from quicbus.exceptions import QuicbusError
from quicbus.testing.launcher import Launched, LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers.plan import Plan
    from benchmarks.peers.seam import Server

__all__ = ["RunFailed", "WorkerProcess", "peak_memory", "resident_memory", "workers"]

READY_S = 120.0
RESULT_S = 60.0
_LOOK_S = 1.0
"""A server that ended is noticed so soon."""


class RunFailed(QuicbusError):
    """A worker failed; the sentence says what it said last."""


class WorkerProcess:
    """A worker and the lines that it has printed."""

    def __init__(self, plan: Plan, servers: Sequence[Server]) -> None:
        command = [sys.executable, "-m", "benchmarks.peers.worker", msgspec.json.encode(plan).decode()]
        self.plan = plan
        self._servers = servers
        self._process = Launched(command, stdin=True, own_session=True)
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.close()

    def tell(self, command: str, **fields: Any) -> None:
        self._process.write(json.dumps({"do": command, **fields}).encode() + b"\n")

    def result(self, event: str, deadline_s: float = RESULT_S) -> dict[str, Any]:
        """Return the next `event`; one that was returned is not returned again."""

        def choose(lines: list[str]) -> dict[str, Any] | None:
            for number, line in enumerate(lines[self._read :], self._read):
                if line.startswith(f'{{"event": "{event}"'):
                    self._read = number + 1
                    found: dict[str, Any] = json.loads(line)
                    return found
            return None

        end = time.monotonic() + deadline_s
        while True:
            left_s = max(0.0, end - time.monotonic())
            try:
                return self._process.wait_lines(choose, deadline_s=min(_LOOK_S, left_s))
            except LaunchError:
                if why := self._why_failed(left_s, deadline_s):
                    raise RunFailed(f"{self.plan.role} worker, waiting for {event!r}: {why}") from None

    @property
    def said_last(self) -> str:
        """Return its last line on stderr, where libraries complain; empty if there is none."""
        return _said_last(self._process)

    def _why_failed(self, left_s: float, deadline_s: float) -> str:
        """Return why waiting is over; empty while there is hope."""
        ended = next((server.process for server in self._servers if not server.process.is_running), None)
        if ended is not None:
            return f"the server ended: {_said_last(ended) or 'nothing'}"
        if not self._process.is_running:
            return f"it ended: {self.said_last or 'nothing'}"
        if left_s <= 0:
            return f"nothing came within {deadline_s:g} s; it said last: {self.said_last or 'nothing'}"
        return ""

    def ask(self, command: str, event: str, **fields: Any) -> dict[str, Any]:
        self.tell(command, **fields)
        return self.result(event)


@contextlib.contextmanager
def workers(servers: Sequence[Server], *plans: Plan) -> Iterator[list[WorkerProcess]]:
    """Run workers of `servers`, all of them ready; they are ended when the context is left."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(WorkerProcess(plan, servers)) for plan in plans]
        for worker in started:
            worker.result("ready", READY_S)
        yield started


def _said_last(process: Launched) -> str:
    said = [line.strip() for line in process.stderr_lines if line.strip()]
    return said[-1] if said else ""


def resident_memory(pid: int) -> int:
    """Return the bytes of a process that are in memory now."""
    import psutil

    size: int = psutil.Process(pid).memory_info().rss
    return size


def peak_memory(pid: int) -> int | None:
    """Return the most that they have been, where the system says so."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
    return int(line.split()[1]) * 1024 if line else None
