"""How many connections, subscriptions and messages a client may have, and what it is told beyond that."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus.wire.batch import FLAG_REQUEST
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import NoResponder, Refused, Subscribed, SubscriptionClosed, Taken, Unsubscribe
from quicbus_broker.edge import EdgeLimits
from tests.broker.fakes import FakeBroker
from tests.broker.offences import VERIFIER, closed_with, hello


def test_a_connection_too_many_is_refused_with_the_limit_and_when_to_try_again() -> None:
    broker = FakeBroker(EdgeLimits(max_connections=2))
    admission = broker.edge.admission(VERIFIER)
    for _ in range(2):
        broker.connect(admission=admission).write(hello())
    third = broker.connect(admission=admission)

    assert closed_with(third) is CloseCode.TOO_MANY_CONNECTIONS
    assert "max_connections: 2 of 2 are in use; try again in 10 s" in third.connection.close_reason
    broker.clients[0].vanish()
    fourth = broker.connect(admission=admission)
    fourth.write(hello())
    assert not fourth.connection.is_closed


def test_connections_that_prove_at_the_same_time_are_counted_too() -> None:
    broker = FakeBroker(EdgeLimits(max_connections=1))
    admission = broker.edge.admission(VERIFIER)
    first, second = broker.connect(admission=admission), broker.connect(admission=admission)

    first.write(hello())
    second.write(hello())

    assert not first.connection.is_closed
    assert closed_with(second) is CloseCode.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize(
    ("edge_limits", "limit"),
    [
        (EdgeLimits(max_subscriptions=1), ("max_subscriptions", 2, 1)),
        (EdgeLimits(max_filter_size=1), ("max_filter_size", 3, 1)),
        (EdgeLimits(max_filters_size=1), ("max_filters_size", 2, 1)),
        (EdgeLimits(max_pending=99), ("max_pending", 100, 99)),
        (EdgeLimits(max_pending_size=99), ("max_pending_size", 100, 99)),
    ],
)
def test_a_subscription_beyond_a_limit_is_refused_by_name(edge_limits: EdgeLimits, limit: tuple[str, int, int]) -> None:
    client = FakeBroker(edge_limits).client()
    client.subscribe("t", max_pending=9, max_pending_size=9)
    client.frames()

    client.subscribe("u/#" if edge_limits.max_filter_size == 1 else "u", id=2, max_pending=100, max_pending_size=100)

    (closed,) = client.frames()
    assert client.broker.edge.statistics().limits[limit[0]] == 1
    assert isinstance(closed, SubscriptionClosed)
    assert (closed.reason, closed.limit, closed.current, closed.allowed) == ("limit", *limit)
    assert not client.connection.is_closed


@pytest.mark.parametrize("group", [None, "g" * 60_000])
def test_filters_of_any_length_hold_no_more_than_the_limit(group: str | None) -> None:
    client = FakeBroker().client()
    size = 60_000 + len(group or "")

    for number in range(1, 40):
        client.subscribe("+/" * 29_999 + f"{number:02}", id=number, group=group)

    frames = client.frames()
    fitting = limits.MAX_FILTERS_SIZE // size
    assert [type(frame) for frame in frames] == [Subscribed] * fitting + [SubscriptionClosed] * (39 - fitting)
    refused = frames[-1]
    assert isinstance(refused, SubscriptionClosed)
    assert (refused.limit, refused.current) == ("max_filters_size", (fitting + 1) * size)
    client.write(Unsubscribe(id=1))
    client.subscribe("+/" * 29_999 + "40", id=40, group=group)
    assert isinstance(client.frames()[-1], Subscribed)


RATES = {
    "max_publish_rate": (EdgeLimits(max_publish_rate=100), [b"x"] * 50),
    "max_publish_bytes": (EdgeLimits(max_publish_bytes=100_000), [bytes(49_967)]),
}
"""Each batch is half of what may come in a second."""


@pytest.mark.parametrize("limit", RATES)
def test_what_is_published_too_fast_gets_no_credit_until_it_is_paid_off(limit: str) -> None:
    edge_limits, batch = RATES[limit]
    broker = FakeBroker(edge_limits)
    client = broker.client()
    client.publish("t", *batch)
    client.publish("t", *batch)
    (taken,) = client.frames()
    assert isinstance(taken, Taken)

    client.publish("t", *batch)

    (delayed,) = client.frames()
    assert isinstance(delayed, Taken)
    assert delayed.accepted == 3 * len(batch)
    assert delayed.credit == taken.credit
    assert broker.edge.statistics().limits[limit] == 1
    broker.pass_time(0.4)
    assert client.frames() == []
    broker.pass_time(0.2)
    (released,) = client.frames()
    assert isinstance(released, Taken)
    assert released.credit == taken.credit + client.lane_bytes // 3


@pytest.mark.parametrize("limit", RATES)
def test_who_publishes_too_fast_regardless_is_refused_with_when_to_try_again(limit: str) -> None:
    edge_limits, batch = RATES[limit]
    broker = FakeBroker(edge_limits)
    client = broker.client()
    for _ in range(6):  # what may come at once, and twice as much that is owed
        client.publish("t", *batch)
    assert [type(frame) for frame in client.frames()] == [Taken]

    number = client.publish("t", *batch)

    refused, taken = client.frames()
    assert isinstance(refused, Refused)
    assert (refused.number, refused.messages, refused.reason, refused.limit) == (number, len(batch), "rate", limit)
    assert (refused.current, refused.allowed) == (3.5 * refused.allowed, edge_limits.max_publish_rate or 100_000)
    assert refused.retry_after_s == pytest.approx(2.5)
    assert isinstance(taken, Taken)
    assert (taken.accepted, taken.refused) == (6 * len(batch), len(batch))
    broker.pass_time(2.5)
    client.publish("t", *batch)
    assert not any(isinstance(frame, Refused) for frame in client.frames())


def test_a_message_of_more_than_a_second_passes_alone_and_is_paid_off() -> None:
    broker = FakeBroker(EdgeLimits(max_publish_bytes=1000))
    client = broker.client()

    client.publish("t", bytes(9_959))
    client.publish("t", b"x")

    refused, taken = client.frames()
    assert isinstance(refused, Refused)
    assert isinstance(taken, Taken)
    assert taken.accepted == 1
    broker.pass_time(refused.retry_after_s or 0.0)
    client.publish("t", b"x")
    assert not any(isinstance(frame, Refused) for frame in client.frames())


def test_a_client_that_left_while_it_was_delayed_is_forgotten() -> None:
    broker = FakeBroker(EdgeLimits(max_publish_rate=1))
    client = broker.client()
    client.publish("t", b"x", b"y")
    client.frames()

    client.vanish()

    broker.pass_time(10.0)
    assert not client.connection.is_dirty


def test_a_request_that_nobody_can_answer_is_told_at_once() -> None:
    client = FakeBroker().client()

    number = client.publish("nobody", b"?", flags=FLAG_REQUEST, reply_to="r")

    assert NoResponder(number=number) in client.frames()
