"""What goes into the routing machines and what comes out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final

from mypy_extensions import mypyc_attr

from quicbus.values import make_structs
from quicbus.wire.batch import Body, slice_body

if TYPE_CHECKING:
    from quicbus.wire.records import Envelope
    from quicbus_broker.routing.subscription import Subscription

__all__ = [
    "Batch",
    "Delivery",
    "Destination",
    "DropsChanged",
    "Ended",
    "Held",
    "Orphaned",
    "Output",
    "Released",
    "Source",
]


class Source(Protocol):
    """A publisher, as `block` knows it: something that can be held back. Compared by identity."""

    def narrowed(self, filter: str) -> Source:
        """Return what is held back when a subscription to this filter is full: itself, or only a part of it."""
        ...

    def held(self) -> None:
        """A subscription holds it back from now on."""
        ...

    def released(self) -> None:
        """No subscription holds it back any longer."""
        ...


class Destination(Protocol):
    """Where deliveries go: one connection with all its subscriptions. Compared by identity."""

    def deliver(self, delivery: Delivery, front: bytes) -> None:
        """Send messages. `front` is the encoded envelope when it is the same for all of a fan-out, else empty."""
        ...

    def drops_changed(self, subscription: Subscription) -> None:
        """The totals of dropped messages changed; `subscription.drops_reported()` once they were told."""
        ...

    def subscription_ended(self, subscription: Subscription, reason: str, detail: str) -> None:
        """The router has ended the subscription; its books are final."""
        ...


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class Batch:
    """A batch at this node. Times are those of the caller's monotonic clock, in seconds.

    The collector does not know it, though it may wait for a subscription that its source leads to, until that ends.
    """

    __slots__ = ("arrived", "body", "envelope", "expires_at", "source")

    def __init__(
        self, body: Body, envelope: Envelope, source: Source | None, arrived: float, expires_at: float
    ) -> None:
        self.body = body
        self.envelope = envelope
        self.source = source
        """Who is held back where a subscription with the policy `block` is full."""
        self.arrived = arrived
        self.expires_at = expires_at
        """Infinite where the batch never expires."""

    def part(self, start: int, stop: int) -> Batch:
        """Return a batch of its own that holds only the messages `start` to `stop` (exclusive)."""
        envelope = self.envelope.changed(self.envelope.first + start, self.envelope.age_ms)
        return Batch(slice_body(self.body, start, stop), envelope, self.source, self.arrived, self.expires_at)


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class Delivery:
    """Messages `start` to `stop` (exclusive) of a batch for subscriptions of one destination.

    `subscriptions` are pairs of id and messages dropped so far. `age_ms`: how long they waited in
    queues of nodes, this one's included.
    """

    __slots__ = ("age_ms", "batch", "destination", "start", "stop", "subscriptions")

    def __init__(
        self,
        destination: Destination,
        batch: Batch,
        start: int,
        stop: int,
        subscriptions: Sequence[tuple[int, int]],
        age_ms: int,
    ) -> None:
        self.destination = destination
        self.batch = batch
        self.start = start
        self.stop = stop
        self.subscriptions = subscriptions
        self.age_ms = age_ms


make_structs(globals(), Batch, Delivery)


class DropsChanged:
    """Told once until `Subscription.drops_reported()` is called."""

    __slots__ = ("subscription",)

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription


class Ended:
    """The router ended a subscription: `reason` as in `SubscriptionClosed`."""

    __slots__ = ("detail", "reason", "subscription")

    def __init__(self, subscription: Subscription, reason: str, detail: str) -> None:
        self.subscription = subscription
        self.reason = reason
        self.detail = detail


@dataclass(slots=True, eq=False)
class Held:
    """A publisher is held back that was not before."""

    source: Source


@dataclass(slots=True, eq=False)
class Orphaned:
    """Messages of a group whose last member here has left: `Router.settle_orphan` must follow."""

    batch: Batch
    """Only these messages."""
    group: str
    filter: str
    reason: str
    """Under which they are counted as dropped, unless somebody elsewhere takes them."""


@dataclass(slots=True, eq=False)
class Released:
    """A publisher is no longer held back."""

    source: Source


Output = Delivery | DropsChanged | Ended | Held | Orphaned | Released
