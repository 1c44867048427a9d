"""When `retry = "auto"` is on: under a flood, and until it was quiet for a while."""

from __future__ import annotations

from quicbus.transport.retry_switch import RETRY_QUIET_S, RetrySwitch


def see(switch: RetrySwitch, count: int, now: float) -> None:
    for _ in range(count):
        switch.saw_initial(now)


def test_it_turns_on_by_the_number_of_half_open_handshakes() -> None:
    switch = RetrySwitch(100, 200)
    assert not switch.update(99, 10.0)
    assert switch.update(100, 10.0)
    assert switch.is_on
    assert not switch.update(100, 10.0)
    assert switch.episodes == 1


def test_it_turns_on_by_the_rate_of_initials() -> None:
    switch = RetrySwitch(100, 200)
    see(switch, 199, 10.0)
    assert not switch.update(0, 10.1)
    see(switch, 1, 10.2)
    assert switch.update(0, 10.2)


def test_a_rate_below_the_bound_never_turns_it_on_however_the_windows_lie() -> None:
    switch = RetrySwitch(100, 200)
    for step in range(1000):
        see(switch, 17, 10.0 + step / 10)
        assert not switch.update(0, 10.0 + step / 10)


def test_it_turns_off_by_itself_once_both_measures_were_low_for_a_while() -> None:
    switch = RetrySwitch(100, 200)
    see(switch, 500, 10.0)
    assert switch.update(0, 10.0)
    now = 10.0
    while not switch.update(0, now):
        now += 0.1
    assert not switch.is_on
    assert RETRY_QUIET_S <= now - 10.0 <= RETRY_QUIET_S + 2.1


def test_between_half_and_the_bound_it_stays_as_it_is() -> None:
    switch = RetrySwitch(100, 200)
    assert not switch.update(60, 10.0)
    assert switch.update(100, 10.0)
    for second in range(60):
        assert not switch.update(60, 11.0 + second)
    assert switch.is_on


def test_each_flood_is_an_episode() -> None:
    switch = RetrySwitch(100, 200)
    for start in (0.0, 100.0, 200.0):
        assert switch.update(100, start)
        assert not switch.update(0, start + RETRY_QUIET_S - 0.1)
        assert switch.update(0, start + RETRY_QUIET_S)
    assert switch.episodes == 3


def test_the_rate_counts_the_last_second_and_nothing_older() -> None:
    switch = RetrySwitch(100, 200)
    see(switch, 100, 10.0)
    assert switch.rate(10.5) == 100
    assert 40 <= switch.rate(11.5) <= 60
    assert switch.rate(12.1) == 0
    assert switch.rate(1000.0) == 0
