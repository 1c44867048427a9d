"""When a broker gives freed memory back to the system."""

from __future__ import annotations

import weakref

from quicbus_broker.freed_memory import (
    CONNECTION_SIZE,
    QUIET_S,
    SUBSCRIPTION_SIZE,
    WORTH_SIZE,
    FreedMemory,
    give_back,
)

MANY = WORTH_SIZE // CONNECTION_SIZE


def test_after_a_flood_of_connections_it_is_worth_it_once() -> None:
    memory = FreedMemory()
    assert not memory.is_worth_it(MANY + 2, 0, 0.0)
    assert not memory.is_worth_it(2, 0, 1.0)
    assert not memory.is_worth_it(2, 0, 0.9 + QUIET_S)
    assert memory.is_worth_it(2, 0, 1.0 + QUIET_S)
    assert not memory.is_worth_it(2, 0, 2.0 + 2 * QUIET_S)


def test_while_more_is_freed_it_waits() -> None:
    memory = FreedMemory()
    memory.is_worth_it(3 * MANY, 0, 0.0)
    for second in range(1, 2 * MANY):
        assert not memory.is_worth_it(3 * MANY - second, 0, float(second))


def test_subscriptions_count_too() -> None:
    memory = FreedMemory()
    memory.is_worth_it(1, WORTH_SIZE // SUBSCRIPTION_SIZE, 0.0)
    memory.is_worth_it(1, 0, 1.0)
    assert memory.is_worth_it(1, 0, 1.0 + QUIET_S)


def test_a_little_coming_and_going_is_never_worth_it() -> None:
    memory = FreedMemory()
    for second in range(100):
        assert not memory.is_worth_it(MANY // 2 * (second % 2), 0, 10.0 * second)


def test_a_later_flood_counts_from_what_stayed() -> None:
    memory = FreedMemory()
    memory.is_worth_it(2 * MANY, 0, 0.0)
    memory.is_worth_it(MANY, 0, 1.0)
    assert memory.is_worth_it(MANY, 0, 1.0 + QUIET_S)
    memory.is_worth_it(1, 0, 100.0)
    assert not memory.is_worth_it(1, 0, 100.0 + QUIET_S)


async def test_what_is_unreachable_is_gone_when_memory_was_given_back() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    cycle = weakref.ref(Cycle())
    await give_back()
    assert cycle() is None
