"""Wake-ups of many connections at one time: a few in each turn, and all in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from quicbus.transport.wake_ups import MAX_STRANGERS_WOKEN, MAX_WOKEN, WakeUps

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.endpoint_connection import EndpointConnection

pytestmark = pytest.mark.interpreted


@dataclass(eq=False)
class Sleeper:
    is_stranger: bool

    def __lt__(self, other: Sleeper) -> bool:
        return False


def sleeper(*, is_stranger: bool = False) -> EndpointConnection:
    return cast("EndpointConnection", Sleeper(is_stranger))


async def test_all_whose_time_has_come_together_are_woken_a_few_a_turn_strangers_fewer() -> None:
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()
    turns: list[list[EndpointConnection]] = []

    def wake() -> None:
        turns.append(wake_ups.take_due(now))
        wake_ups.arm()
        if sum(map(len, turns)) == 5 * MAX_WOKEN:
            is_done.set()

    wake_ups = WakeUps(loop, wake)
    now = loop.time()
    known = [sleeper() for _ in range(3 * MAX_WOKEN)]
    strangers = [sleeper(is_stranger=True) for _ in range(2 * MAX_WOKEN)]
    for each in known + strangers:
        wake_ups.schedule(each, now)
    wake_ups.arm()
    async with asyncio.timeout(60):
        await is_done.wait()
    wake_ups.disarm()
    assert [each for turn in turns for each in turn if not each.is_stranger] == known
    assert [each for turn in turns for each in turn if each.is_stranger] == strangers
    for turn in turns:
        assert sum(each.is_stranger for each in turn) <= MAX_STRANGERS_WOKEN
        assert sum(not each.is_stranger for each in turn) <= MAX_WOKEN


async def test_while_datagrams_wait_fewer_are_woken() -> None:
    wake_ups = WakeUps(asyncio.get_running_loop(), lambda: None)
    half = MAX_WOKEN // 2
    known, strangers = ([sleeper(is_stranger=each) for _ in range(3 * half)] for each in (False, True))
    for each in known + strangers:
        wake_ups.schedule(each, 1.0)
    for number in range(3):
        woken = wake_ups.take_due(2.0, is_busy=True)
        assert woken == [*known[number * half : (number + 1) * half], strangers[number]]


async def test_who_was_cancelled_is_not_woken() -> None:
    wake_ups = WakeUps(asyncio.get_running_loop(), lambda: None)
    one, other = sleeper(), sleeper(is_stranger=True)
    for each in (one, other):
        wake_ups.schedule(each, 1.0)
        wake_ups.cancel(each)
    assert wake_ups.take_due(2.0) == []


class CountingLoop:
    """Sets timers that never come, and counts them."""

    def __init__(self) -> None:
        self.timers: list[float] = []

    def call_at(self, when: float, callback: Callable[[], None]) -> CountingLoop:
        self.timers.append(when)
        return self

    def cancel(self) -> None: ...


def test_the_timer_is_set_again_only_for_a_time_that_is_nearer() -> None:
    loop = CountingLoop()
    wake_ups = WakeUps(cast("asyncio.AbstractEventLoop", loop), lambda: None)
    one, other = sleeper(), sleeper(is_stranger=True)
    for connection, when in ((one, 5.0004), (one, 6.0), (other, 5.5), (one, 5.0004), (other, 7.0)):
        wake_ups.schedule(connection, when)
        wake_ups.arm()
    assert loop.timers == [5.001]
    wake_ups.schedule(other, 4.0)
    wake_ups.arm()
    assert loop.timers == [5.001, 4.0]
    wake_ups.cancel(other)
    wake_ups.schedule(other, 5.0)
    wake_ups.arm()
    assert loop.timers == [5.001, 4.0], "it comes at 4, too early, and is set again then"
    wake_ups.disarm()
    wake_ups.arm()
    assert loop.timers == [5.001, 4.0, 5.0]
