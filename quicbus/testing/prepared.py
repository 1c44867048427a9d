"""Processes that are forked from one that has loaded quicbus already: a broker is ready in an eighth of the time.

Most of what a broker or a command takes to start is the loading of its modules. A forked process has pipes, signals, an
environment, a folder and an exit code of its own, as one that is started by its command line has. On Linux alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

from quicbus.testing.fork_server import Order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Forked", "Prepared"]

READ_ONCE = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_")
"""Environment variables that count when the interpreter starts begin with one of these."""

_GONE = "the process that others are forked from has ended; its stderr says why"


class Forked:
    """A forked process, with those members of `subprocess.Popen` that a launcher needs, meant as there."""

    def __init__(
        self, command: Sequence[str], told: IO[bytes], stdin: IO[bytes] | None, stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._command = list(command)
        self._code: int | None = None
        self._has_ended = threading.Event()
        self.pid = _number(told)
        threading.Thread(target=self._wait_end, args=(told,), daemon=True).start()

    def poll(self) -> int | None:
        return self.wait() if self._has_ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._has_ended.wait(timeout):
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        if self._code is None:
            raise ChildProcessError(_GONE)
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait_end(self, told: IO[bytes]) -> None:
        with told, contextlib.suppress(ChildProcessError):
            self._code = _number(told)
        self._has_ended.set()


class Prepared:
    """The process that others are forked from; it starts with the first of them. May be used by several threads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._ordering = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def takes(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Tell whether a forked process would be what the command line starts."""
        return [*command[:2]] == [sys.executable, "-m"] and _read_once(environment) == _read_once(self._environment)

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path | None,
        stdin: bool,
        own_session: bool,
    ) -> Forked:
        """Fork a process for a command that `takes()` agrees to; its stdout and stderr are pipes, stdin if wanted."""
        order = Order(command[2], [*command[3:]], {**environment}, str(cwd or os.getcwd()), own_session)
        (out, their_out), (err, their_err), (told, their_told) = os.pipe(), os.pipe(), os.pipe()
        their_in, into = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
        theirs = [their_in, their_out, their_err, their_told]
        with contextlib.ExitStack() as ours:
            streams = [ours.enter_context(open(file, "rb")) for file in (out, err)]
            written = None if into is None else ours.enter_context(open(into, "wb", buffering=0))
            numbers = ours.enter_context(open(told, "rb", buffering=0))
            try:
                # Where nobody takes it any more, `Forked` finds its pipe ended.
                with self._ordering, contextlib.suppress(BrokenPipeError):
                    socket.send_fds(self._control or self._started(), [json.dumps(order).encode()], theirs)
            finally:
                for file in theirs:
                    os.close(file)
            forked = Forked(command, numbers, written, *streams)
            ours.pop_all()
        return forked

    def close(self) -> None:
        """End it, and what was forked from it and still runs."""
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.wait()

    def _started(self) -> socket.socket:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (a module of ours)
                [sys.executable, "-m", "quicbus.testing.fork_server", str(theirs.fileno())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return self._control


def _read_once(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_ONCE)}


def _number(told: IO[bytes]) -> int:
    line = told.readline()
    if not line:
        raise ChildProcessError(_GONE)
    return int(line)
