"""The inbox of a subscription: messages, credit, books. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from quicbus.client.delivery import REFILL_MESSAGES, Arrival, Inbox, InboxBooks, Leg
from quicbus.exceptions import UsageError
from quicbus.wire.batch import FLAG_HEADERS, encode_body, encode_headers, message_with_headers, parse_body
from quicbus.wire.frames import SubscriptionClosed
from quicbus.wire.records import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quicbus.client.message import Message, Replier


class Bus:
    def __init__(self) -> None:
        self.published: list[tuple[str, bytes | str]] = []

    async def publish(self, topic: str, payload: bytes | str, *, headers: Mapping[str, str] | None = None) -> None:
        self.published.append((topic, payload))


BUS = Bus()


def arrival(*messages: bytes, topic: bytes = b"a", first: int = 0, flags: int = 0, reply_to: bytes = b"") -> Arrival:
    body = parse_body(encode_body(topic, messages, number=1, flags=flags, reply_to=reply_to))
    return Arrival(body, Envelope(b"o" * 16, 3, 9, "alice", first))


def begun(window: int = 8, window_size: int = 1000) -> tuple[Inbox, Leg]:
    inbox = Inbox(window, window_size)
    leg = Leg(1, inbox, cast("Replier", BUS))
    inbox.begin(leg)
    return inbox, leg


def read(inbox: Inbox) -> list[bytes]:
    """Read all that is there."""
    payloads: list[bytes] = []
    while inbox.ready or inbox.refill():
        payloads.append(inbox.ready.popleft().payload)
        if not inbox.ready:
            inbox.finished()
    return payloads


def test_messages_come_in_order_and_are_counted_until_they_are_read() -> None:
    inbox, leg = begun()
    inbox.take(leg, arrival(b"1", b"2"))
    inbox.take(leg, arrival(b"3"))
    assert inbox.pending == 3
    assert read(inbox) == [b"1", b"2", b"3"]
    assert inbox.pending == 0
    assert inbox.books() == InboxBooks(received=3, pending=0, dropped_by_broker={}, dropped_here={})


@pytest.mark.parametrize(
    ("window", "window_size", "together"),
    [(16_384, 1 << 20, REFILL_MESSAGES), (80, 1 << 20, 10), (7, 1 << 20, 1), (16_384, 80, 10)],
)
def test_small_batches_are_decoded_together_up_to_an_eighth_of_the_window(
    window: int, window_size: int, together: int
) -> None:
    inbox, leg = begun(window, window_size)
    for number in range(100):
        inbox.take(leg, arrival(b"%d" % (number % 10)))
    assert inbox.refill()
    assert len(inbox.ready) == together
    assert (inbox.pending, leg.consumed) == (100, 0)
    inbox.ready.clear()
    inbox.finished()
    assert (inbox.pending, leg.consumed) == (100 - together, together)


def test_ids_count_from_the_first_message_of_a_cut_batch() -> None:
    inbox, leg = begun()
    inbox.take(leg, arrival(b"x", b"y", first=5))
    inbox.refill()
    assert [message.id for message in inbox.ready] == [f"{'6f' * 16}-3-9-5", f"{'6f' * 16}-3-9-6"]


def test_credit_is_due_after_a_quarter_of_the_window_in_messages_or_bytes() -> None:
    inbox, leg = begun(window=8, window_size=1000)
    inbox.take(leg, arrival(b"1"))
    read(inbox)
    assert not inbox.is_credit_due()
    inbox.take(leg, arrival(b"2"))
    read(inbox)
    assert inbox.is_credit_due()
    leg.reported, leg.reported_size = leg.consumed, leg.consumed_size
    inbox.take(leg, arrival(bytes(250)))
    read(inbox)
    assert inbox.is_credit_due()


def test_credit_is_due_when_the_largest_message_would_not_fit_beside_what_was_not_reported() -> None:
    inbox, leg = begun(window=1000, window_size=65_536)
    leg.largest_message = 60_000
    inbox.take(leg, arrival(bytes(5_000)))
    read(inbox)
    assert not inbox.is_credit_due()
    inbox.take(leg, arrival(bytes(1_000)))
    read(inbox)
    assert inbox.is_credit_due()


def test_to_a_broker_that_goes_away_everything_consumed_is_reported() -> None:
    inbox, leg = begun(window=1000)
    leg.reports_all = True
    assert not inbox.is_credit_due()
    inbox.take(leg, arrival(b"1"))
    read(inbox)
    assert inbox.is_credit_due()


def test_the_smallest_window_returns_credit_for_each_message() -> None:
    inbox, leg = begun(window=1)
    inbox.take(leg, arrival(b"1"))
    inbox.refill()
    inbox.ready.popleft()
    assert inbox.finished()


def test_undecodable_messages_are_dropped_counted_and_give_their_credit_back() -> None:
    inbox, leg = begun(window=4)
    inbox.take(leg, arrival(b"\xff\xff", b"\x01\x00\xc1", flags=FLAG_HEADERS))
    inbox.take(leg, arrival(b"x", topic=b"\xff"))
    assert read(inbox) == []
    assert inbox.dropped == 3
    assert inbox.books() == InboxBooks(0, 0, {}, {"undecodable": 3})
    assert leg.consumed == 3


def test_what_arrived_over_a_lost_connection_stays_readable_and_earns_no_credit() -> None:
    inbox, old = begun(window=4)
    inbox.take(old, arrival(b"1", b"2"))
    inbox.end()
    new = Leg(1, inbox, cast("Replier", BUS))
    inbox.begin(new)
    inbox.take(new, arrival(b"3"))
    assert read(inbox) == [b"1", b"2", b"3"]
    assert new.consumed == 1


def test_messages_that_cannot_be_decoded_are_counted_for_the_connection_that_brought_them() -> None:
    inbox, old = begun(window=4)
    inbox.take(old, arrival(b"1", topic=b"\xff"))
    inbox.end()
    new = Leg(1, inbox, cast("Replier", BUS))
    inbox.begin(new)
    inbox.take(new, arrival(b"2", b"3", topic=b"\xff"))
    inbox.take(new, arrival(b"4"))
    assert read(inbox) == [b"4"]
    assert (old.consumed, new.consumed) == (1, 3)
    assert inbox.books() == InboxBooks(1, 0, {}, {"undecodable": 3})


def test_what_earlier_connections_left_is_bounded_by_two_windows() -> None:
    inbox, old = begun(window=2)
    for number in range(4):
        inbox.take(old, arrival(b"%d" % number))
    new = Leg(2, inbox, cast("Replier", BUS))
    inbox.begin(new)
    inbox.take(new, arrival(b"4"))
    inbox.take(new, arrival(b"5"))
    assert read(inbox) == [b"2", b"3", b"4", b"5"]
    assert inbox.books().dropped_here == {"overflow": 2}


def test_drops_of_the_broker_are_kept_over_connections() -> None:
    inbox, leg = begun()
    leg.dropped = {"overflow": 2}
    leg.dropped_total = 3
    assert inbox.dropped == 3
    inbox.end()
    assert inbox.dropped == 3
    assert inbox.books().dropped_by_broker == {"overflow": 2, "unexplained": 1}


def test_closing_counts_what_was_not_read_and_what_still_comes() -> None:
    inbox, leg = begun()
    inbox.take(leg, arrival(b"1", b"2"))
    inbox.refill()
    inbox.ready.popleft()
    assert inbox.close() == 1
    inbox.take(leg, arrival(b"3"))
    assert inbox.books() == InboxBooks(received=1, pending=0, dropped_by_broker={}, dropped_here={"unsubscribed": 2})


def test_a_leg_is_finished_when_all_that_was_handed_over_has_arrived() -> None:
    inbox, leg = begun()
    leg.closed = SubscriptionClosed(id=1, reason="unsubscribed", handed_over=1)
    assert not leg.is_finished
    inbox.take(leg, arrival(b"1"))
    assert leg.is_finished


async def test_a_message_knows_where_to_reply() -> None:
    inbox, leg = begun()
    encoded = message_with_headers(encode_headers({"k": "v"}), b"21.5")
    inbox.take(leg, arrival(encoded, reply_to=b"r", flags=FLAG_HEADERS))
    inbox.take(leg, arrival(b"x"))
    inbox.refill()
    message = inbox.ready.popleft()
    await message.reply("ok")
    assert BUS.published == [("r", "ok")]
    assert (message.text(), message.headers, repr(message)) == ("21.5", {"k": "v"}, "<Message 'a' b'21.5'>")
    inbox.finished()
    inbox.refill()
    with pytest.raises(UsageError):
        await inbox.ready[0].reply("ok")


def test_a_message_cannot_be_changed_and_has_no_headers_unless_given() -> None:
    inbox, leg = begun()
    inbox.take(leg, arrival(b"x"))
    inbox.refill()
    message: Message = inbox.ready[0]
    assert dict(message.headers) == {}
    with pytest.raises(AttributeError):
        message.payload = b"y"  # type: ignore[misc]
