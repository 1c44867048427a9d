"""What waits for a subscription, beside a plain list that does the same message by message."""

from __future__ import annotations

import math
import random

import pytest

from quicbus.wire.batch import read_messages, slice_body
from quicbus_broker.routing.backlog import Backlog, Waiting, fitting
from tests.broker.batches import batch, numbered


def contents(waiting: Waiting | None) -> list[bytes]:
    return [] if waiting is None else read_messages(slice_body(waiting.batch.body, waiting.start, waiting.stop))


def all_contents(backlog: Backlog) -> list[bytes]:
    return [message for waiting in backlog for message in contents(waiting)]


def filled(*batches: list[bytes]) -> Backlog:
    backlog = Backlog()
    for messages in batches:
        backlog.append(batch("t", messages), 0, len(messages), sum(map(len, messages)))
    return backlog


def test_messages_leave_in_the_order_in_which_they_came() -> None:
    backlog = filled([b"a", b"b"], [b"c"])

    taken = [contents(backlog.take(10, 10, at_least_one=False)) for _ in range(3)]

    assert taken == [[b"a", b"b"], [b"c"], []]
    assert (backlog.messages, backlog.size) == (0, 0)


def test_a_batch_is_cut_where_the_window_ends() -> None:
    backlog = filled([b"aa", b"bb", b"cc"])

    assert contents(backlog.take(2, 10, at_least_one=False)) == [b"aa", b"bb"]
    assert contents(backlog.take(2, 1, at_least_one=False)) == []
    assert contents(backlog.take(2, 2, at_least_one=False)) == [b"cc"]


def test_a_message_larger_than_the_window_leaves_alone_when_it_must() -> None:
    backlog = filled([b"large", b"x"])

    assert backlog.take(5, 2, at_least_one=False) is None
    assert contents(backlog.take(5, 2, at_least_one=True)) == [b"large"]


def test_as_few_of_the_oldest_as_needed_are_dropped() -> None:
    backlog = filled([b"aa", b"bb", b"cc"], [b"dd"])

    assert contents(backlog.drop(1, 0)) == [b"aa"]
    assert contents(backlog.drop(0, 1)) == [b"bb"]
    assert contents(backlog.drop(5, 0)) == [b"cc"]
    assert all_contents(backlog) == [b"dd"]


def test_empty_messages_are_dropped_one_by_one_too() -> None:
    backlog = filled([b"", b"", b""])

    assert contents(backlog.drop(1, 0)) == [b""]
    assert backlog.messages == 2


def test_a_small_part_of_a_large_batch_does_not_keep_all_of_it() -> None:
    whole = batch("t", [bytes(1000)] * 100)
    backlog = Backlog()

    backlog.append(whole, 97, 100, 3000)

    (waiting,) = backlog
    assert len(waiting.batch.body.raw) < 3200
    assert waiting.batch.envelope.first == 97


def test_what_is_due_goes_wherever_it_stands() -> None:
    backlog = Backlog()
    for message, expires_in in ((b"a", math.inf), (b"b", 1.0), (b"c", 2.0)):
        backlog.append(batch("t", [message], expires_in=expires_in), 0, 1, 1)

    assert backlog.next_expiry() == 1.0
    assert backlog.expire(0.9) == 0
    assert backlog.expire(1.0) == 1
    assert all_contents(backlog) == [b"a", b"c"]
    assert (backlog.messages, backlog.size) == (2, 2)


def test_what_left_does_not_expire_later() -> None:
    backlog = Backlog()
    backlog.append(batch("t", [b"a", b"b"], expires_in=1.0), 0, 2, 2)
    backlog.take(1, 10, at_least_one=False)

    assert backlog.expire(5.0) == 1
    assert backlog.messages == 0


def test_expired_messages_behind_a_living_one_are_swept_out() -> None:
    backlog = filled([b"stays"])

    for number in range(2000):
        backlog.append(batch("t", [b"x"], now=number, expires_in=1.0), 0, 1, 1)
        backlog.expire(number)

    assert len(backlog._entries) < 200
    assert len(backlog._expiries) < 200


@pytest.mark.parametrize(
    ("sizes", "messages", "size", "expected"),
    [
        ([1, 1, 1], 2, 10, (2, 2)),
        ([4, 4, 4], 3, 8, (2, 8)),
        ([4, 4, 4], 3, 7, (1, 4)),
        ([9], 1, 8, (0, 0)),
        ([0, 0, 5], 3, 0, (2, 0)),
        ([1], 0, 5, (0, 0)),
        ([1], 5, -1, (0, 0)),
    ],
)
def test_as_many_fit_as_both_bounds_allow(
    sizes: list[int], messages: int, size: int, expected: tuple[int, int]
) -> None:
    assert fitting(sizes, 0, len(sizes), messages, size) == expected


@pytest.mark.parametrize("seed", range(30))
def test_it_does_what_a_list_of_messages_does(seed: int) -> None:
    rng = random.Random(seed)
    backlog = Backlog()
    plain: list[tuple[bytes, float]] = []
    now, number = 0.0, 0
    for _ in range(300):
        now += rng.random()
        match rng.randrange(5):
            case 0 | 1:
                count = rng.randint(1, 9)
                messages = [m * rng.randint(0, 3) for m in numbered(number, count)]
                number += count
                expires_in = rng.choice((math.inf, rng.random() * 20))
                start = rng.randrange(count)
                stop = rng.randint(start + 1, count)
                chosen = messages[start:stop]
                backlog.append(batch("t", messages, now=now, expires_in=expires_in), start, stop, sum(map(len, chosen)))
                plain += [(message, now + expires_in) for message in chosen]
            case 2:
                limit, size, force = rng.randint(1, 6), rng.randint(0, 40), rng.random() < 0.5
                taken = contents(backlog.take(limit, size, at_least_one=force))
                assert taken == [message for message, _ in plain[: len(taken)]]
                assert len(taken) <= limit
                assert sum(map(len, taken)) <= size or len(taken) == 1
                assert taken or not plain or not force
                del plain[: len(taken)]
            case 3:
                excess = rng.randint(1, 6)
                dropped = contents(backlog.drop(excess, 0))
                assert dropped == [message for message, _ in plain[: len(dropped)]]
                assert 0 < len(dropped) <= excess or not plain
                del plain[: len(dropped)]
            case _:
                expired = backlog.expire(now)
                kept = [entry for entry in plain if entry[1] > now]
                assert expired == len(plain) - len(kept)
                plain = kept
        assert all_contents(backlog) == [message for message, _ in plain]
        assert (backlog.messages, backlog.size) == (len(plain), sum(len(message) for message, _ in plain))
