"""A share of time for one kind of work."""

from __future__ import annotations

import pytest

from quicbus.transport.work_budget import BURST_S, WorkBudget


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_no_more_than_the_share_is_spent_in_the_long_run(share: float) -> None:
    budget = WorkBudget(share, 0.0)
    spent = 0.0
    for step in range(100_000):
        if budget.allows(step / 10_000):
            budget.spent(0.002)
            spent += 0.002
    assert spent == pytest.approx(10 * share, abs=BURST_S + 0.01)


def test_what_was_too_much_is_paid_off_before_more_begins() -> None:
    budget = WorkBudget(0.5, 0.0)
    budget.spent(1.0)
    assert not budget.allows(1.7)
    assert budget.allows(1.9)


def test_only_a_burst_gathers_in_a_quiet_time() -> None:
    budget = WorkBudget(0.5, 0.0)
    assert budget.allows(1000.0)
    budget.spent(BURST_S)
    assert not budget.allows(1000.0)
