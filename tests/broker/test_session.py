"""An edge session, spoken to in bytes: what works, step by step."""

from __future__ import annotations

from quicbus import limits
from quicbus.wire.frames import Accepted, Hello, Limits, Subscribed, Taken, Welcome
from quicbus_broker.edge import EdgeLimits
from tests.broker.fakes import NODE, FakeBroker


def test_welcome_is_the_first_frame_and_says_who_and_what() -> None:
    client = FakeBroker().connect()

    (welcome,) = client.frames()

    assert isinstance(welcome, Welcome)
    assert (welcome.version, welcome.node, welcome.boot, welcome.proof) == (1, NODE, 7, False)
    assert welcome.limits.max_message_size == 1024 * 1024


def test_welcome_states_every_limit_that_the_edge_enforces_on_clients() -> None:
    edge_limits = EdgeLimits(
        max_message_size=1,
        max_subscriptions=2,
        max_filters_size=3,
        max_pending=4,
        max_pending_size=5,
        max_publish_rate=6,
    )

    (welcome,) = FakeBroker(edge_limits).connect().frames()

    assert isinstance(welcome, Welcome)
    assert welcome.limits == Limits(
        max_message_size=1,
        max_headers_size=limits.MAX_HEADERS_SIZE,
        max_subscriptions=2,
        max_filter_size=limits.MAX_TOPIC_SIZE,
        max_filters_size=3,
        max_pending=4,
        max_pending_size=5,
        max_publish_rate=6,
    )


def test_hello_is_answered_with_accepted() -> None:
    client = FakeBroker().connect()
    client.frames()

    client.write(Hello(version=1, kind="client", agent="test"))

    (accepted,) = client.frames()
    assert isinstance(accepted, Accepted)
    assert accepted.name == "local"
    assert accepted.publish_credit == 4 * 1024 * 1024
    assert client.connection.undelivered_allowed == accepted.publish_credit + 1024 * 1024


def test_what_is_published_reaches_a_subscriber_as_it_was() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("sensors/+/temperature")
    assert subscriber.frames() == [Subscribed(id=1)]

    publisher.publish("sensors/kitchen/temperature", b"21.5", b"21.6")

    (delivery,) = subscriber.deliveries()
    assert delivery.subscriptions == ((1, 0),)
    assert (delivery.envelope.origin, delivery.envelope.boot, delivery.envelope.sequence) == (NODE, 7, 1)
    assert delivery.envelope.publisher == "local"
    assert publisher.frames() == [Taken(accepted=2, refused=0, credit=4 * 1024 * 1024 + publisher.lane_bytes)]
    assert broker.router.books().balance == 0
