"""Starts real processes for tests: brokers on free ports, `quicbus` commands, and waits for what they print.

Every wait has a deadline and fails with all that the process said. `with fast_starts():` around the tests takes most of
the time that starting takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from quicbus.testing.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from quicbus.testing.prepared import Forked

__all__ = ["BrokerProcess", "Ended", "LaunchError", "Launched", "fast_starts", "quicbus_command", "run_quicbus"]

T = TypeVar("T")

DEADLINE_S = 120.0
"""Far more than anything here takes on a busy machine; a test that meets it has failed."""
_prepared: Prepared | None = None
"""What processes are forked from within `fast_starts()`; of this process, as its children are."""


class LaunchError(AssertionError):
    """A process did not do in time what was waited for; the sentence holds its output."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and all it printed."""

    code: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def fast_starts() -> Iterator[None]:
    """Within, what `python -m` runs is forked from a process that has loaded quicbus, in an eighth of the time.

    Those that still run at the end are killed. On other systems than Linux, for other commands, and for those whose
    environment differs in what the interpreter reads (`PYTHON…`, the locale), nothing changes.
    """
    global _prepared
    assert _prepared is None, "starts are fast already"
    if sys.platform != "linux":
        yield
        return
    _prepared = Prepared(_environment(None))
    try:
        yield
    finally:
        _prepared.close()
        _prepared = None


def quicbus_command() -> list[str]:
    """Return the command line that starts `quicbus` with this interpreter, installed script or not."""
    return [sys.executable, "-m", "quicbus_cli"]


def run_quicbus(
    *arguments: str,
    stdin: str | bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> Ended:
    """Run one `quicbus` command to its end. Environment variables `QUICBUS_*` of this process are not handed on."""
    process = Launched([*quicbus_command(), *arguments], environment=environment, cwd=cwd, stdin=True)
    with process:
        process.write(stdin.encode() if isinstance(stdin, str) else stdin)
        process.close_stdin()
        return process.wait(deadline_s)


class Launched:
    """A running process whose output is collected by threads. A context manager: leaving it kills what still runs.

    `own_session`: Ctrl-C in the terminal does not reach it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bool = False,
        own_session: bool = False,
    ) -> None:
        self.command = list(command)
        self._process = _start(self.command, _environment(environment), cwd, stdin, own_session)
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._open = {"stdout", "stderr"}
        self._readers = [
            threading.Thread(target=self._collect, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def stdout_lines(self) -> list[str]:
        with self._changed:
            return list(self._lines["stdout"])

    @property
    def stderr_lines(self) -> list[str]:
        with self._changed:
            return list(self._lines["stderr"])

    def write(self, data: bytes) -> None:
        """Give `data` to its stdin; what it no longer reads is lost, as in a shell."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def close_stdin(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait_line(
        self, wanted: str | Callable[[str], bool], *, stream: str = "stdout", deadline_s: float = DEADLINE_S
    ) -> str:
        """Return the first line, also of those that came before, that contains `wanted` or for which it is true."""
        accepts = wanted if callable(wanted) else lambda line: wanted in line
        choose: Callable[[list[str]], str | None] = lambda lines: next(filter(accepts, lines), None)  # noqa: E731
        return self.wait_lines(choose, stream=stream, deadline_s=deadline_s)

    def wait_lines(
        self, choose: Callable[[list[str]], T | None], *, stream: str = "stdout", deadline_s: float = DEADLINE_S
    ) -> T:
        """Call `choose` with all lines so far whenever there are more, until it returns something other than `None`."""
        end = time.monotonic() + deadline_s
        with self._changed:
            while (chosen := choose(self._lines[stream])) is None:
                left = end - time.monotonic()
                if left <= 0 or stream not in self._open or not self._changed.wait(left):
                    if (chosen := choose(self._lines[stream])) is not None:
                        break
                    raise LaunchError(self._report(f"did not print the awaited line on {stream}"))
        return chosen

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()

    def wait(self, deadline_s: float = DEADLINE_S) -> Ended:
        """Wait until it has ended by itself; raises `LaunchError` and kills it when it does not."""
        try:
            code = self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            raise LaunchError(self._report(f"did not end within {deadline_s:g} s")) from None
        for reader in self._readers:
            reader.join(DEADLINE_S)
        return Ended(code, "".join(self._lines["stdout"]), "".join(self._lines["stderr"]))

    def stop(self, deadline_s: float = DEADLINE_S) -> Ended:
        """Send SIGTERM and wait for the end; one that ended before is fine."""
        if self.is_running:
            self.terminate()
        return self.wait(deadline_s)

    def close(self) -> None:
        """Kill it if it runs, and free its pipes. May be called twice."""
        if self.is_running:
            self.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(DEADLINE_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _collect(self, name: str, stream: IO[bytes]) -> None:
        for line in stream:
            with self._changed:
                self._lines[name].append(line.decode(errors="replace"))
                self._changed.notify_all()
        with self._changed:
            self._open.discard(name)
            self._changed.notify_all()

    def _report(self, what: str) -> str:
        code = self._process.poll()
        state = "runs" if code is None else f"ended with code {code}"
        said = "".join(f"\n{name}: {line.rstrip()}" for name, lines in self._lines.items() for line in lines[-40:])
        return f"{' '.join(self.command)}: {what} (it {state}){said}"


class BrokerProcess(Launched):
    """`quicbus broker` as a process of its own, ready when the constructor returns.

    Without `data_dir` it gets a temporary one that `close()` removes. `listen` port 0 picks a free port; to start a
    broker again at the same place pass the `data_dir` and `address` of the first. For one that joins a mesh prepare
    `data_dir` with `quicbus.identity.data_folder.prepare_node_folder`, and name others in `seeds`. `program`: what
    runs in place of `quicbus_command()`, with the same words after it.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        listen: str = "127.0.0.1:0",
        engine: str = "auto",
        seeds: Sequence[str] = (),
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        own_session: bool = False,
        program: Sequence[str] | None = None,
        stdin: bool = False,
        cwd: Path | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._temporary = (
            None if data_dir else tempfile.TemporaryDirectory(prefix="quicbus-", ignore_cleanup_errors=True)
        )
        self.data_dir = data_dir or Path(self._temporary.name if self._temporary else "") / "data"
        self.engine = engine
        command = [
            *(program or quicbus_command()),
            "broker",
            "--listen",
            listen,
            "--data-dir",
            str(self.data_dir),
            "--json",
        ]
        command += ["--engine", engine, *(word for seed in seeds for word in ("--seed", seed)), *options]
        super().__init__(command, environment=environment, cwd=cwd, stdin=stdin, own_session=own_session)
        try:
            ready = json.loads(self.wait_line('"ready"', deadline_s=deadline_s))
        except BaseException:
            self.close()
            raise
        self.url: str = ready["url"]
        self.node: str = ready["node"]
        self.ready: dict[str, Any] = ready
        """All that it said when it was ready."""

    @property
    def address(self) -> str:
        """`host:port`, as `listen` takes it."""
        return self.url.removeprefix("quic://")

    @property
    def credential_path(self) -> Path:
        """The local user's credential; the broker wrote it before it was ready."""
        return self.data_dir / "credential.pem"

    @property
    def environment(self) -> dict[str, str]:
        """What a `quicbus` command needs to reach this broker."""
        return {"QUICBUS_URL": self.url, "QUICBUS_DATA_DIR": str(self.data_dir)}

    def close(self) -> None:
        super().close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _start(
    command: Sequence[str], environment: Mapping[str, str], cwd: Path | None, stdin: bool, own_session: bool
) -> subprocess.Popen[bytes] | Forked:
    if _prepared is not None and _prepared.takes(command, environment):
        return _prepared.start(command, environment=environment, cwd=cwd, stdin=stdin, own_session=own_session)
    return subprocess.Popen(  # noqa: S603 (tests say what to start)
        command,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
        start_new_session=own_session,
    )


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUICBUS_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **(more or {})}
