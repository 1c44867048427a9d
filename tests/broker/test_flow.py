"""Credit, books and order between an edge session and its client, frame by frame."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus.wire.batch import encode_body, parse_body
from quicbus.wire.frames import (
    Drained,
    Flush,
    Flushed,
    GoAway,
    Ping,
    Pong,
    Refused,
    SubscriptionClosed,
    SubscriptionCredit,
    SubscriptionDropped,
    Taken,
    Unsubscribe,
)
from quicbus.wire.records import encode_publish
from quicbus_broker.edge import EdgeLimits
from tests.broker.batches import numbered
from tests.broker.fakes import FakeBroker, FakeClient, messages_for


def taken(client: FakeClient) -> list[Taken]:
    return [frame for frame in client.frames() if isinstance(frame, Taken)]


# --- towards the broker ---------------------------------------------------------------------------------------------


def test_what_was_taken_in_a_turn_is_told_once() -> None:
    client = FakeBroker().client()

    for number in range(5):
        client.publish("t", *numbered(number, 3), lane=number)

    assert taken(client) == [Taken(accepted=15, refused=0, credit=limits.PUBLISH_WINDOW + client.lane_bytes)]
    assert taken(client) == []


def test_what_was_taken_of_single_messages_is_told_by_the_next_tick() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("t")
    sends = publisher.connection.sends

    for _ in range(5):
        publisher.publish("t", b"ping")
        broker.end_turn()
    assert publisher.connection.sends == sends
    broker.edge.tick()

    assert len(subscriber.messages()) == 5
    assert publisher.connection.sends == sends + 1
    assert taken(publisher) == [Taken(accepted=5, refused=0, credit=limits.PUBLISH_WINDOW + publisher.lane_bytes)]


def test_a_quarter_of_the_window_is_told_even_in_the_middle_of_a_record() -> None:
    client = FakeBroker().client()
    for number in (1, 2, 3):
        client.write_lane(encode_publish(encode_body(b"t", [bytes(500_000)], number=number)))
    client.write_lane(b"\x10\x00", lane=1)

    (told,) = taken(client)

    assert told.accepted == 3
    assert told.credit == limits.PUBLISH_WINDOW + client.lane_bytes - 2


def test_a_flush_is_answered_once_all_batches_up_to_it_came_over_all_lanes() -> None:
    client = FakeBroker().client()
    client.number = 1
    client.publish("t", b"second", lane=1)
    client.write(Flush(id=7, batches=2))
    assert not [frame for frame in client.frames() if isinstance(frame, Flushed)]

    client.number = 0
    client.publish("t", b"first", lane=0)

    told, flushed = client.frames()
    assert isinstance(told, Taken)
    assert flushed == Flushed(id=7, accepted=2, refused=0)


def test_a_flush_of_what_was_taken_is_answered_in_its_turn() -> None:
    client = FakeBroker().client()
    client.publish("t", b"x")
    client.frames()

    client.write(Flush(id=1, batches=1), Flush(id=2, batches=0))

    assert client.frames() == [Flushed(id=1, accepted=1, refused=0), Flushed(id=2, accepted=1, refused=0)]


def test_refused_stands_before_the_totals_that_count_it() -> None:
    client = FakeBroker().client()

    client.publish("a/#", b"x", b"y")
    client.write(Flush(id=1, batches=1))

    assert [type(frame) for frame in client.frames()] == [Refused, Taken, Flushed]


def test_a_publisher_is_held_back_by_a_full_blocking_subscription_and_let_go() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("t", overflow="block", max_pending=10, window_messages=5)

    publisher.publish("t", *numbered(0, 20))

    (told,) = taken(publisher)
    assert (told.accepted, told.credit) == (20, limits.PUBLISH_WINDOW)
    got = subscriber.messages()
    while len(got) < 20:
        subscriber.write(SubscriptionCredit(id=1, messages=len(got), size=4 * len(got)))
        got += subscriber.messages()
    subscriber.write(SubscriptionCredit(id=1, messages=20, size=80))
    broker.turn()
    assert got == numbered(0, 20)
    assert publisher.session.publisher is not None
    assert publisher.session.publisher.credit == limits.PUBLISH_WINDOW + publisher.lane_bytes


def test_a_blocking_subscription_that_stands_still_is_ended_and_the_publisher_goes_on() -> None:
    broker = FakeBroker(block_timeout_s=30.0)
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("t", overflow="block", max_pending=4, window_messages=2)
    subscriber.frames()
    publisher.publish("t", *numbered(0, 10))
    publisher.frames()

    broker.pass_time(30.0)

    (closed,) = subscriber.frames()
    assert isinstance(closed, SubscriptionClosed)
    assert (closed.reason, closed.handed_over, closed.dropped) == ("block_timeout", 2, {"block_timeout": 8})
    (told,) = taken(publisher)
    assert told.credit == limits.PUBLISH_WINDOW + publisher.lane_bytes


def test_lanes_of_the_largest_messages_fit_the_credit_twice() -> None:
    size = 8 * 1024 * 1024
    client = FakeBroker(EdgeLimits(max_message_size=size)).client()
    client.subscribe("t", max_pending_size=64 * 1024 * 1024, window_size=8 * 1024 * 1024)

    client.publish("t", bytes(size))
    client.publish("t", bytes(size))

    assert not client.connection.is_closed
    (told,) = taken(client)
    assert told.accepted == 2


# --- towards the client ---------------------------------------------------------------------------------------------


def test_the_drops_of_a_turn_are_told_once_with_their_reasons() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", max_pending=4, window_messages=2)
    client.frames()

    for number in range(3):
        client.publish("t", *numbered(10 * number, 10))

    dropped = [frame for frame in client.frames() if isinstance(frame, SubscriptionDropped)]
    assert dropped == [SubscriptionDropped(id=1, dropped={"overflow": 26})]
    assert client.messages() == numbered(0, 2)
    client.write(SubscriptionCredit(id=1, messages=2, size=8))
    (delivery,) = client.deliveries()
    assert delivery.subscriptions == ((1, 26),)
    assert messages_for([delivery], 1) == numbered(28, 2)


def test_expired_messages_are_told_as_such() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", window_messages=1)
    client.frames()
    client.publish("t", b"a", b"b", b"c", expires_in_ms=500)
    client.frames()

    broker.pass_time(0.5)

    assert client.frames() == [SubscriptionDropped(id=1, dropped={"expired": 2})]


def test_what_waited_carries_its_age_and_its_place_in_the_batch() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", window_messages=2)
    client.publish("t", *numbered(0, 5))
    (first,) = client.deliveries()
    broker.now += 0.25

    client.write(SubscriptionCredit(id=1, messages=2, size=8))

    (second,) = client.deliveries()
    assert [(each.envelope.first, each.envelope.age_ms) for each in (first, second)] == [(0, 0), (2, 250)]
    assert first.envelope.sequence == second.envelope.sequence == 1
    assert parse_body(second.body).count == 2


def test_the_order_of_a_topic_survives_waiting_and_dropping() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", max_pending=20, window_messages=10)
    got: list[bytes] = []

    for number in range(0, 300, 7):
        client.publish("t", *numbered(number, 7))
        got += client.messages()
        if number % 3 == 0:
            client.write(SubscriptionCredit(id=1, messages=len(got), size=4 * len(got)))
            got += client.messages()

    assert got == sorted(got)
    assert len(set(got)) == len(got) > 100


def test_a_fan_out_is_the_same_bytes_but_for_the_subscription() -> None:
    broker = FakeBroker()
    publisher = broker.client()
    subscribers = [broker.client() for _ in range(3)]
    for id, subscriber in enumerate(subscribers, 1):
        subscriber.subscribe("t", id=id)

    publisher.publish("t", b"x")

    deliveries = [subscriber.deliveries()[0] for subscriber in subscribers]
    assert [delivery.subscriptions for delivery in deliveries] == [((1, 0),), ((2, 0),), ((3, 0),)]
    first = deliveries[0]
    assert all((each.envelope, each.body) == (first.envelope, first.body) for each in deliveries)


def test_what_comes_in_one_turn_leaves_in_one_write_a_lane() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("t")
    before = subscriber.connection.sends

    for number in range(10):
        publisher.publish("t", b"x%d" % number)

    assert len(subscriber.messages()) == 10
    assert subscriber.connection.sends == before + 1


def test_unsubscribe_is_answered_with_the_final_books() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", max_pending=4, window_messages=2)
    client.publish("t", *numbered(0, 9))
    client.frames()

    client.write(Unsubscribe(id=1), Unsubscribe(id=1))

    assert client.frames() == [
        SubscriptionClosed(id=1, reason="unsubscribed", handed_over=2, dropped={"overflow": 5, "unsubscribed": 2})
    ]
    client.write(SubscriptionCredit(id=1, messages=2, size=8))
    assert not client.connection.is_closed
    assert broker.router.books().balance == 0


def test_disconnect_tells_why_and_leaves_the_connection() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", overflow="disconnect", max_pending=4, window_messages=2)
    client.frames()

    client.publish("t", *numbered(0, 9))

    (closed, told) = sorted(client.frames(), key=lambda frame: frame.TYPE)
    assert isinstance(closed, SubscriptionClosed)
    assert (closed.reason, closed.handed_over, closed.dropped) == ("overflow", 2, {"overflow": 7})
    assert isinstance(told, Taken)


def test_what_waited_for_a_connection_that_died_is_counted() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("t", window_messages=2)
    publisher.publish("t", *numbered(0, 5))

    subscriber.vanish()

    books = broker.router.books()
    assert (books.handed_over, books.dropped, books.queued, books.balance) == (2, {"disconnected": 3}, 0, 0)
    publisher.publish("t", b"x")
    assert broker.router.books().unmatched == 1


def test_a_client_that_is_closed_for_an_offence_holds_nobody_up_from_then_on() -> None:
    broker = FakeBroker()
    publisher, offender = broker.client(), broker.client()
    offender.subscribe("t", overflow="block", max_pending=2, window_messages=1)
    publisher.publish("t", *numbered(0, 5))
    publisher.frames()

    offender.write_control(b"\x0f\x01\x80")  # the transport has not said `closed` yet

    assert [told.credit for told in taken(publisher)] == [limits.PUBLISH_WINDOW + publisher.lane_bytes]
    assert broker.router.books().dropped == {"disconnected": 4}


def test_a_publisher_that_died_holds_nothing_up() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("t", overflow="block", max_pending=2, window_messages=1)
    publisher.publish("t", *numbered(0, 5))

    publisher.vanish()

    got = subscriber.messages()
    while len(got) < 5:
        subscriber.write(SubscriptionCredit(id=1, messages=len(got), size=4 * len(got)))
        got += subscriber.messages()
    assert got == numbered(0, 5)


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_at_once() -> None:
    client = FakeBroker().client()

    client.write(Ping(id=5))

    assert client.frames() == [Pong(id=5)]


def test_a_client_that_goes_away_is_told_when_all_was_taken() -> None:
    client = FakeBroker().client()
    client.subscribe("t")
    client.publish("t", b"x")

    client.write(GoAway(reason="done", deadline_s=1.0))

    assert [frame for frame in client.frames() if isinstance(frame, Drained)] == [Drained(batches=1)]


def test_a_stop_waits_for_the_client_and_for_what_waits_for_it() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t", window_messages=2)
    client.publish("t", *numbered(0, 4))
    client.frames()

    broker.edge.go_away("the broker is stopping", 5.0)

    assert client.frames() == [GoAway(reason="the broker is stopping", deadline_s=5.0)]
    client.publish("t", b"last")
    client.write(Drained(batches=2))
    assert not [frame for frame in client.frames() if isinstance(frame, Drained)]
    assert not broker.edge.close_drained()
    for consumed, size in ((2, 8), (4, 16)):
        client.write(SubscriptionCredit(id=1, messages=consumed, size=size))
    assert [frame for frame in client.frames() if isinstance(frame, Drained)] == [Drained(batches=3)]
    client.write(SubscriptionCredit(id=1, messages=5, size=20))
    assert broker.edge.close_drained()
    assert client.connection.close_code == 0


def test_a_stop_does_not_wait_for_reports_of_the_last_messages() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t")
    client.publish("t", b"x")
    broker.edge.go_away("the broker is stopping", 5.0)
    client.write(Drained(batches=1))
    broker.turn()

    assert not broker.edge.close_drained()
    broker.now += 0.2
    assert not broker.edge.close_drained()
    broker.now += 0.2
    assert broker.edge.close_drained()


def test_a_stop_closes_those_who_have_not_proved_themselves() -> None:
    broker = FakeBroker()
    client = broker.connect()

    broker.edge.go_away("the broker is stopping", 5.0)

    assert client.connection.close_code == 7
    assert broker.edge.close_drained()


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_bytes_may_come_in_any_pieces(chunk: int) -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t")
    record = encode_publish(encode_body(b"t", numbered(0, 20), number=1))

    for start in range(0, len(record), chunk):
        client.write_lane(record[start : start + chunk])

    assert client.messages() == numbered(0, 20)
