"""Dial plan and stall watch: pure, with a clock and chance of the test's own."""

from __future__ import annotations

import random

from quicbus.client.reconnect import BACKOFF_BASE_S, BACKOFF_MAX_S, DialPlan, StallWatch, Verdict
from quicbus.client.urls import BrokerUrl

A, B, C = (BrokerUrl(name, 1) for name in "abc")


def test_pauses_are_uniform_below_a_bound_that_doubles_up_to_the_maximum() -> None:
    plan = DialPlan([A], random.Random(1))
    bound = BACKOFF_BASE_S
    for _ in range(40):
        assert 0 <= plan.pause() <= bound
        bound = min(BACKOFF_MAX_S, 2 * bound)
    spread = [DialPlan([A], random.Random(seed)).pause() for seed in range(200)]
    assert min(spread) < 0.1 * BACKOFF_BASE_S
    assert max(spread) > 0.9 * BACKOFF_BASE_S


def test_a_success_makes_pauses_short_again() -> None:
    plan = DialPlan([A], random.Random(1))
    for _ in range(10):
        plan.pause()
    plan.connected(A, [])
    assert plan.pause() <= BACKOFF_BASE_S


def test_each_failed_round_begins_one_url_later() -> None:
    plan = DialPlan([A, B, C], random.Random(1))
    assert plan.urls == [A, B, C]
    plan.failed()
    assert plan.urls == [B, C, A]
    plan.connected(C, [])
    assert plan.urls == [C, A, B]


def test_further_brokers_are_learned_from_the_one_that_works() -> None:
    plan = DialPlan([A], random.Random(1))
    plan.connected(A, [B, A])
    assert plan.urls == [A, B]
    plan.connected(B, [C])
    assert plan.urls == [B, C, A], "the one that works comes first, although it names only others"
    plan.connected(C, [])
    assert plan.urls == [C, A], "what a former broker named is forgotten, what was given is not"


def test_brokers_that_are_learned_later_replace_those_learned_before() -> None:
    plan = DialPlan([A], random.Random(1))
    plan.connected(A, [B])
    plan.learned([C])
    assert plan.urls == [A, C]
    plan.failed()
    assert plan.urls == [C, A]


def looks(watch: StallWatch, times: list[float], heard: float) -> list[tuple[float, Verdict]]:
    seen = [(time, watch.look(time, heard)) for time in times]
    return [(time, verdict) for time, verdict in seen if verdict is not Verdict.FINE]


def ticks(start: float, end: float) -> list[float]:
    return [start + 0.5 * step for step in range(1, int((end - start) / 0.5) + 1)]


def test_a_silent_broker_is_pinged_then_dialed_beside_then_lost_in_time() -> None:
    seen = looks(StallWatch(10.0, 0.0), ticks(0, 10), heard=0.0)
    first = {verdict: next(time for time, each in seen if each is verdict) for _, verdict in seen}
    assert first == {Verdict.PING: 2.5, Verdict.PRESS: 3.5, Verdict.DIAL_BESIDE: 4.5, Verdict.LOST: 10.0}


def test_an_answer_ends_the_suspicion() -> None:
    watch = StallWatch(10.0, 0.0)
    looks(watch, ticks(0, 4.5), heard=0.0)
    suspected = watch.is_answered
    watch.answered()
    assert watch.look(5.0, 4.9) is Verdict.FINE
    assert (suspected, watch.is_answered) == (False, True)
    assert looks(watch, ticks(5.0, 7.0), heard=4.9) == []


def test_an_answer_in_the_same_tick_of_the_clock_counts() -> None:
    watch = StallWatch(10.0, 0.0)
    looks(watch, ticks(0, 2.5), heard=0.0)
    watch.answered()
    assert looks(watch, ticks(3.0, 4.5), heard=2.5) == []
    assert watch.is_answered


def test_a_watch_that_was_held_up_itself_begins_anew() -> None:
    watch = StallWatch(10.0, 0.0)
    assert watch.look(60.0, 0.0) is Verdict.FINE
    assert watch.look(60.5, 0.0) is Verdict.FINE
    assert watch.look(62.5, 60.6) is Verdict.FINE


def test_a_broker_that_talks_is_never_pinged() -> None:
    watch = StallWatch(10.0, 0.0)
    assert all(watch.look(now, now - 1.0) is Verdict.FINE for now in ticks(0, 60))


def test_a_new_address_of_its_own_is_told_at_once() -> None:
    watch = StallWatch(10.0, 0.0)
    assert watch.look(0.5, 0.4) is Verdict.FINE
    assert watch.look(1.0, 0.4, has_moved=True) is Verdict.PRESS
    watch.answered()
    assert looks(watch, ticks(1.0, 3.0), heard=1.1) == []


def test_silence_after_traffic_is_pressed_on_sooner_than_that_of_an_idle_broker() -> None:
    watch = StallWatch(10.0, 0.0)
    assert all(watch.look(now, now) is Verdict.FINE for now in ticks(0, 5))
    assert looks(watch, ticks(5, 6), heard=5.0) == [(6.0, Verdict.PRESS)]
    watch.answered()
    assert looks(watch, ticks(6, 9.5), heard=6.1) == [(9.0, Verdict.PING)], "idle from now on"


def test_acknowledgements_without_the_answer_are_pressed_on_until_it_comes() -> None:
    watch = StallWatch(10.0, 0.0)
    looks(watch, ticks(0, 2.5), heard=0.0)
    pressed = [now for now in ticks(2.5, 6) if watch.look(now, now - 0.1) is Verdict.PRESS]
    assert pressed == [3.5, 4.5, 5.5]
    watch.answered()
    assert looks(watch, ticks(6, 8), heard=6.0) == []


def test_a_broker_that_is_silent_all_the_same_is_dialed_beside() -> None:
    watch = StallWatch(10.0, 0.0)
    assert watch.look(0.5, 0.4, has_moved=True) is Verdict.PRESS
    assert looks(watch, ticks(0.5, 2.5), heard=0.4) == [(1.5, Verdict.PRESS), (2.5, Verdict.DIAL_BESIDE)]
