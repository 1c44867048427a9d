"""Bundles that wait for a connection: bounded, and what is dropped has its numbers told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus.wire.bundles import KIND_DIRECT, Bundle, BundleBatch
from quicbus.wire.node_frames import Skipped
from quicbus_broker.mesh.messages import waiting
from quicbus_broker.mesh.messages.waiting import Waiting

if TYPE_CHECKING:
    import pytest

ME, NODE, OTHER = b"m" * 16, b"n" * 16, b"o" * 16


def bundle(sequence: int, lane: int = 0, size: int = 10, boot: int = 7) -> Bundle:
    batch = BundleBatch(sequence, lane, sequence, 0, "alice", bytes(size))
    return Bundle(KIND_DIRECT, ME, 1, sequence, NODE, boot, (batch,))


def test_what_waits_comes_out_in_order_with_the_time_it_came() -> None:
    queue = Waiting(5.0)
    first, second = bundle(1), bundle(2)
    assert queue.put(NODE, first, 1.0) == queue.put(NODE, second, 2.0) == []
    assert NODE in queue
    assert queue.take(NODE) == ([], [(1.0, first), (2.0, second)])
    assert NODE not in queue
    assert queue.take(NODE) == ([], [])


def test_over_its_size_the_oldest_go_and_their_numbers_are_told_as_one_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_SIZE", 25)
    queue = Waiting(5.0)
    dropped = [len(queue.put(NODE, bundle(number), 0.0)) for number in range(1, 6)]
    assert dropped == [0, 0, 1, 1, 1]
    skips, left = queue.take(NODE)
    assert skips == [Skipped(boot=7, lane=0, first=1, last=3, messages=0)]
    assert [each.number for _, each in left] == [4, 5]


def test_one_bundle_larger_than_the_bound_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_SIZE", 25)
    queue = Waiting(5.0)
    assert queue.put(NODE, bundle(1, size=100), 0.0) == []
    assert len(queue.take(NODE)[1]) == 1


def test_giving_up_returns_them_and_tells_the_numbers_once_there_is_a_connection() -> None:
    queue = Waiting(5.0)
    queue.put(NODE, bundle(1, lane=0), 0.0)
    queue.put(NODE, bundle(1, lane=3), 0.0)
    assert len(queue.give_up(NODE)) == 2
    assert queue.give_up(NODE) == []
    assert queue.take(NODE)[0] == [
        Skipped(boot=7, lane=0, first=1, last=1, messages=0),
        Skipped(boot=7, lane=3, first=1, last=1, messages=0),
    ]


def test_ranges_are_bounded() -> None:
    queue = Waiting(5.0)
    for number in range(1, 1000):
        queue.skip(NODE, bundle(2 * number))
    assert len(queue.take(NODE)[0]) == waiting.MAX_SKIPS


def test_a_node_that_restarted_is_told_nothing_of_its_earlier_numbers() -> None:
    queue = Waiting(5.0)
    queue.put(NODE, bundle(1), 0.0)
    queue.skip(NODE, bundle(2))
    queue.forget(NODE)
    assert queue.take(NODE) == ([], [])


def test_a_connection_that_takes_too_long_is_overdue() -> None:
    queue = Waiting(5.0)
    assert queue.next_timer() == math.inf
    queue.put(NODE, bundle(1), 1.0)
    queue.put(OTHER, bundle(1), 2.0)
    assert queue.next_timer() == 6.0
    assert queue.overdue(5.9) == []
    assert queue.overdue(6.0) == [NODE]
    assert queue.nodes() == [NODE, OTHER]


def test_what_waits_for_all_nodes_together_is_bounded_and_the_longest_queue_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_TOTAL", 45)
    queue = Waiting(5.0)
    few = bundle(1)
    queue.put(OTHER, few, 0.0)
    dropped = [each.number for number in range(1, 6) for each in queue.put(NODE, bundle(number), 0.0)]
    assert dropped == [1, 2]
    queue.forget(NODE)
    assert queue.put(NODE, bundle(6), 0.0) == []
    assert queue.take_bundles(OTHER) == [(0.0, few)]
