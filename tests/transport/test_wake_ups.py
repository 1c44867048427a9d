"""Wake-ups of many connections at one time: a few in each turn, and all in the end."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, cast

import pytest

from quicbus.transport.wake_ups import (
    LATE_S,
    MAX_STRANGERS_WOKEN,
    MAX_WOKEN,
    READ_AGAIN_AFTER_S,
    TURNS_TO_READ,
    WakeUps,
)

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

    def time(self) -> float:
        return 0.0

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


class LoopByHand:
    """Calls what is due when the test says so, timers before all else."""

    def __init__(self) -> None:
        self.now = 100.0
        self._soon: deque[Handle] = deque()
        self._timers: list[tuple[float, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        self._timers.append((when, Handle(callback, ())))
        return self._timers[-1][1]

    def call_soon(self, callback: Callable[..., None], *arguments: int) -> Handle:
        self._soon.append(Handle(callback, arguments))
        return self._soon[-1]

    def turn(self) -> None:
        due = [handle for when, handle in self._timers if when <= self.now]
        self._timers = [(when, handle) for when, handle in self._timers if when > self.now]
        due.extend(self._soon)
        self._soon.clear()
        for handle in due:
            if not handle.is_cancelled:
                handle.callback(*handle.arguments)


@dataclass
class Handle:
    callback: Callable[..., None]
    arguments: tuple[int, ...]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Waking:
    """Wake-ups on a loop by hand, and who was woken."""

    def __init__(self) -> None:
        self.loop = LoopByHand()
        self.woken: list[EndpointConnection] = []
        self.wake_ups = WakeUps(cast("asyncio.AbstractEventLoop", self.loop), self._on_time)

    def _on_time(self) -> None:
        self.woken += self.wake_ups.take_due(self.loop.now)
        self.wake_ups.arm()

    def schedule(self, *connections: EndpointConnection, after_s: float) -> None:
        for connection in connections:
            self.wake_ups.schedule(connection, self.loop.now + after_s)
        self.wake_ups.arm()

    def turns_until_woken(self, count: int) -> int:
        """Return how many turns it takes until so many are woken."""
        for number in range(1000):
            if len(self.woken) >= count:
                return number
            self.loop.turn()
        raise AssertionError(f"{len(self.woken)} of {count} were woken")


def test_a_timer_that_comes_after_the_process_stood_still_lets_the_socket_be_read_first() -> None:
    waking = Waking()
    both = [sleeper(), sleeper(is_stranger=True)]
    waking.schedule(*both, after_s=1.0)
    waking.loop.now += 1.01 + LATE_S
    assert waking.turns_until_woken(2) > TURNS_TO_READ
    assert waking.woken == both


def test_a_timer_that_comes_in_time_waits_for_nothing() -> None:
    waking = Waking()
    waking.schedule(sleeper(), after_s=1.0)
    waking.loop.now += 1.0 + LATE_S
    assert waking.turns_until_woken(1) == 1


def test_a_time_that_was_over_when_it_was_told_does_not_count_as_late() -> None:
    waking = Waking()
    waking.schedule(sleeper(), after_s=-10.0)
    assert waking.turns_until_woken(1) == 1


def test_all_that_are_late_together_wait_once_for_the_socket() -> None:
    waking = Waking()
    many = [sleeper() for _ in range(5 * MAX_WOKEN)]
    waking.schedule(*many, after_s=1.0)
    waking.loop.now += 10.0
    assert waking.turns_until_woken(len(many)) <= TURNS_TO_READ + 10
    assert waking.woken == many


def test_a_loop_that_is_late_all_the_time_lets_connections_wait_once_in_a_while() -> None:
    waking = Waking()
    turns = []
    for count in range(1, 21):
        waking.schedule(sleeper(), after_s=0.0)
        waking.loop.now += 1.1 * LATE_S
        turns.append(waking.turns_until_woken(count))
    assert max(turns) > TURNS_TO_READ
    assert sum(each > 1 for each in turns) == pytest.approx(20 * 1.1 * LATE_S / READ_AGAIN_AFTER_S, abs=1)


def test_while_the_socket_is_read_an_earlier_time_changes_nothing_and_cancelled_ones_are_not_woken() -> None:
    waking = Waking()
    one, other, third = sleeper(), sleeper(), sleeper()
    waking.schedule(one, other, after_s=1.0)
    waking.loop.now += 10.0
    waking.loop.turn()
    waking.schedule(third, after_s=-20.0)
    waking.wake_ups.cancel(other)
    assert waking.turns_until_woken(2) >= TURNS_TO_READ
    assert waking.woken == [third, one]


def test_nothing_is_woken_once_it_is_disarmed_while_the_socket_is_read() -> None:
    waking = Waking()
    waking.schedule(sleeper(), after_s=1.0)
    waking.loop.now += 10.0
    waking.loop.turn()
    waking.wake_ups.disarm()
    for _ in range(2 * TURNS_TO_READ):
        waking.loop.turn()
    assert waking.woken == []


def test_on_uvloop_what_came_while_the_process_stood_still_is_read_before_the_timer_that_is_late() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def told() -> list[str]:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        log: list[str] = []
        woken = asyncio.Event()

        def read() -> None:
            log.append(here.recv(100).decode())
            if log == ["stand still"]:
                until = monotonic() + 2 * LATE_S
                while monotonic() < until:  # As a process does that the system lets wait, or that is stopped.
                    pass
                there.send(b"said meanwhile")

        def wake() -> None:
            log.append("woken")
            woken.set()

        wake_ups = WakeUps(loop, wake)
        with here, there:
            here.setblocking(False)
            loop.add_reader(here.fileno(), read)
            wake_ups.schedule(sleeper(), loop.time() + LATE_S / 2)
            wake_ups.arm()
            there.send(b"stand still")
            async with asyncio.timeout(60):
                await woken.wait()
            loop.remove_reader(here.fileno())
        return log

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(told()) == ["stand still", "said meanwhile", "woken"]
