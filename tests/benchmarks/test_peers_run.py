"""An unattended run of the side-by-side benchmark: what fails is shown with its reason, and the rest is measured."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers import driving, shapes
from benchmarks.peers.__main__ import main
from benchmarks.peers.cases import RATE, Case, all_cases
from benchmarks.peers.report import page
from benchmarks.peers.results import Results
from benchmarks.peers.running import Run, reason
from benchmarks.peers.seam import Bus, Peer, Server, Take, Where
from benchmarks.peers.shapes import Effort
from quicbus.testing.launcher import Launched, LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.peers.shapes import Sample

CASE = next(case.name for case in all_cases())
SERVER = (
    "import sys, time; print('ready', flush=True); print('out of luck', file=sys.stderr, flush=True); time.sleep(99)"
)


class FatalBus(Bus):
    """Ends its server when it subscribes; nothing ever comes."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def publish(self, topic: str, payload: bytes) -> None: ...

    async def subscribe(self, topic: str, take: Take) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.where.url), signal.SIGTERM)


@contextlib.contextmanager
def start(_folder: Path) -> Iterator[Sequence[Server]]:
    with Launched([sys.executable, "-c", SERVER]) as process:
        process.wait_line("ready")
        yield [Server(Where(bus=f"{__name__}:FatalBus", url=str(process.pid)), process, 0.1)]


def case_of(measure: object, name: str = CASE) -> Case:
    return Case(name, "Throughput, 1 topic", "16 B", (RATE,), measure)  # type: ignore[arg-type]


def test_a_server_that_ends_in_the_middle_fails_its_round_at_once_and_says_its_last_words() -> None:
    results = Results({}, rounds=1, planned=2)
    begin = time.monotonic()
    steps = list(Run([case_of(shapes.measure_load)], [Peer("doomed", start)], Effort(), results).steps())
    assert [peer.name if peer else "" for _, peer in steps] == ["doomed", ""]
    (failure,) = results.failures
    assert failure.why.endswith("the server ended: out of luck")
    assert time.monotonic() - begin < driving.RESULT_S
    text = page(results, {})
    assert "| doomed | failed |" in text
    assert f"- Failed: doomed, 16 B: `{failure.why}`" in text
    assert "| cases | 1 of 2; the run was cut off |" in text


@pytest.mark.parametrize(
    "error", [RuntimeError(), LaunchError("long\nstderr: no"), KeyError("x"), OSError(24, "Too many open files")]
)
def test_whatever_one_peer_does_the_others_are_measured(error: Exception) -> None:
    tried: list[str] = []

    def measure(_servers: Sequence[Server], _effort: Effort) -> Sample:
        return {"messages_per_s": 100.0, "lost": 0}

    @contextlib.contextmanager
    def fail(_folder: Path) -> Iterator[Sequence[Server]]:
        tried.append("fails")
        if tried:
            raise error
        yield []

    @contextlib.contextmanager
    def succeed(_folder: Path) -> Iterator[Sequence[Server]]:
        yield []

    results = Results({}, rounds=3, planned=1)
    run = Run([case_of(measure)], [Peer("fails", fail), Peer("works", succeed)], Effort(), results)
    for _ in run.steps():
        pass
    assert len(tried) == 2, "a third try would cost its time-outs once more"
    assert run.done == run.rounds == 6
    assert len(results.samples[CASE]["works"]) == 3
    text = page(results, {})
    assert "| works | **100** |" in text
    assert f"- Failed 2 times: fails, 16 B: `{reason(error)}`" in text
    assert "| rounds that failed | 2 |" in text


def test_all_cases_have_a_round_before_any_has_two_and_the_page_says_where_it_was_cut_off() -> None:
    @contextlib.contextmanager
    def start_nothing(_folder: Path) -> Iterator[Sequence[Server]]:
        yield []

    first, second = [case_of(lambda *_: {"messages_per_s": 1.0}, case.name) for case in all_cases()[:2]]
    results = Results({}, rounds=3, planned=2)
    run = Run([first, second], [Peer("works", start_nothing)], Effort(), results)
    ended = [case for case, peer in itertools.islice(run.steps(), 6) if peer is None]
    assert ended == [first, second, first]
    assert "| rounds | 1 or 2 of 3; the run was cut off |" in page(results, {})


def test_cases_may_be_measured_again_in_the_results_of_an_earlier_run_and_the_page_says_so(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def start_nothing(_folder: Path) -> Iterator[Sequence[Server]]:
        yield []

    speed = 100.0
    first, second = [case_of(lambda *_: {"messages_per_s": speed}, case.name) for case in all_cases()[:2]]
    peers = [Peer("works", start_nothing)]
    results = Results({"cores": "2"}, rounds=2, planned=2)
    list(Run([first, second], peers, Effort(), results).steps())
    (tmp_path / "results.json").write_text(json.dumps(results.as_dict()))
    results, speed = Results.read(tmp_path / "results.json"), 200.0
    results.begin_again([second])
    list(Run([second], peers, Effort(), results).steps())
    assert [
        [sample["messages_per_s"] for sample in results.samples[case.name]["works"]] for case in (first, second)
    ] == [
        [100.0, 100.0],
        [200.0, 200.0],
    ]
    assert f"| measured later, in a run of their own | {second.name} |" in page(results, {})


def test_a_reason_is_the_last_line_and_never_empty() -> None:
    assert reason(RuntimeError()) == "RuntimeError"
    assert reason(LaunchError("command\nstdout: a\nstderr: b\n")) == "stderr: b"
    assert reason(RuntimeError("x" * 999)).startswith("… xxx")


def test_rounds_that_an_update_would_not_keep_to_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "--only", "idle", "--update", "none.json", "--rounds", "5"])

    with pytest.raises(SystemExit):
        main()

    assert "leave out --rounds" in capsys.readouterr().err
