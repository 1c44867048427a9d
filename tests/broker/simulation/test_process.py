from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from quicbus_broker.simulation.process import StuckTimer
from quicbus_broker.simulation.schedule import Schedule
from tests.broker.simulation.machines import Pair

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import MeshOutput


def test_what_is_due_at_one_time_happens_in_the_order_in_which_it_was_asked_for() -> None:
    schedule = Schedule()
    happened: list[str] = []
    for name in "abc":
        schedule.at(1.0, happened.append, name)
    schedule.at(0.5, happened.append, "first")
    schedule.run_until(0.9)
    assert happened == ["first"]
    schedule.run_until(2.0)
    assert happened == ["first", "a", "b", "c"]
    assert schedule.now == 2.0


def test_run_while_returns_how_long_it_took_and_infinity_at_the_limit() -> None:
    schedule = Schedule()
    happened: list[str] = []
    schedule.at(1.25, happened.append, "so")
    assert schedule.run_while(lambda: not happened, limit_s=10.0) == pytest.approx(1.3)
    assert schedule.run_while(lambda: True, limit_s=1.0) == math.inf


def test_a_timer_that_is_moved_forward_fires_once() -> None:
    pair = Pair()
    machine = pair.machines[0]
    machine.timer = 5.0
    pair.a.perform([])
    machine.timer = 2.0
    pair.a.perform([])
    pair.schedule.run_until(10.0)
    assert machine.ticks == [2.0]


def test_a_timer_that_is_put_off_fires_at_its_new_time() -> None:
    pair = Pair()
    machine = pair.machines[0]
    machine.timer = 2.0
    pair.a.perform([])
    machine.timer = 5.0
    pair.schedule.run_until(10.0)
    assert machine.ticks == [5.0]


def test_a_timer_that_never_moves_on_is_an_error_rather_than_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    machine = pair.machines[0]

    def tick(now: float) -> list[MeshOutput]:
        return []

    monkeypatch.setattr(machine, "tick", tick)
    machine.timer = 1.0
    pair.a.perform([])
    with pytest.raises(StuckTimer):
        pair.schedule.run_until(2.0)


def test_a_crashed_process_does_nothing_any_more() -> None:
    pair = Pair()
    pair.connect()
    machine = pair.machines[0]
    machine.timer = 3.0
    pair.a.perform([])
    pair.a.crash()
    pair.b.stop()
    seen = len(machine.seen)
    pair.schedule.run_until(100.0)
    assert machine.ticks == []
    assert len(machine.seen) == seen
