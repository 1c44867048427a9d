"""Groups: who gets which run of a batch."""

from __future__ import annotations

import itertools
import random

import pytest

from quicbus_broker.routing import Overflow, Subscription
from quicbus_broker.routing.groups import Group, water_fill
from tests.broker.batches import Place, batch, numbered, options


@pytest.mark.parametrize(
    ("levels", "rooms", "count", "expected"),
    [
        ([0, 0, 0], [9, 9, 9], 9, [3, 3, 3]),
        ([0, 0, 0], [9, 9, 9], 10, [4, 3, 3]),
        ([5, 0, 2], [9, 9, 9], 5, [0, 4, 1]),
        ([5, 0, 2], [9, 9, 9], 1, [0, 1, 0]),
        ([0, 0], [2, 9], 8, [2, 6]),
        ([0, 0], [2, 3], 8, [2, 3]),
        ([0, 4], [0, 3], 1, [0, 1]),
        ([0, 4], [0, 0], 1, [0, 0]),
        ([7, 7], [-3, 2], 2, [0, 2]),
        ([3], [9], 4, [4]),
    ],
)
def test_shares_come_out_level(levels: list[int], rooms: list[int], count: int, expected: list[int]) -> None:
    assert water_fill(levels, rooms, count) == expected


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_those_of_one_unit_at_a_time(seed: int) -> None:
    rng = random.Random(seed)
    members = rng.randint(1, 8)
    levels = [rng.randint(0, 20) for _ in range(members)]
    rooms = [rng.randint(0, 15) for _ in range(members)]
    count = rng.randint(1, 60)
    plain = [0] * members
    for _ in range(count):
        free = [index for index in range(members) if plain[index] < rooms[index]]
        if free:
            plain[min(free, key=lambda index: levels[index] + plain[index])] += 1

    shares = water_fill(levels, rooms, count)

    assert sum(shares) == sum(plain)
    raised = sorted(level + share for level, share in zip(levels, shares, strict=True))
    assert raised == sorted(level + share for level, share in zip(levels, plain, strict=True))


def group(*pending: int, max_pending: int = 100, max_pending_size: int = 1 << 20) -> Group:
    made = Group("workers", "t")
    for id, already in enumerate(pending):
        chosen = options(
            Overflow.DROP_OLDEST,
            max_pending=max_pending,
            max_pending_size=max_pending_size,
            window_messages=max_pending,
        )
        member = Subscription(Place(), id, "t", "workers", chosen)
        if already:
            one = batch("t", numbered(0, already))
            member.offer(one, 0, already, one.body.total, 0.0)
        made.members.append(member)
    return made


def share(of: Group, count: int, *, size: int = 4) -> dict[int, int]:
    runs = of.share(0, count, size)
    assert runs[0].start == 0
    assert runs[-1].stop == count
    assert all(one.stop == other.start for one, other in itertools.pairwise(runs))
    return {run.member.id: run.stop - run.start for run in sorted(runs, key=lambda run: run.member.id)}


def test_the_member_with_the_least_pending_gets_the_message() -> None:
    assert share(group(3, 1, 2), 1) == {1: 1}


def test_a_batch_is_shared_out_in_contiguous_runs() -> None:
    shares = share(group(0, 4, 0), 12)

    assert shares.pop(1) in (1, 2)
    assert set(shares.values()) <= {5, 6}


def test_members_with_equally_much_to_do_take_turns() -> None:
    workers = group(0, 0, 0)

    assert {next(iter(share(workers, 1))) for _ in range(3)} == {0, 1, 2}


def test_members_with_room_go_before_those_without() -> None:
    assert share(group(10, 9, max_pending=10), 1) == {1: 1}


def test_a_member_whose_bytes_are_full_has_no_room() -> None:
    assert share(group(25, 0, max_pending_size=100), 1, size=60) == {1: 1}


def test_a_member_gets_only_what_its_bytes_surely_take() -> None:
    assert share(group(20, 0, max_pending_size=100), 2, size=45) == {1: 2}


def test_where_nobody_has_room_all_share_what_is_too_much() -> None:
    assert share(group(10, 10, max_pending=10), 4) == {0: 2, 1: 2}
