"""Starts workers, tells them their phases, and puts together what they report."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from quicbus.exceptions import QuicbusError
from quicbus.testing.launcher import Launched, LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.plan import Plan

__all__ = ["RunFailed", "WorkerProcess", "peak_memory", "resident_memory", "workers"]

READY_S = 120.0
RESULT_S = 60.0


class RunFailed(QuicbusError):
    """A worker failed; the sentence says what it said last."""


class WorkerProcess:
    """A worker and the lines that it has printed."""

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, "-m", "benchmarks.peers.worker", msgspec.json.encode(plan).decode()]
        self.plan = plan
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

        try:
            return self._process.wait_lines(choose, deadline_s=deadline_s)
        except LaunchError as error:
            said = [line.strip() for line in self._process.stderr_lines if line.strip()]
            why = said[-1] if said else str(error).splitlines()[0].rsplit("'", 1)[-1][-200:]
            raise RunFailed(f"{self.plan.role} worker, waiting for {event!r}: {why}") from None

    def ask(self, command: str, event: str, **fields: Any) -> dict[str, Any]:
        self.tell(command, **fields)
        return self.result(event)


@contextlib.contextmanager
def workers(*plans: Plan) -> Iterator[list[WorkerProcess]]:
    """Run workers, all of them ready; they are ended when the context is left."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(WorkerProcess(plan)) for plan in plans]
        for worker in started:
            worker.result("ready", READY_S)
        yield started


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
