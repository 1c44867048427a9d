"""Routing: takes batches, credit and the passing of time; returns what is to be sent and told.

No clock, no I/O. Outputs are appended to the list that the caller passes, in the order in which they must be performed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus_broker.routing.books import RoutingBooks, Settled
from quicbus_broker.routing.holds import Holds, PausedFilters
from quicbus_broker.routing.outputs import Batch, Delivery, DropsChanged, Ended, Held, Orphaned, Output, Released
from quicbus_broker.routing.subscription import (
    BLOCK_TIMEOUT,
    DISCONNECTED,
    EXPIRED,
    NO_MEMBER,
    NOT_PERMITTED,
    OVERFLOW,
    UNSUBSCRIBED,
    Subscription,
)
from quicbus_broker.routing.table import Table

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from quicbus_broker.routing.backlog import Waiting
    from quicbus_broker.routing.groups import Group
    from quicbus_broker.routing.outputs import Source
    from quicbus_broker.routing.table import Plan, Planning

__all__ = ["Router"]


class Router:
    """All subscriptions of a node. `now` is monotonic, in seconds, the same clock in every call."""

    def __init__(self, *, block_timeout_s: float) -> None:
        self.block_timeout_s = block_timeout_s
        self.gives_back = False
        """Messages for a group whose last member leaves become `Orphaned`, rather than dropped."""
        self._table = Table()
        self.known_plan = self._table.known
        """Returns who gets a topic, or `None` where that has to be found out: `plan`, `begin_plan`."""
        self._holds = Holds()
        self._paused = PausedFilters()
        self._subscriptions: dict[Subscription, None] = {}
        self._expiring: dict[Subscription, None] = {}
        self._full: dict[Subscription, None] = {}
        self._settled = Settled()
        self._accepted = 0
        self._arrived = 0
        self._forwarded = 0
        self._unmatched = 0
        self._deliveries = 0

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Those that are open."""
        return self._subscriptions

    def plan(self, topic: bytes) -> Plan:
        """Return who gets a topic now, however long it takes to find out; raises `InvalidTopic`."""
        return self._table.plan(topic)

    def begin_plan(self, topic: bytes) -> Planning:
        """Begin to find out who gets a topic; raises `InvalidTopic`."""
        return self._table.begin(topic)

    def subscribe(self, subscription: Subscription) -> None:
        """Every batch that is routed from here on reaches it."""
        self._subscriptions[subscription] = None
        self._table.add(subscription)

    def route(self, batch: Batch, plan: Plan, now: float, outputs: list[Output], *, is_forwarded: bool = False) -> None:
        """Give a batch of a publisher here to all that `plan`, which was just asked for, names.

        `is_forwarded`: other nodes get it too.
        """
        count = batch.body.count
        self._accepted += count
        if is_forwarded:
            self._forwarded += count
            if self._paused:
                self._hold_paused(batch, outputs)
        only = plan.only
        if only is not None:
            self._deliveries += count
            sent = only.offer(batch, 0, count, batch.body.total, now)
            if sent == count:
                outputs.append(Delivery(only.destination, batch, 0, count, only.named(), batch.envelope.age_ms))
            else:
                self._after_part(only, batch, 0, sent, now, outputs)
            return
        if not plan.matching:
            if not is_forwarded:
                self._unmatched += count
            return
        self._deliveries += count * plan.matching
        if plan.destinations:
            self._fan_out(batch, count, plan, now, outputs)
        for group in plan.groups:
            self._share(group, batch, 0, count, now, outputs)

    def route_arrived(self, batch: Batch, plan: Plan, now: float, outputs: list[Output]) -> None:
        """Give a batch of another node to the subscriptions in `plan` that are in no group."""
        count = batch.body.count
        self._arrived += count
        self._deliveries += count * (plan.matching - len(plan.groups))
        if now < batch.expires_at:
            self._fan_out(batch, count, plan, now, outputs)
            return
        for _, subscriptions in plan.destinations:
            for subscription in subscriptions:
                subscription.count_dropped(EXPIRED, count)
                self._report_drops(subscription, outputs)

    def route_share(
        self, batch: Batch, group: str, filter: str, now: float, outputs: list[Output], *, has_arrived: bool
    ) -> bool:
        """Give a batch to one group; returns `False`, and does nothing, where that has no members.

        `has_arrived`: from another node, and not for the second time.
        """
        members = self._table.group(group, filter)
        if members is None:
            return False
        count = batch.body.count
        self._deliveries += count
        if has_arrived:
            self._arrived += count
        if now < batch.expires_at:
            self._share(members, batch, 0, count, now, outputs)
        else:
            self._settled.count_dropped(EXPIRED, count)
        return True

    def refuse_arrived(self, messages: int, deliveries: int) -> None:
        """Messages of another node come no further: their publisher may not publish them by this node's table."""
        self._arrived += messages
        self._deliveries += messages * deliveries
        if deliveries:
            self._settled.count_dropped(NOT_PERMITTED, messages * deliveries)

    def count_no_member(self, messages: int) -> None:
        """The share of a group came back, and there is nowhere else to go with it."""
        self._deliveries += messages
        self._settled.count_dropped(NO_MEMBER, messages)

    def settle_orphan(self, orphaned: Orphaned, *, is_taken: bool) -> None:
        """Tell whether another node takes the messages: its books count them then."""
        count = orphaned.batch.body.count
        if is_taken:
            self._deliveries -= count
        else:
            self._settled.count_dropped(orphaned.reason, count)

    def _fan_out(self, batch: Batch, count: int, plan: Plan, now: float, outputs: list[Output]) -> None:
        total = batch.body.total
        for destination, subscriptions in plan.destinations:
            whole: list[Subscription] = []
            for subscription in subscriptions:
                sent = subscription.offer(batch, 0, count, total, now)
                if sent == count:
                    whole.append(subscription)
                else:
                    self._after_part(subscription, batch, 0, sent, now, outputs)
            if whole:
                named = whole[0].named() if len(whole) == 1 else [(each.id, each.dropped_total) for each in whole]
                outputs.append(Delivery(destination, batch, 0, count, named, batch.envelope.age_ms))

    def credit(self, subscription: Subscription, messages: int, size: int, now: float, outputs: list[Output]) -> None:
        """The subscriber has consumed so much in all; raises `ProtocolViolation` where that cannot be."""
        if not subscription.is_open:
            return
        subscription.consume(messages, size, now)
        outputs.extend([_delivery(subscription, waiting, now) for waiting in subscription.take_ready(now)])
        self._report_drops(subscription, outputs)
        self._release_if_room(subscription, outputs)

    def output_has_room(self, subscription: Subscription, now: float, outputs: list[Output]) -> None:
        """The destination's network has taken what was kept for it: what waits for the subscription may go on."""
        outputs.extend([_delivery(subscription, waiting, now) for waiting in subscription.take_ready(now)])
        self._report_drops(subscription, outputs)
        self._release_if_room(subscription, outputs)

    def unsubscribe(self, subscription: Subscription, now: float, outputs: list[Output]) -> None:
        """The subscriber wants no more. What waited goes to the other members of its group, if there are any."""
        self._leave(subscription, UNSUBSCRIBED, now, outputs)

    def disconnect(self, subscription: Subscription, now: float, outputs: list[Output]) -> None:
        """The subscriber's connection is gone."""
        self._leave(subscription, DISCONNECTED, now, outputs)

    def revoke(self, subscription: Subscription, now: float, outputs: list[Output]) -> None:
        """The subscriber may have no more of it. What waited goes to the other members of its group, likewise."""
        self._leave(subscription, NOT_PERMITTED, now, outputs)

    def tick(self, now: float, outputs: list[Output]) -> None:
        """Expire what waited too long, end what blocked too long. Call it at `next_tick()`, or a little later."""
        for subscription in list(self._expiring):
            subscription.expire(now)
            self._report_drops(subscription, outputs)
            self._release_if_room(subscription, outputs)
            if subscription.backlog.next_expiry() == math.inf:
                del self._expiring[subscription]
        for subscription in list(self._full):
            if now >= subscription.progress_at + self.block_timeout_s:
                detail = f"nothing was consumed for {self.block_timeout_s:g} s while publishers waited"
                self._end(subscription, BLOCK_TIMEOUT, detail, outputs)

    def next_tick(self) -> float:
        """Return when `tick` has something to do; infinite when nothing will."""
        expiry = min((each.backlog.next_expiry() for each in self._expiring), default=math.inf)
        timeout = min((each.progress_at for each in self._full), default=math.inf) + self.block_timeout_s
        return min(expiry, timeout)

    def is_held(self, source: Source) -> bool:
        """Whether a subscription with the policy `block` holds this publisher back. `Released` tells when none does."""
        return self._holds.is_held(source)

    def hold(self, holder: Hashable, source: Source, outputs: list[Output]) -> None:
        """Hold a publisher back until `release(holder)`."""
        if self._holds.hold(holder, source):
            outputs.append(Held(source))

    def release(self, holder: Hashable, outputs: list[Output]) -> None:
        outputs.extend([Released(source) for source in self._holds.release(holder)])

    def pause(self, key: Hashable, filter: str) -> None:
        """Another node has a full subscription: hold back who publishes, from now on, what matches this filter."""
        self._paused.add(key, filter)

    def resume(self, key: Hashable, filter: str, outputs: list[Output]) -> None:
        """End what `pause` of the same arguments began."""
        self._paused.discard(key, filter)
        self.release((key, filter), outputs)

    def forget_source(self, source: Source) -> None:
        """The publisher has left."""
        self._holds.forget(source)

    def books(self) -> RoutingBooks:
        """Return the books as they are. Costs a step per subscription."""
        handed_over = self._settled.handed_over
        dropped = dict(self._settled.dropped)
        queued = 0
        for subscription in self._subscriptions:
            handed_over += subscription.handed_over
            queued += subscription.backlog.messages
            for reason, messages in subscription.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + messages
        return RoutingBooks(
            self._accepted,
            self._unmatched,
            self._deliveries,
            handed_over,
            dropped,
            queued,
            self._arrived,
            self._forwarded,
        )

    def _hold_paused(self, batch: Batch, outputs: list[Output]) -> None:
        if batch.source is not None:
            for holder in self._paused.holders(batch.body.topic):
                self.hold(holder, batch.source, outputs)

    def _share(self, group: Group, batch: Batch, start: int, stop: int, now: float, outputs: list[Output]) -> None:
        body = batch.body
        age_ms = _age_ms(batch, now)
        for run in group.share(start, stop, body.largest):
            count = run.stop - run.start
            size = body.total if count == body.count else sum(body.sizes[run.start : run.stop])
            sent = run.member.offer(batch, run.start, run.stop, size, now)
            if sent == count:
                named = run.member.named()
                outputs.append(Delivery(run.member.destination, batch, run.start, run.stop, named, age_ms))
            else:
                self._after_part(run.member, batch, run.start, sent, now, outputs)

    def _after_part(
        self, subscription: Subscription, batch: Batch, start: int, sent: int, now: float, outputs: list[Output]
    ) -> None:
        """Some messages of a batch did not leave at once: they wait, or were dropped."""
        if sent:
            named, age_ms = subscription.named(), _age_ms(batch, now)
            outputs.append(Delivery(subscription.destination, batch, start, start + sent, named, age_ms))
        if subscription.has_overflowed:
            pending = f"{subscription.pending} messages, {subscription.pending_size} bytes were pending"
            self._end(subscription, OVERFLOW, pending, outputs)
            return
        if batch.expires_at < math.inf:
            self._expiring[subscription] = None
        if subscription.is_full:
            self._full[subscription] = None
            if batch.source is not None:
                self.hold(subscription, batch.source.narrowed(subscription.filter), outputs)
        self._report_drops(subscription, outputs)

    def _report_drops(self, subscription: Subscription, outputs: list[Output]) -> None:
        if subscription.has_unreported_drops and not subscription.is_report_due:
            subscription.is_report_due = True
            outputs.append(DropsChanged(subscription))

    def _release_if_room(self, subscription: Subscription, outputs: list[Output]) -> None:
        if subscription.is_full and subscription.may_release():
            subscription.is_full = False
            del self._full[subscription]
            self.release(subscription, outputs)

    def _leave(self, subscription: Subscription, reason: str, now: float, outputs: list[Output]) -> None:
        if not subscription.is_open:
            return
        group = self._table.discard(subscription)
        subscription.expire(now)
        for each in subscription.close():
            if group is not None and group.members:
                self._share(group, each.batch, each.start, each.stop, now, outputs)
            elif self.gives_back and subscription.group is not None:
                part = each.batch.part(each.start, each.stop)
                part.envelope = part.envelope.changed(part.envelope.first, _age_ms(each.batch, now))
                part.arrived = now
                outputs.append(Orphaned(part, subscription.group, subscription.filter, reason))
            else:
                subscription.count_dropped(reason, each.count)
        self._settle(subscription, outputs)

    def _end(self, subscription: Subscription, reason: str, detail: str, outputs: list[Output]) -> None:
        """End a subscription for its policy; what waited is counted under the reason."""
        self._table.discard(subscription)
        for each in subscription.close():
            subscription.count_dropped(reason, each.count)
        self._settle(subscription, outputs)
        outputs.append(Ended(subscription, reason, detail))

    def _settle(self, subscription: Subscription, outputs: list[Output]) -> None:
        """Move the books of a subscription that has ended to those of all that have."""
        del self._subscriptions[subscription]
        self._expiring.pop(subscription, None)
        self._full.pop(subscription, None)
        self._settled.add(subscription)
        self.release(subscription, outputs)


def _delivery(subscription: Subscription, waiting: Waiting, now: float) -> Delivery:
    named, age_ms = subscription.named(), _age_ms(waiting.batch, now)
    return Delivery(subscription.destination, waiting.batch, waiting.start, waiting.stop, named, age_ms)


def _age_ms(batch: Batch, now: float) -> int:
    return batch.envelope.age_ms + int(1000 * (now - batch.arrived) + 0.5)
