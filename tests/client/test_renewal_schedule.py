from __future__ import annotations

import datetime as dt
import random

import pytest

from quicbus.client.renewal_schedule import RenewalSchedule

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def schedule_of(days: float, seed: int = 1) -> RenewalSchedule:
    end = START + days * DAY
    return RenewalSchedule(START, end - days * DAY / 3, end, random.Random(seed))


@pytest.mark.parametrize("days", [0.01, 1, 30, 365])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_due_in_the_first_tenth_of_the_last_third(days: float, seed: int) -> None:
    schedule = schedule_of(days, seed)
    third = days * DAY / 3
    assert not schedule.is_due(START + 2 * third - dt.timedelta(microseconds=10))
    assert schedule.is_due(START + 2 * third + third / 10)


def test_those_that_were_issued_together_ask_at_different_times() -> None:
    now = START + 20 * DAY + DAY / 2
    due = sum(schedule_of(30, seed).is_due(now) for seed in range(100))
    assert 30 < due < 70


def test_pauses_between_attempts_grow_to_a_hundredth_of_the_life() -> None:
    schedule, now = schedule_of(30), START + 20 * DAY + 2 * DAY
    pauses = []
    for _ in range(30):
        assert schedule.is_due(now)
        pauses.append(schedule.failed(now).total_seconds())
        assert not schedule.is_due(now)
        now += dt.timedelta(seconds=pauses[-1])
    assert 0.5 <= pauses[0] <= 1.5
    assert all(0.5 * 21_600 <= pause <= 1.5 * 21_600 for pause in pauses[16:]), pauses


@pytest.mark.parametrize(
    ("days", "warned"),
    [(365, [30, 7, 1, 0]), (90, [30, 7, 1, 0]), (30, [7, 1, 0]), (7, [1, 0]), (0.9, [0.1, 0])],
    ids=lambda value: str(value),
)
def test_it_warns_once_for_each_time_that_makes_sense(days: float, warned: list[float]) -> None:
    schedule = schedule_of(days)
    end = START + days * DAY
    times = (400, 100, 31, 30, 29, 8, 7, 6.5, 1, 0.5, 0.1, 0.0, -1)
    assert [left for left in times if left < days and schedule.warning(end - left * DAY)] == warned


def test_the_nearer_the_end_the_more_often_it_is_tried_and_once_a_minute_when_it_has_come() -> None:
    schedule, now = schedule_of(30), START + 21 * DAY
    left: list[tuple[float, float]] = []
    while now < START + 30 * DAY:
        assert schedule.is_due(now)
        pause = schedule.failed(now)
        left.append(((schedule.not_after - now).total_seconds(), pause.total_seconds()))
        now = min(now + pause, START + 30 * DAY)
    assert all(pause <= 1.5 * max(before_end / 10, 60) for before_end, pause in left), left
    pauses = []
    for _ in range(200):
        assert schedule.is_due(now)
        pauses.append(schedule.failed(now).total_seconds())
        now += dt.timedelta(seconds=pauses[-1])
    assert pauses[0] <= 1.5, "the end has come: at once"
    assert 30 <= min(pauses[10:]) <= max(pauses) <= 90


def test_what_was_missed_is_warned_of_once() -> None:
    schedule = schedule_of(365)
    now = START + 364.5 * DAY
    assert schedule.warning(now)
    assert not schedule.warning(now)


def test_it_says_how_long_nothing_is_due() -> None:
    schedule = schedule_of(30)
    third = 10 * 86_400.0
    assert 2 * third <= schedule.wait_s(START) <= 2.1 * third
    now = START + 25 * DAY
    assert schedule.wait_s(now) == 0.0
    assert schedule.warning(now)
    assert schedule.wait_s(now) == 0.0
    pause = schedule.failed(now).total_seconds()
    assert schedule.wait_s(now) == pytest.approx(pause)
