"""Where all sessions of a node meet: batches get their envelope and are routed, and what comes out is performed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus.wire.records import Envelope, encode_delivery_front
from quicbus_broker.routing import Batch, Delivery, DropsChanged, Ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.wire.batch import Body
    from quicbus_broker.routing import Output, Router, Source, Subscription
    from quicbus_broker.routing.table import Plan

__all__ = ["Exchange"]


class Exchange:
    """`origin` is this node's id, `boot` grows with each start. Batches are numbered from 1 in each boot."""

    def __init__(self, router: Router, *, origin: bytes, boot: int, clock: Callable[[], float]) -> None:
        self.router = router
        self.origin = origin
        self.boot = boot
        self.clock = clock
        self.sequence = 0

    def publish(self, body: Body, publisher: str, source: Source, plan: Plan) -> None:
        """Route a batch of a client whose name was verified. `plan` was just asked for."""
        self.sequence += 1
        now = self.clock()
        expires_at = now + body.expires_in_ms / 1000 if body.expires_in_ms else math.inf
        envelope = Envelope(self.origin, self.boot, self.sequence, publisher)
        outputs: list[Output] = []
        self.router.route(Batch(body, envelope, source, now, expires_at), plan, now, outputs)
        self.perform(outputs)

    def credit(self, subscription: Subscription, messages: int, size: int) -> None:
        """Move the window of a subscription on; raises `ProtocolViolation` where that cannot be."""
        outputs: list[Output] = []
        self.router.credit(subscription, messages, size, self.clock(), outputs)
        self.perform(outputs)

    def unsubscribe(self, subscription: Subscription) -> None:
        outputs: list[Output] = []
        self.router.unsubscribe(subscription, self.clock(), outputs)
        self.perform(outputs)

    def disconnect(self, subscription: Subscription) -> None:
        outputs: list[Output] = []
        self.router.disconnect(subscription, self.clock(), outputs)
        self.perform(outputs)

    def tick(self) -> None:
        """Let time pass in the queues."""
        now = self.clock()
        if now < self.router.next_tick():
            return
        outputs: list[Output] = []
        self.router.tick(now, outputs)
        self.perform(outputs)

    def perform(self, outputs: list[Output]) -> None:
        """Do what routing returned. What all connections of a fan-out have in common is encoded once."""
        common: Batch | None = None
        front = b""
        for output in outputs:
            if isinstance(output, Delivery):
                batch = output.batch
                if output.age_ms or output.stop - output.start != batch.body.count or len(output.subscriptions) != 1:
                    output.destination.deliver(output, b"")
                    continue
                if batch is not common:
                    common = batch
                    front = encode_delivery_front(batch.envelope, 1, len(batch.body.raw))
                output.destination.deliver(output, front)
            elif isinstance(output, DropsChanged):
                output.subscription.destination.drops_changed(output.subscription)
            elif isinstance(output, Ended):
                output.subscription.destination.subscription_ended(output.subscription, output.reason, output.detail)
            else:
                output.source.released()
