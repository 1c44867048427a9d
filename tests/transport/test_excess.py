"""Datagrams beyond a connection's part of a turn: whose wait, in which order they go on, and that none is lost."""

from __future__ import annotations

import random

import pytest

from quicbus.transport import excess
from quicbus.transport.excess import FEED_OTHERS_S, FEED_S, Excess
from quicbus.transport.network import Path

PATH = Path(("10.0.0.9", 9), ("10.0.0.9", 9))
FITTING = 4
"""Buffers that are fed within `FEED_S` here."""


class Bench:
    """An `Excess` whose clock goes on with each buffer that is fed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fed: list[tuple[str, bytes]] = []
        self.excess: Excess[str] = Excess(self._feed, lambda: self.now)
        self._touched: set[str] = set()

    def _feed(self, connection: str, buffer: bytes, segment_size: int, path: Path) -> None:
        assert (segment_size, path) == (len(buffer), PATH)
        self.now += FEED_S / (FITTING - 0.5)
        self.fed.append((connection, buffer))
        self._touched.add(connection)

    def arrive(self, connection: str, *buffers: bytes) -> None:
        for buffer in buffers:
            was_fed = connection in self._touched
            self.excess.arrived(connection, buffer, len(buffer), PATH, was_fed=was_fed)

    def end_turn(self) -> None:
        self.excess.turn_ended()
        self._touched.clear()

    def take_fed(self) -> list[tuple[str, bytes]]:
        fed, self.fed = self.fed, []
        return fed


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_once_a_turn_has_taken_its_time_only_those_who_had_nothing_yet_are_fed() -> None:
    bench = Bench()
    bench.arrive("greedy", *numbered(10))
    bench.arrive("modest", b"a")
    bench.arrive("other", b"b", b"c")
    assert bench.take_fed() == [("greedy", each) for each in numbered(FITTING)] + [("modest", b"a"), ("other", b"b")]
    assert bench.excess.waiting


def test_of_very_many_who_had_nothing_yet_the_last_wait() -> None:
    bench = Bench()
    names = [f"{number}" for number in range(10 * FITTING)]
    for name in names:
        bench.arrive(name, b"x")
    fed = bench.take_fed()
    assert FITTING < len(fed) <= 1 + FITTING * FEED_OTHERS_S / FEED_S < len(names)
    while bench.excess.waiting:
        bench.excess.work()
    assert [name for name, _ in fed + bench.fed] == names


def test_what_waits_goes_on_in_order_each_in_turn_for_the_time_of_a_turn() -> None:
    bench = Bench()
    bench.arrive("first", *numbered(FITTING + 3))
    bench.arrive("second", *numbered(4))
    bench.end_turn()
    bench.take_fed()
    bench.excess.work()
    assert bench.take_fed() == [("first", b"4"), ("second", b"1"), ("first", b"5"), ("second", b"2")]
    bench.excess.work()
    assert bench.take_fed() == [("first", b"6"), ("second", b"3")]
    assert not bench.excess.waiting
    bench.excess.work()
    assert not bench.fed


def test_what_arrives_of_those_who_have_something_waiting_goes_behind_it() -> None:
    bench = Bench()
    bench.arrive("greedy", *numbered(FITTING + 1))
    bench.end_turn()
    bench.take_fed()
    bench.arrive("greedy", b"last")
    assert not bench.fed
    bench.excess.work()
    assert bench.take_fed() == [("greedy", b"4"), ("greedy", b"last")]


def test_who_left_much_waiting_waits_in_the_next_turn_too_and_not_for_ever() -> None:
    bench = Bench()
    bench.arrive("greedy", *numbered(FITTING + 2))
    bench.end_turn()
    bench.excess.work()
    bench.take_fed()
    assert not bench.excess.waiting
    bench.arrive("greedy", b"x")
    assert not bench.fed, "it was heavy when the turn before ended"
    bench.end_turn()
    bench.excess.work()
    assert bench.take_fed() == [("greedy", b"x")]
    bench.arrive("greedy", b"y")
    assert bench.take_fed() == [("greedy", b"y")]


@pytest.mark.interpreted
def test_over_the_bound_of_memory_datagrams_are_fed_in_order_and_none_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(excess, "MAX_SIZE", 5)
    bench = Bench()
    bench.arrive("greedy", *numbered(FITTING + 20)[:FITTING], b"abc", b"de", b"f")
    assert bench.take_fed()[FITTING:] == [("greedy", b"abc"), ("greedy", b"de"), ("greedy", b"f")]
    assert not bench.excess.waiting
    bench.arrive("greedy", b"ghijk")
    assert not bench.fed, "nothing of what was fed counts any more"


@pytest.mark.interpreted
def test_where_others_wait_up_to_the_bound_who_had_nothing_waiting_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excess, "MAX_SIZE", 5)
    bench = Bench()
    bench.arrive("greedy", *numbered(FITTING), b"abcde")
    bench.arrive("second", b"1", b"2", b"3")
    assert bench.take_fed()[FITTING:] == [("second", b"1"), ("second", b"2"), ("second", b"3")]
    assert list(bench.excess.waiting) == ["greedy"]


def test_nothing_of_a_connection_that_is_gone_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excess, "MAX_SIZE", 5)
    bench = Bench()
    bench.arrive("greedy", *numbered(FITTING), b"abcde")
    bench.excess.forget("greedy")
    bench.excess.forget("never seen")
    assert not bench.excess.waiting
    bench.take_fed()
    bench.arrive("other", b"1", b"abcde")
    assert bench.take_fed() == [("other", b"1")], "there is room again"


def test_whatever_arrives_when_each_connection_gets_its_own_in_order() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bench = Bench()
    sent: dict[str, list[bytes]] = {name: [] for name in "abcde"}
    for number in range(500):
        name = chance.choices("abcde", (50, 20, 5, 2, 1))[0]
        sent[name].append(b"%d" % number)
        bench.arrive(name, sent[name][-1])
        if chance.random() < 0.1:
            bench.end_turn()
        if chance.random() < 0.05:
            bench.excess.work()
    while bench.excess.waiting:
        bench.excess.work()
    assert {name: [buffer for each, buffer in bench.fed if each == name] for name in sent} == sent
