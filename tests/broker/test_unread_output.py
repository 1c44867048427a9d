"""What one client's network does not take is bounded over all its subscriptions; the rest waits by their policies."""

from __future__ import annotations

from quicbus_broker.edge import EdgeLimits
from quicbus_broker.routing import OutputRoom
from tests.broker.fakes import FakeBroker, FakeClient

ALLOWED = 100_000
MESSAGE = bytes(10_000)


def stuck_client(*, overflow: str = "drop_oldest", max_pending: int = 1000) -> FakeClient:
    """A client with two subscriptions whose network takes nothing any more."""
    client = FakeBroker(EdgeLimits(max_unread_size=ALLOWED)).client()
    for id, topic in enumerate(("a", "b"), start=1):
        client.subscribe(topic, id=id, overflow=overflow, max_pending=max_pending)
    client.connection.keeps_from = sum(map(len, client.connection.sent.values()))
    return client


def publish(client: FakeClient, count: int) -> None:
    publisher = client.broker.client()
    for number in range(count):
        publisher.publish("ab"[number % 2], MESSAGE, lane=number % 2)
        client.broker.turn()


def take_all(client: FakeClient) -> None:
    """The network has taken what there was."""
    client.connection.keeps_from = sum(map(len, client.connection.sent.values()))
    client.connection.is_dirty = True
    client.broker.turn()


def test_messages_wait_once_the_network_of_a_client_takes_no_more() -> None:
    client = stuck_client()
    publish(client, 40)

    assert client.connection.unsent_size < ALLOWED + 2 * len(MESSAGE)
    client.connection.is_dirty = True
    client.broker.turn()
    statistics = client.broker.edge.statistics()
    assert statistics.limits["max_unread_size"] == 1
    assert client.broker.router.books().queued > 25


def test_what_waited_goes_on_when_the_network_takes_it_in_order_and_to_all_subscriptions() -> None:
    client = stuck_client()
    publish(client, 40)
    received = {1: 0, 2: 0}
    for _ in range(10):
        for delivery in client.deliveries():
            for id, dropped in delivery.subscriptions:
                assert not dropped
                received[id] += 1
        take_all(client)

    assert received == {1: 20, 2: 20}
    assert client.broker.router.books().queued == 0


def test_policies_hold_for_what_waits() -> None:
    client = stuck_client(max_pending=10)
    publish(client, 60)

    books = client.broker.router.books()
    assert books.dropped["overflow"] == 40
    assert books.balance == 0


def test_a_client_that_is_taken_from_is_never_measured_in_vain() -> None:
    client = FakeBroker(EdgeLimits(max_unread_size=ALLOWED)).client()
    client.subscribe("a")
    publish(client, 40)

    assert len(client.messages()) == 20
    assert client.broker.edge.statistics().limits["max_unread_size"] == 0


def test_those_who_wait_are_asked_once_half_is_free() -> None:
    room = OutputRoom(100)
    room.size = 100
    assert room.is_full
    room.has_waiting = True
    assert not room.measured(51)
    assert room.measured(50)
    assert not room.measured(0)
