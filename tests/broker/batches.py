"""Batches and subscriptions for tests of the routing machines, and what they gave out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus.wire.batch import encode_body, parse_body, read_messages, slice_body
from quicbus.wire.records import Envelope
from quicbus_broker.routing import (
    Batch,
    Delivery,
    DropsChanged,
    Ended,
    Overflow,
    Released,
    Router,
    Subscription,
    SubscriptionOptions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.routing import Output

ORIGIN = bytes(16)


class Place:
    """A destination that does nothing: the tests read the outputs."""

    def deliver(self, delivery: Delivery, front: bytes) -> None: ...

    def drops_changed(self, subscription: Subscription) -> None: ...

    def subscription_ended(self, subscription: Subscription, reason: str, detail: str) -> None: ...


class Writer:
    """A source that does nothing."""

    def narrowed(self, filter: str) -> Writer:
        return self

    def held(self) -> None: ...

    def released(self) -> None: ...


def batch(
    topic: str,
    messages: Sequence[bytes],
    *,
    number: int = 1,
    now: float = 0.0,
    expires_in: float = math.inf,
    source: Writer | None = None,
) -> Batch:
    body = parse_body(encode_body(topic.encode(), messages, number=number))
    return Batch(body, Envelope(ORIGIN, 1, number, "alice"), source, now, now + expires_in)


def numbered(first: int, count: int, *, size: int = 4) -> list[bytes]:
    """Return messages that tell which they are."""
    return [str(number).encode().rjust(size, b"0") for number in range(first, first + count)]


def options(
    overflow: Overflow = Overflow.DROP_OLDEST,
    *,
    max_pending: int = 10,
    max_pending_size: int = 1 << 20,
    window_messages: int = 5,
    window_size: int = 1 << 20,
) -> SubscriptionOptions:
    return SubscriptionOptions(
        overflow=overflow,
        max_pending=max_pending,
        max_pending_size=max_pending_size,
        window_messages=window_messages,
        window_size=window_size,
    )


class Reader:
    """A subscriber at a router: keeps what it was sent and consumes when told to."""

    def __init__(
        self,
        router: Router,
        filter: str = "t",
        *,
        group: str | None = None,
        place: Place | None = None,
        id: int = 1,
        options: SubscriptionOptions,
    ) -> None:
        self.router = router
        self.subscription = Subscription(place or Place(), id, filter, group, options)
        self.received: list[bytes] = []
        self.consumed = 0
        router.subscribe(self.subscription)

    def take(self, outputs: Sequence[Output]) -> list[bytes]:
        """Keep, and return, the messages among the outputs that are for this subscriber."""
        mine = [
            message
            for output in outputs
            if isinstance(output, Delivery)
            and output.destination is self.subscription.destination
            and self.subscription.id in dict(output.subscriptions)
            for message in messages_of(output)
        ]
        self.received += mine
        return mine

    def consume(self, count: int, now: float = 0.0) -> list[Output]:
        """Report `count` more messages as consumed; returns what came out, and keeps its messages."""
        outputs: list[Output] = []
        self.consumed += count
        size = sum(map(len, self.received[: self.consumed]))
        self.router.credit(self.subscription, self.consumed, size, now, outputs)
        self.take(outputs)
        return outputs


def route(router: Router, batch: Batch, *readers: Reader, now: float | None = None) -> list[Output]:
    """Route a batch; each of the readers keeps what it is sent."""
    outputs: list[Output] = []
    router.route(batch, router.plan(batch.body.topic), batch.arrived if now is None else now, outputs)
    for reader in readers:
        reader.take(outputs)
    return outputs


def messages_of(delivery: Delivery) -> list[bytes]:
    return read_messages(slice_body(delivery.batch.body, delivery.start, delivery.stop))


def ended(outputs: Sequence[Output]) -> list[tuple[Subscription, str]]:
    return [(output.subscription, output.reason) for output in outputs if isinstance(output, Ended)]


def released(outputs: Sequence[Output]) -> list[object]:
    return [output.source for output in outputs if isinstance(output, Released)]


def told_drops(outputs: Sequence[Output]) -> list[Subscription]:
    return [output.subscription for output in outputs if isinstance(output, DropsChanged)]
