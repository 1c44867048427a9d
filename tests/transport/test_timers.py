"""Deadlines of many connections behind one timer."""

from __future__ import annotations

import asyncio
import random

import pytest

from quicbus.transport.timers import TimerQueue, to_tick


def test_owners_wake_in_the_order_of_their_deadlines() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.schedule("late", 3.0)
    timers.schedule("early", 1.0)
    timers.schedule("middle", 2.0)
    assert timers.earliest() == 1.0
    assert timers.pop_due(2.5) == ["early", "middle"]
    assert timers.earliest() == 3.0
    assert timers.pop_due(2.9) == []


def test_a_deadline_that_moves_away_keeps_its_wake_up() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.schedule("one", 1.0)
    timers.schedule("one", 9.0)
    assert timers.pop_due(1.0) == ["one"], "woken too early, to be asked and scheduled again"
    assert timers.earliest() is None


def test_a_deadline_that_moves_nearer_counts_at_once() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.schedule("one", 9.0)
    timers.schedule("one", 1.0)
    assert timers.earliest() == 1.0
    assert timers.pop_due(20.0) == ["one"]


def test_a_cancelled_owner_is_not_woken() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.schedule("one", 1.0)
    timers.cancel("one")
    timers.cancel("one")
    assert timers.earliest() is None
    assert timers.pop_due(2.0) == []


def test_the_heap_stays_small_while_deadlines_change_for_ever() -> None:
    timers: TimerQueue[int] = TimerQueue()
    rng = random.Random(1)
    now = 0.0
    for _ in range(20_000):
        now += 0.001
        timers.schedule(rng.randrange(10), now + rng.choice((0.002, 30.0)))
        timers.pop_due(now)
    assert len(timers) <= 10
    assert len(timers._heap) <= 2 * 10 + 64 + 1


def test_no_more_are_woken_than_asked_for_and_the_others_stay_due() -> None:
    timers: TimerQueue[str] = TimerQueue()
    for at, owner in enumerate("abc"):
        timers.schedule(owner, float(at))
    assert timers.pop_due(10.0, 2) == ["a", "b"]
    assert timers.earliest() == 2.0
    assert timers.pop_due(10.0) == ["c"]


@pytest.mark.parametrize(
    ("when", "tick"),
    [(35165.4594, 35165.46), (35165.4596, 35165.46), (35165.46, 35165.46), (0.0, 0.0), (0.00001, 0.001)],
)
def test_the_loop_is_woken_at_the_next_whole_millisecond_and_never_before(when: float, tick: float) -> None:
    assert to_tick(when) == tick


def test_what_is_due_a_few_whole_milliseconds_from_now_is_never_called_by_a_rounding_error_too_early() -> None:
    due = [milliseconds / 1000 + 0.002 for milliseconds in range(47_000_000, 47_020_000)]
    assert any(round(when, 3) < when for when in due)
    assert all(when <= to_tick(when) < when + 0.0011 for when in due)


def test_a_clock_of_whole_milliseconds_reaches_each_tick() -> None:
    rng = random.Random(8)
    for milliseconds in (rng.randrange(10**10) for _ in range(10_000)):
        now = milliseconds / 1000
        assert to_tick(now - rng.uniform(0, 0.0009)) <= now


def test_uvloop_calls_at_a_tick_once_and_not_before_the_deadline() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def lateness_s(fraction_s: float) -> float:
        loop = asyncio.get_running_loop()
        called: asyncio.Future[float] = loop.create_future()
        when = loop.time() + 0.002 + fraction_s
        loop.call_at(to_tick(when), lambda: called.set_result(loop.time() - when))
        return await called

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for tenths in range(10):
            assert runner.run(lateness_s(tenths / 10_000)) >= 0
