"""How often requests with tokens pass: a burst, then a rate, and no address keeps the others out."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus_broker.enrolment.join_rates import JoinRates
from tests.clock import Clock


def passed(rates: JoinRates, host: str, tries: int = 1000) -> int:
    return sum(not rates.wait_s(host) for _ in range(tries))


def test_a_burst_passes_and_then_so_many_a_second() -> None:
    clock = Clock()
    rates = JoinRates(8, clock)
    assert passed(rates, "10.0.0.1") == 20
    clock.now += 3.0
    assert passed(rates, "10.0.0.1") == 6


def test_who_is_refused_passes_after_the_time_that_it_was_told() -> None:
    clock = Clock()
    rates = JoinRates(10, clock)
    passed(rates, "10.0.0.1")
    wait_s = rates.wait_s("10.0.0.1")
    assert wait_s == pytest.approx(0.4)
    clock.now += wait_s + 1e-6
    assert rates.wait_s("10.0.0.1") == 0


def test_one_address_leaves_room_for_others_and_all_together_have_the_rate() -> None:
    clock = Clock()
    rates = JoinRates(8, clock)
    of_each = [passed(rates, f"10.0.0.{number}") for number in range(6)]
    assert of_each == [20, 20, 20, 20, 0, 0]


def test_a_network_of_64_bits_is_one_address() -> None:
    rates = JoinRates(8, Clock())
    assert sum(not rates.wait_s(f"2001:db8::{number:x}") for number in range(1, 100)) == 20


def test_with_the_smallest_rate_one_request_still_passes() -> None:
    rates = JoinRates(1, Clock())
    assert passed(rates, "10.0.0.1") == 2


def test_what_is_remembered_is_bounded() -> None:
    rates = JoinRates(1, Clock())
    for number in range(3 * limits.JOIN_ADDRESSES):
        rates.wait_s(f"10.0.{number // 256}.{number % 256}")
    assert len(rates._addresses) == limits.JOIN_ADDRESSES
