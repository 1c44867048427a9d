"""Where all sessions of a node meet: batches get their envelope and are routed, and what comes out is performed.

With a `Remote` the rest of the mesh is one of those that meet here.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from quicbus.exceptions import InvalidTopic, ProtocolViolation
from quicbus.logs import logger_for
from quicbus.topics import check_filter
from quicbus.wire.batch import parse_body
from quicbus.wire.records import Envelope, encode_delivery_front
from quicbus_broker.edge.denials import Denials
from quicbus_broker.edge.edge_limits import no_hits
from quicbus_broker.edge.remote_sources import RemoteSources
from quicbus_broker.permissions import Policy
from quicbus_broker.routing import Batch, Delivery, DropsChanged, Ended, Held, Orphaned, Overflow
from quicbus_broker.routing.subscription import NOT_PERMITTED

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from quicbus.wire.batch import Body
    from quicbus_broker.edge.publisher import Publisher
    from quicbus_broker.edge.remote import Remote
    from quicbus_broker.routing import Output, Router, Source, Subscription
    from quicbus_broker.routing.table import Plan

__all__ = ["Exchange"]

MAX_RETURNED: Final = 10_000
"""Shares whose return is remembered: one that comes back again is dropped."""
_CONGESTION: Final = "congestion"


class Exchange:
    """`origin` is this node's id, `boot` grows with each start. Batches are numbered from 1 in each boot.

    `malformed` counts batches and filters of other nodes that no edge should have let in, `too_large` messages that
    came from there in batches over `max_body_size`. `denials` are of batches and subscribes of clients.
    """

    def __init__(
        self, router: Router, *, origin: bytes, boot: int, clock: Callable[[], float], remote: Remote | None = None
    ) -> None:
        self.router = router
        self.origin = origin
        self.boot = boot
        self.clock = clock
        self.policy = Policy()
        """Who may publish and subscribe to what. A node applies its own to what other nodes send, too."""
        self.sequence = 0
        self.malformed = 0
        self.too_large = 0
        self.denials = Denials(self.policy, clock, logger_for("quicbus_broker.edge", node=origin.hex()))
        self.limit_hits = no_hits()
        """How many times each limit was met, by the name of its setting."""
        self.max_body_size = sys.maxsize
        """Of a batch of another node: that may be set to another size, and a client takes what its own broker said."""
        self.remote: Remote | None = None
        self._sources = RemoteSources(lambda *_: None)
        self._returned: OrderedDict[tuple[int, int, str, str], None] = OrderedDict()
        self._is_congested = False
        self._delayed: dict[Publisher, float] = {}
        self._untold: dict[Publisher, None] = {}
        if remote is not None:
            self.join(remote)

    def join(self, remote: Remote) -> None:
        """From here on messages go to, and come from, the mesh. Once; it hears of what is subscribed to already."""
        assert self.remote is None
        self.remote = remote
        self.router.gives_back = True
        self._sources = RemoteSources(remote.pause)
        for subscription in self.router.subscriptions:
            remote.interest_added(*_interest(subscription))

    # --- clients ----------------------------------------------------------------------------------------------------

    def publish(self, body: Body, publisher: str, source: Source, plan: Plan) -> bool:
        """Route a batch of a client whose name was verified. `plan` was just asked for.

        Returns `False` where nobody gets it, in the whole mesh as far as that is known.
        """
        self.sequence += 1
        now = self.clock()
        expires_at = now + body.expires_in_ms / 1000 if body.expires_in_ms else math.inf
        envelope = Envelope(self.origin, self.boot, self.sequence, publisher)
        batch = Batch(body, envelope, source, now, expires_at)
        outputs: list[Output] = []
        remote = self.remote
        if remote is None:
            self.router.route(batch, plan, now, outputs)
            self.perform(outputs)
            return plan.matching > 0
        remote_plan = remote.plan(body.topic, plan.group_keys)
        if remote_plan.is_empty:
            self.router.route(batch, plan, now, outputs)
            self.perform(outputs)
            return plan.matching > 0 or not remote.is_joined
        self.router.route(batch, plan, now, outputs, is_forwarded=True)
        if self._is_congested and remote_plan.waits and remote.is_full(remote_plan):
            self.router.hold(_CONGESTION, source, outputs)
        self.perform(outputs)
        remote.forward(batch, remote_plan)
        return True

    def delay(self, publisher: Publisher, until: float) -> None:
        """A client published too fast: a `tick` calls its `delay_over` then."""
        self._delayed[publisher] = until

    def tell_later(self, publisher: Publisher) -> None:
        """A client does not wait for what was taken of it: `tell` is called by the next `tick`."""
        self._untold[publisher] = None

    def tell(self) -> None:
        """Tell clients what was taken and could wait. A frame for each message costs more than the message."""
        untold, self._untold = self._untold, {}
        for publisher in untold:
            publisher.tell()

    def forget(self, publisher: Publisher) -> None:
        """The client has left."""
        self._delayed.pop(publisher, None)
        self._untold.pop(publisher, None)
        self.router.forget_source(publisher)

    def subscribe(self, subscription: Subscription) -> None:
        """Every batch that is routed from here on reaches it."""
        self.router.subscribe(subscription)
        if self.remote is not None:
            self.remote.interest_added(*_interest(subscription))

    def credit(self, subscription: Subscription, messages: int, size: int) -> None:
        """Move the window of a subscription on; raises `ProtocolViolation` where that cannot be."""
        outputs: list[Output] = []
        self.router.credit(subscription, messages, size, self.clock(), outputs)
        self.perform(outputs)

    def output_has_room(self, subscriptions: Iterable[Subscription]) -> None:
        """The network of a client has taken what was kept for it: what waits goes on."""
        now = self.clock()
        for subscription in subscriptions:
            if subscription.backlog.messages:
                outputs: list[Output] = []
                self.router.output_has_room(subscription, now, outputs)
                self.perform(outputs)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._leave(subscription, self.router.unsubscribe)

    def disconnect(self, subscription: Subscription) -> None:
        self._leave(subscription, self.router.disconnect)

    def revoke(self, subscription: Subscription) -> None:
        """End a subscription that is no longer permitted, and tell its destination."""
        if subscription.is_open:
            self._leave(subscription, self.router.revoke)
            subscription.destination.subscription_ended(subscription, NOT_PERMITTED, subscription.filter[:200])

    def _leave(self, subscription: Subscription, leave: Callable[[Subscription, float, list[Output]], None]) -> None:
        if not subscription.is_open:
            return
        outputs: list[Output] = []
        leave(subscription, self.clock(), outputs)
        self._discard_interest(subscription)
        self.perform(outputs)

    # --- the mesh ---------------------------------------------------------------------------------------------------

    def take_remote(
        self,
        origin: bytes,
        boot: int,
        id: int,
        first: int,
        publisher: str,
        body: bytes,
        age_ms: int,
        group: str,
        filter: str,
    ) -> bool:
        """Route a batch of another node, in its turn: to all who are in no group or, with `group`, to one member.

        Returns `False` for a group without members here: the batch is to be given back.
        """
        outputs: list[Output] = []
        now = self.clock()
        parsed = self._parse(body)
        if parsed is None:
            return True
        try:
            plan = self.router.plan(parsed.topic)
        except InvalidTopic:
            self.malformed += 1
            return True
        if group and (group, filter) not in plan.group_keys:
            return False
        if self.policy.restricts and not self.policy.may_relay(publisher, parsed.topic, parsed.reply_to):
            self.router.refuse_arrived(parsed.count, 1 if group else plan.matching - len(plan.groups))
            return True
        expires_at = now + (parsed.expires_in_ms - age_ms) / 1000 if parsed.expires_in_ms else math.inf
        envelope = Envelope(origin, boot, id, publisher, first, age_ms)
        batch = Batch(parsed, envelope, self._sources.of(origin), now, expires_at)
        if not group:
            self.router.route_arrived(batch, plan, now, outputs)
        else:
            self.router.route_share(batch, group, filter, now, outputs, has_arrived=True)
        self.perform(outputs)
        return True

    def returned(
        self, node: bytes, id: int, first: int, publisher: str, body: bytes, age_ms: int, group: str, filter: str
    ) -> None:
        """A share of this node came back from `node`: it goes to another place once, and is dropped after that."""
        outputs: list[Output] = []
        now = self.clock()
        parsed = self._parse(body)
        if parsed is None:
            return
        expires_at = now + (parsed.expires_in_ms - age_ms) / 1000 if parsed.expires_in_ms else math.inf
        batch = Batch(parsed, Envelope(self.origin, self.boot, id, publisher, first, age_ms), None, now, expires_at)
        is_taken = self._is_first_return((id, first, group, filter)) and (
            self.router.route_share(batch, group, filter, now, outputs, has_arrived=False)
            or (self.remote is not None and self.remote.send_share(batch, group, filter, node))
        )
        if not is_taken:
            self.router.count_no_member(parsed.count)
        self.perform(outputs)

    def _parse(self, body: bytes) -> Body | None:
        """Check a body that another node sent; `None` where it is of no use here, which is counted."""
        try:
            parsed = parse_body(body)
        except ProtocolViolation:
            self.malformed += 1
            return None
        if len(body) > self.max_body_size:
            self.too_large += parsed.count
            return None
        return parsed

    def hold(self, key: Hashable, filter: str) -> None:
        """Hold back who publishes what matches a filter, until `release`: `key` (a node) has no room for it."""
        try:
            check_filter(filter)
        except InvalidTopic:
            self.malformed += 1
        else:
            self.router.pause(key, filter)

    def release(self, key: Hashable, filter: str) -> None:
        outputs: list[Output] = []
        self.router.resume(key, filter, outputs)
        self.perform(outputs)

    def congestion_changed(self, is_congested: bool) -> None:
        """A way to other nodes is full, or none is any longer: until then who publishes that way to `block` waits."""
        self._is_congested = is_congested
        if not is_congested:
            outputs: list[Output] = []
            self.router.release(_CONGESTION, outputs)
            self.perform(outputs)

    def _is_first_return(self, share: tuple[int, int, str, str]) -> bool:
        if share in self._returned:
            return False
        self._returned[share] = None
        if len(self._returned) > MAX_RETURNED:
            self._returned.popitem(last=False)
        return True

    def _discard_interest(self, subscription: Subscription) -> None:
        if self.remote is not None:
            self.remote.interest_discarded(*_interest(subscription))

    def _find_another_place(self, orphaned: Orphaned) -> None:
        """The last member of a group here has left: what waited for it goes to one elsewhere."""
        batch, remote = orphaned.batch, self.remote
        is_taken = False
        if remote is not None and batch.envelope.origin == self.origin:
            is_taken = remote.send_share(batch, orphaned.group, orphaned.filter, b"")
        elif remote is not None:
            is_taken = remote.give_back(batch, orphaned.group, orphaned.filter)
        self.router.settle_orphan(orphaned, is_taken=is_taken)

    # --- what routing returns ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass in the queues."""
        now = self.clock()
        for publisher in [each for each, until in self._delayed.items() if until <= now]:
            del self._delayed[publisher]
            publisher.delay_over()
        self.tell()
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
                if batch is not common:
                    common, body = batch, batch.body
                    count, age_ms = body.count, batch.envelope.age_ms
                    front = encode_delivery_front(batch.envelope, 1, len(body.raw))
                is_common = (
                    output.stop - output.start == count and output.age_ms == age_ms and len(output.subscriptions) == 1
                )
                output.destination.deliver(output, front if is_common else b"")
            else:
                self._perform_other(output)

    def _perform_other(self, output: Output) -> None:
        if isinstance(output, DropsChanged):
            output.subscription.destination.drops_changed(output.subscription)
        elif isinstance(output, Ended):
            self._discard_interest(output.subscription)
            output.subscription.destination.subscription_ended(output.subscription, output.reason, output.detail)
        elif isinstance(output, Held):
            output.source.held()
        elif isinstance(output, Orphaned):
            self._find_another_place(output)
        elif not isinstance(output, Delivery):
            output.source.released()


def _interest(subscription: Subscription) -> tuple[str, str, bool]:
    return subscription.filter, subscription.group or "", subscription.options.overflow is Overflow.BLOCK
