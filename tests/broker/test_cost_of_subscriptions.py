"""What a subscription costs: objects that the collector visits, and bytes. Tens of thousands may live for long."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

from quicbus.wire.frames import FrameParser, Subscribe, SubscriptionCredit, encode_frame
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.interest.own_interest import OwnInterest
from tests.broker.fakes import FakeBroker
from tests.broker.mesh.fake_signing import FakeSigning, node_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MANY = 1000


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """Return tracked objects and bytes for each of many."""
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        work()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    gc.collect()
    return (len(gc.get_objects()) - objects) / MANY, size / MANY


def subscribes(ids: Iterable[int]) -> bytes:
    """Each with a wildcard, and strings and numbers of its own as frames bring them."""
    return b"".join(
        encode_frame(
            Subscribe(
                id=id,
                filter=f"site/+/machine-{id}/#",
                max_pending=1000,
                max_pending_size=1 << 20,
                window_messages=500,
                window_size=1 << 19,
            )
        )
        for id in ids
    )


def test_a_subscription_is_one_object_for_the_collector() -> None:
    broker = FakeBroker()
    subscriber = broker.client().session.subscriber
    assert subscriber is not None
    frames = FrameParser(1 << 20)

    def subscribe() -> None:
        for frame in frames.feed(subscribes(range(1, 1 + MANY))):
            assert isinstance(frame, Subscribe)
            subscriber.subscribe(frame)
        broker.turn()

    objects, size = cost(subscribe)
    assert len(broker.router) == MANY
    assert objects < 1.2
    assert size < 1000


def test_what_the_mesh_is_told_of_a_subscription_is_none() -> None:
    own = OwnInterest(node_id(0), 1, FakeSigning(node_id(0)), MeshConfig())
    filters = [f"site/+/machine-{number}/#" for number in range(MANY)]

    def add() -> None:
        for filter in filters:
            own.add(filter, "", False)

    objects, size = cost(add)
    assert objects < 0.2
    assert size < 800


def test_a_subscription_that_has_caught_up_keeps_nothing_of_its_backlog() -> None:
    broker = FakeBroker()
    reader, writer = broker.client(), broker.client()
    reader.subscribe("t")
    fresh = next(iter(broker.router.subscriptions)).backlog
    (subscription,) = broker.router.subscriptions
    for _ in range(600):
        writer.publish("t", b"x")
    broker.turn()
    assert subscription.backlog.messages
    assert subscription.backlog is not fresh
    while subscription.outstanding:
        reader.write(SubscriptionCredit(id=1, messages=subscription.handed_over, size=subscription.handed_over_size))
        broker.turn()
    assert subscription.backlog is fresh
