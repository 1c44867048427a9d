"""What `fast_starts` forks is what a command line starts: a process of its own with all that belongs to one."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from quicbus.testing import launcher
from quicbus.testing.launcher import Launched, LaunchError, fast_starts
from quicbus.testing.prepared import Forked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
    pytest.mark.skipif(sys.flags.safe_path, reason="modules of a working folder are not found"),
]

NO_UTF_8 = os.fsdecode(b"\xff")
FACTS = """
    import json, os, sys

    sent = sys.stdin.read()
    facts = {"arguments": sys.argv[1:], "name": __name__, "folder": os.getcwd(), "sent": sent, "pid": os.getpid()}
    facts |= {"files": len(os.listdir("/proc/self/fd")), "session": os.getsid(0), "word": os.environ.get("WORD")}
    print(json.dumps(facts), flush=True)
    print("an error", file=sys.stderr)
    sys.exit(7)
"""
WAITING = """
    import time

    print("waits", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with modules, which are found where it is the working folder."""
    (tmp_path / "facts.py").write_text(textwrap.dedent(FACTS))
    (tmp_path / "waiting.py").write_text(textwrap.dedent(WAITING))
    return tmp_path


@pytest.fixture(params=["forked", "by its command line"])
def is_forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways in turn."""
    if request.param != "forked":
        monkeypatch.setattr(launcher, "_prepared", None)
    return bool(request.param == "forked")


def start(folder: Path, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Launched:
    command = [sys.executable, "-m", module, *arguments]
    return Launched(command, cwd=folder, stdin=True, own_session=True, environment=environment)


def forked(process: Launched) -> bool:
    return isinstance(process._process, Forked)


def test_a_process_has_what_it_was_given_and_nothing_of_others(programs: Path, is_forked: bool) -> None:
    with (
        start(programs, "waiting"),
        start(programs, "facts", "two words", NO_UTF_8, environment={"WORD": "said"}) as process,
    ):
        assert forked(process) is is_forked
        process.write(b"to its stdin")
        process.close_stdin()
        ended = process.wait()
        facts = json.loads(ended.stdout)
        assert ended.code == 7
        assert ended.stderr == "an error\n"
        assert facts.pop("pid") == facts.pop("session") == process.pid
        assert facts == {
            "arguments": ["two words", NO_UTF_8],
            "name": "__main__",
            "folder": str(programs),
            "sent": "to its stdin",
            "files": 4,
            "word": "said",
        }


def test_an_ended_process_is_told_once_and_for_all(programs: Path, is_forked: bool) -> None:
    with start(programs, "waiting") as process:
        process.wait_line("waits")
        assert forked(process) is is_forked
        process.kill()
        assert process.wait().code == -signal.SIGKILL
        process.terminate()
        assert process.wait().code == -signal.SIGKILL


def test_a_process_can_be_ended_while_another_thread_waits_for_it(programs: Path, is_forked: bool) -> None:
    with start(programs, "waiting") as process, ThreadPoolExecutor() as threads:
        process.wait_line("waits")
        assert forked(process) is is_forked
        waiting = [threads.submit(process.wait) for _ in range(4)]
        assert process.is_running
        process.terminate()
        assert {each.result().code for each in waiting} == {-signal.SIGTERM}


def test_ctrl_c_reaches_a_process_as_a_keyboard_interrupt(programs: Path, is_forked: bool) -> None:
    with start(programs, "waiting") as process:
        process.wait_line("waits")
        assert forked(process) is is_forked
        process.interrupt()
        ended = process.wait()
        assert ended.code == -signal.SIGINT
        assert "KeyboardInterrupt" in ended.stderr


def test_a_process_that_does_not_end_in_time_is_killed_and_its_output_is_shown(programs: Path, is_forked: bool) -> None:
    with start(programs, "waiting") as process:
        process.wait_line("waits")
        with pytest.raises(LaunchError, match=r"did not end within 0\.01 s(.|\n)*stdout: waits"):
            process.wait(0.01)
        assert forked(process) is is_forked
        assert not process.is_running


def test_a_process_whose_interpreter_reads_another_environment_is_started_by_its_command_line(programs: Path) -> None:
    with start(programs, "facts", environment={"PYTHONHASHSEED": "7"}) as process:
        assert not forked(process)
        process.close_stdin()
        assert process.wait().code == 7


def test_what_still_runs_at_the_end_of_fast_starts_is_killed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_prepared", None)
    with fast_starts():
        process = start(programs, "waiting")
        process.wait_line("waits")
    with process:
        assert process.wait().code == -signal.SIGKILL


def test_where_there_is_nothing_left_to_fork_from_a_start_says_so(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_prepared", None)
    with fast_starts():
        with start(programs, "waiting") as process:
            parent = psutil.Process(process.pid).parent()
        assert parent is not None
        parent.kill()
        with pytest.raises(ChildProcessError, match="has ended"):
            start(programs, "waiting")
