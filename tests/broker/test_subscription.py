"""One subscription: its window and the four overflow policies."""

from __future__ import annotations

import pytest

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import read_messages, slice_body
from quicbus_broker.routing import Overflow, Subscription, SubscriptionOptions
from tests.broker.batches import Place, batch, numbered, options


def subscription(chosen: SubscriptionOptions) -> Subscription:
    return Subscription(Place(), 1, "t", None, chosen)


def offer(to: Subscription, *messages: bytes, now: float = 0.0, expires_in: float = float("inf")) -> int:
    one = batch("t", messages, now=now, expires_in=expires_in)
    return to.offer(one, 0, len(messages), one.body.total, now)


def waiting(of: Subscription) -> list[bytes]:
    return [m for each in of.backlog for m in read_messages(slice_body(each.batch.body, each.start, each.stop))]


def ready(of: Subscription, now: float = 0.0) -> list[bytes]:
    return [
        message
        for each in of.take_ready(now)
        for message in read_messages(slice_body(each.batch.body, each.start, each.stop))
    ]


def test_a_batch_that_fits_the_window_is_sent_whole() -> None:
    reader = subscription(options(window_messages=5))

    assert offer(reader, *numbered(0, 5)) == 5
    assert (reader.handed_over, reader.outstanding, reader.backlog.messages) == (5, 5, 0)


def test_what_does_not_fit_the_window_waits_and_leaves_with_credit() -> None:
    reader = subscription(options(window_messages=3))

    assert offer(reader, *numbered(0, 5)) == 3
    assert waiting(reader) == numbered(3, 2)
    assert ready(reader) == []
    reader.consume(1, 4, 1.0)
    assert ready(reader) == numbered(3, 1)
    reader.consume(4, 16, 2.0)
    assert ready(reader) == numbered(4, 1)
    assert reader.handed_over == 5


def test_nothing_overtakes_what_waits() -> None:
    reader = subscription(options(window_messages=1))
    offer(reader, *numbered(0, 2))

    assert offer(reader, b"late") == 0
    assert waiting(reader) == [*numbered(1, 1), b"late"]


def test_the_window_counts_bytes_too() -> None:
    reader = subscription(options(window_size=10))

    assert offer(reader, b"12345678", b"9abc") == 1
    assert waiting(reader) == [b"9abc"]


def test_a_message_larger_than_the_window_passes_when_it_is_alone() -> None:
    reader = subscription(options(window_size=10))

    assert offer(reader, bytes(50)) == 1
    assert offer(reader, bytes(50)) == 0
    reader.consume(1, 50, 0.0)
    assert ready(reader) == [bytes(50)]


@pytest.mark.parametrize(("messages", "size"), [(4, 12), (3, 13), (0, 0), (1, 5)])
def test_credit_that_goes_back_or_beyond_what_was_sent_is_a_violation(messages: int, size: int) -> None:
    reader = subscription(options())
    offer(reader, *numbered(0, 3))
    reader.consume(1, 4, 0.0)
    reader.consume(2, 8, 0.0)

    with pytest.raises(ProtocolViolation, match="credit of subscription 1"):
        reader.consume(messages, size, 0.0)


def test_drop_oldest_keeps_the_newest() -> None:
    reader = subscription(options(Overflow.DROP_OLDEST, max_pending=5, window_messages=2))

    assert offer(reader, *numbered(0, 9)) == 2
    assert waiting(reader) == numbered(6, 3)
    assert reader.dropped == {"overflow": 4}


def test_drop_oldest_may_drop_the_new_one_when_all_the_room_is_on_its_way() -> None:
    reader = subscription(options(Overflow.DROP_OLDEST, max_pending=1, window_messages=1))
    offer(reader, b"a")

    assert offer(reader, b"b") == 0
    assert waiting(reader) == []
    assert reader.dropped == {"overflow": 1}


def test_drop_oldest_counts_bytes_too() -> None:
    reader = subscription(options(Overflow.DROP_OLDEST, max_pending_size=20, window_messages=1))
    offer(reader, b"12345678")

    offer(reader, b"12345678", b"abcd", b"efgh")

    assert waiting(reader) == [b"abcd", b"efgh"]
    assert reader.pending_size == 16


def test_drop_newest_keeps_the_oldest() -> None:
    reader = subscription(options(Overflow.DROP_NEWEST, max_pending=5, window_messages=2))

    assert offer(reader, *numbered(0, 9)) == 2
    assert waiting(reader) == numbered(2, 3)
    assert reader.dropped == {"overflow": 4}


def test_disconnect_is_met_by_the_first_message_too_many() -> None:
    reader = subscription(options(Overflow.DISCONNECT, max_pending=5, window_messages=2))

    offer(reader, *numbered(0, 5))
    assert not reader.has_overflowed
    offer(reader, b"one too many")
    assert reader.has_overflowed


def test_block_drops_nothing_and_is_full_until_half_was_consumed() -> None:
    reader = subscription(options(Overflow.BLOCK, max_pending=10, window_messages=5))

    offer(reader, *numbered(0, 9))
    assert not reader.is_full
    offer(reader, *numbered(9, 4))
    assert (reader.is_full, reader.dropped_total, reader.pending) == (True, 0, 13)
    reader.consume(5, 20, 1.0)
    ready(reader)
    assert not reader.may_release()
    reader.consume(8, 32, 2.0)
    assert reader.may_release()


def test_what_expired_is_not_sent() -> None:
    reader = subscription(options(window_messages=1))
    offer(reader, b"a")
    offer(reader, b"b", expires_in=5.0)
    offer(reader, b"c")
    reader.consume(1, 1, 5.0)

    assert ready(reader, now=5.0) == [b"c"]
    assert reader.dropped == {"expired": 1}


def test_what_expired_makes_room_before_the_policy_is_asked() -> None:
    reader = subscription(options(max_pending=3, window_messages=1))
    offer(reader, b"a")
    offer(reader, b"b", b"c", expires_in=5.0)

    offer(reader, b"d", now=6.0)

    assert reader.dropped == {"expired": 2}
    assert waiting(reader) == [b"d"]
