"""What one client subscribes to: its subscriptions by id, and the deliveries to it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from quicbus import limits
from quicbus.exceptions import InvalidTopic, ProtocolViolation
from quicbus.topics import check_filter, check_group, filter_size
from quicbus.wire.batch import slice_body
from quicbus.wire.frames import Subscribed, SubscriptionClosed, SubscriptionDropped
from quicbus.wire.records import encode_delivery_front, encode_subscriptions
from quicbus_broker.edge.lanes import NoLanes, OutgoingLanes
from quicbus_broker.permissions import Action
from quicbus_broker.routing import OutputRoom, Overflow, Subscription, SubscriptionOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.transport.connection import Connection
    from quicbus.wire.frames import Subscribe, SubscriptionCredit
    from quicbus_broker.edge.control import ControlStream
    from quicbus_broker.edge.edge_limits import EdgeLimits
    from quicbus_broker.edge.exchange import Exchange
    from quicbus_broker.edge.permissions import Permissions
    from quicbus_broker.edge.turns import Turns
    from quicbus_broker.routing import Delivery

__all__ = ["Subscriber"]

_MAX_ID: Final = 0xFFFF_FFFF
_MAX_WINDOW_SIZE: Final = limits.SUBSCRIPTION_WINDOW_SIZE
_POLICIES: Final = {policy.value: policy for policy in Overflow}


class Subscriber:
    """One session's subscribing side. A `routing.Destination`."""

    def __init__(
        self,
        connection: Connection,
        control: ControlStream,
        exchange: Exchange,
        edge_limits: EdgeLimits,
        permissions: Permissions,
    ) -> None:
        self.lanes: OutgoingLanes = OutgoingLanes(connection)
        self.subscriptions: dict[int, Subscription] = {}
        self._connection = connection
        self._control = control
        self._exchange = exchange
        self._limits = edge_limits
        self._permissions = permissions
        self._drops_to_report: list[Subscription] = []
        self._left: dict[int, Subscription] = {}
        self._filters_size = 0
        self._output = OutputRoom(edge_limits.max_unread_size)
        self._is_output_full = False
        self._served_last = 0
        self._named: Sequence[tuple[int, int]] = ()
        self._table = b""
        """Of a Message record, for the subscriptions that were named last."""

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits here for the client."""
        return not any(each.backlog.messages for each in self.subscriptions.values())

    @property
    def has_outstanding(self) -> bool:
        """Whether messages are on their way, or consumed and not reported yet."""
        return any(each.outstanding for each in self.subscriptions.values())

    def subscribe(self, frame: Subscribe) -> None:
        """Begin a subscription, or tell why not; raises `ProtocolViolation` where the frame cannot be meant."""
        options = self._options(frame)
        refusal = self._refusal(frame)
        if refusal is not None:
            self._control.write(refusal)
            return
        subscription = Subscription(self, frame.id, frame.filter, frame.group, options, self._output)
        self.subscriptions[frame.id] = subscription
        self._filters_size += filter_size(frame.filter, frame.group)
        self._exchange.subscribe(subscription)
        self._control.write(Subscribed(id=frame.id))

    def unsubscribe(self, id: int) -> None:
        """End a subscription. One that is not known was ended from here while the frame was on its way."""
        subscription = self.subscriptions.pop(id, None)
        if subscription is not None:
            self._filters_size -= filter_size(subscription.filter, subscription.group)
            self._exchange.unsubscribe(subscription)
            self._control.write(_closed(subscription, "unsubscribed", ""))

    def credit(self, frame: SubscriptionCredit) -> None:
        """Move a window on; raises `ProtocolViolation` where more was consumed than sent."""
        subscription = self.subscriptions.get(frame.id)
        if subscription is not None:
            self._exchange.credit(subscription, frame.messages, frame.size)

    def deliver(self, delivery: Delivery, front: bytes) -> None:
        batch = delivery.batch
        body = batch.body
        if not front:
            if delivery.stop - delivery.start != body.count:
                body = slice_body(body, delivery.start, delivery.stop)
            envelope = batch.envelope
            if delivery.start or delivery.age_ms != envelope.age_ms:
                envelope = envelope.changed(envelope.first + delivery.start, delivery.age_ms)
            front = encode_delivery_front(envelope, len(delivery.subscriptions), len(body.raw))
        if delivery.subscriptions is not self._named:
            self._named = delivery.subscriptions
            self._table = encode_subscriptions(self._named)
        self.lanes.write(body.topic, front, self._table, body.raw)

    def drops_changed(self, subscription: Subscription) -> None:
        if not self._drops_to_report:
            self._connection.transmit_soon()
        self._drops_to_report.append(subscription)

    def subscription_ended(self, subscription: Subscription, reason: str, detail: str) -> None:
        if self.subscriptions.pop(subscription.id, None) is None:
            return  # it is about to `leave`
        self._filters_size -= filter_size(subscription.filter, subscription.group)
        self._control.write(_closed(subscription, reason, detail))

    def before_transmit(self) -> None:
        """Write what this turn brought; raises `LimitExceeded` where the client allows too few streams."""
        if self._output.wants_measure():
            self._measure_output()
        if self._drops_to_report:
            subscriptions, self._drops_to_report = self._drops_to_report, []
            for subscription in subscriptions:
                if subscription.is_open:
                    subscription.drops_reported()
                    self._control.write(SubscriptionDropped(id=subscription.id, dropped=subscription.dropped))
        self.lanes.flush()

    def _measure_output(self) -> None:
        """Find out what the client's network has not taken: in each turn, thus also when it takes something."""
        output = self._output
        if output.has_waiting and not self._is_output_full:
            self._exchange.limit_hits["max_unread_size"] += 1
        if output.measured(self._connection.unsent_size + self.lanes.gathered_size):
            # Who was served last time comes last, or the first ones would take all the room again and again.
            turn = sorted(self.subscriptions, key=lambda id: (id <= self._served_last, id))
            waiting = [self.subscriptions[id] for id in turn if self.subscriptions[id].backlog.messages]
            self._exchange.output_has_room(waiting)
            self._served_last = next((each.id for each in waiting if each.backlog.messages), 0) - 1
        self._is_output_full = output.has_waiting

    def permissions_changed(self) -> None:
        """End the subscriptions that are no longer permitted."""
        for subscription in list(self.subscriptions.values()):
            if not self._permissions.may_subscribe(subscription.filter):
                self._exchange.revoke(subscription)

    def closed(self) -> None:
        """The connection is gone: all subscriptions end with `leave`, and what is for them until then is lost."""
        self._left, self.subscriptions = self.subscriptions, {}
        self.lanes = NoLanes(self._connection)

    def leave(self, turns: Turns) -> bool:
        """After `closed`: end subscriptions for one slice; tells whether that were all."""
        left, end = self._left, turns.slice_end()
        while left:
            self._exchange.disconnect(left.popitem()[1])
            if turns.clock() >= end:
                break
        return not left

    def _options(self, frame: Subscribe) -> SubscriptionOptions:
        overflow = _POLICIES.get(frame.overflow)
        if overflow is None:
            raise ProtocolViolation(f"Subscribe: {frame.overflow!r:.40} is no overflow policy")
        if not 0 < frame.id <= _MAX_ID or frame.id in self.subscriptions:
            raise ProtocolViolation(f"Subscribe: id {frame.id} is in use or out of range")
        if min(frame.max_pending, frame.max_pending_size, frame.window_messages, frame.window_size) < 1:
            raise ProtocolViolation("Subscribe: max_pending, max_pending_size and the window are at least 1")
        # Never less than was asked for: the client reports what it consumed by quarters of its window.
        if frame.window_messages > limits.SUBSCRIPTION_WINDOW_MESSAGES or frame.window_size > _MAX_WINDOW_SIZE:
            raise ProtocolViolation("Subscribe: the window is larger than a broker allows")
        return _options_of(
            overflow, frame.max_pending, frame.max_pending_size, frame.window_messages, frame.window_size
        )

    def _refusal(self, frame: Subscribe) -> SubscriptionClosed | None:
        try:
            check_filter(frame.filter)
            if frame.group is not None:
                check_group(frame.group)
        except InvalidTopic as error:
            return SubscriptionClosed(id=frame.id, reason="invalid", detail=str(error))
        if not self._permissions.may_subscribe(frame.filter):
            self._exchange.denials.add(self._permissions.who, Action.SUBSCRIBE, frame.filter)
            return SubscriptionClosed(id=frame.id, reason="not_permitted", detail=frame.filter[:200])
        bounds = (
            ("max_filter_size", len(frame.filter.encode()), self._limits.max_filter_size),
            ("max_subscriptions", len(self.subscriptions) + 1, self._limits.max_subscriptions),
            (
                "max_filters_size",
                self._filters_size + filter_size(frame.filter, frame.group),
                self._limits.max_filters_size,
            ),
            ("max_pending", frame.max_pending, self._limits.max_pending),
            ("max_pending_size", frame.max_pending_size, self._limits.max_pending_size),
        )
        for limit, wanted, allowed in bounds:
            if wanted > allowed:
                self._exchange.limit_hits[limit] += 1
                return SubscriptionClosed(id=frame.id, reason="limit", limit=limit, current=wanted, allowed=allowed)
        return None


@lru_cache(maxsize=256)
def _options_of(
    overflow: Overflow, max_pending: int, max_pending_size: int, window_messages: int, window_size: int
) -> SubscriptionOptions:
    """Subscriptions that ask for the same share one record of it."""
    return SubscriptionOptions(
        overflow=overflow,
        max_pending=max_pending,
        max_pending_size=max_pending_size,
        window_messages=window_messages,
        window_size=window_size,
    )


def _closed(subscription: Subscription, reason: str, detail: str) -> SubscriptionClosed:
    return SubscriptionClosed(
        id=subscription.id,
        reason=reason,
        detail=detail,
        handed_over=subscription.handed_over,
        dropped=subscription.dropped,
    )
