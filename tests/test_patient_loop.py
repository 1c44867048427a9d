"""The clock of the loop that tests run on: it counts what was meant to pass, and little of what the machine adds."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.clock import Clock
from tests.patient_loop import COUNTED_S, PatientSelector

REST_S = 0.5


@pytest.fixture
def clock() -> Clock:
    """The real time."""
    return Clock()


@pytest.fixture
def selector(clock: Clock) -> PatientSelector:
    return PatientSelector(clock)


def test_a_short_turn_counts_whole_and_a_long_one_little(clock: Clock, selector: PatientSelector) -> None:
    before = selector.now()
    clock.now += COUNTED_S / 2
    assert selector.now() - before == pytest.approx(COUNTED_S / 2)
    clock.now += 7.0
    assert selector.now() - before == pytest.approx(COUNTED_S)
    selector.select(0)
    assert selector.now() - before == pytest.approx(COUNTED_S)


def test_the_clock_never_goes_back(clock: Clock, selector: PatientSelector) -> None:
    last = selector.now()
    for pause in (0.0, 0.01, 3.0, 0.2, 0.04, 9.0):
        for is_turn_over in (False, True):
            clock.now += pause
            if is_turn_over:
                selector.select(0)
            assert selector.now() >= last
            last = selector.now()


@pytest.mark.parametrize(("slept_s", "counted_s"), [(0.1, 0.1), (REST_S, REST_S), (9.0, REST_S + COUNTED_S)])
def test_a_sleep_counts_as_long_as_it_was_meant_to_be(
    clock: Clock, selector: PatientSelector, monkeypatch: pytest.MonkeyPatch, slept_s: float, counted_s: float
) -> None:
    def sleep(*_: object) -> list[object]:
        clock.now += slept_s
        return []

    monkeypatch.setattr(PatientSelector.__base__, "select", sleep)
    before = selector.now()
    selector.select(REST_S)
    assert selector.now() - before == pytest.approx(counted_s)


def test_waiting_for_nothing_but_files_counts_whole(
    clock: Clock, selector: PatientSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(*_: object) -> list[object]:
        clock.now += 9.0
        return []

    monkeypatch.setattr(PatientSelector.__base__, "select", sleep)
    before = selector.now()
    selector.select(None)
    assert selector.now() - before == pytest.approx(9.0)


@pytest.mark.skipif(sys.platform == "win32", reason="the loop of Windows has no selector")
async def test_asynchronous_tests_run_on_it() -> None:
    loop = asyncio.get_running_loop()
    assert loop.time.__self__.__class__ is PatientSelector  # type: ignore[attr-defined]
