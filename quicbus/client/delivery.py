"""From records to messages: the inbox of a subscription, its credit and its books. Pure.

A subscription outlives its connections. What belongs to one connection is a `Leg`: the id, what arrived, what was
consumed and reported as credit, what the broker dropped. The `Inbox` holds what arrived over any leg and is not read.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import count, repeat
from typing import TYPE_CHECKING, Final, final

from mypy_extensions import mypyc_attr

from quicbus.client.message import BatchContext, Message, Replier
from quicbus.exceptions import ProtocolViolation
from quicbus.values import make_structs
from quicbus.wire.batch import FLAG_HEADERS, Body, decode_headers, read_messages, split_headers

if TYPE_CHECKING:
    from quicbus.wire.frames import SubscriptionClosed
    from quicbus.wire.records import Envelope

__all__ = ["Arrival", "Inbox", "InboxBooks", "Leg"]

REFILL_MESSAGES: Final = 64
"""Small batches are decoded together up to this, and an eighth of the window: they count as consumed together."""


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class Arrival:
    """A parsed batch for one or more subscriptions; its messages are made when the application comes to them."""

    __slots__ = ("body", "envelope")

    def __init__(self, body: Body, envelope: Envelope) -> None:
        self.body: Final = body
        self.envelope: Final = envelope


make_structs(globals(), Arrival, frozen=True)


class Leg:
    """A subscription within one connection."""

    __slots__ = (
        "arrived",
        "bus",
        "closed",
        "confirmed",
        "consumed",
        "consumed_size",
        "dropped",
        "dropped_total",
        "id",
        "inbox",
        "largest_message",
        "reported",
        "reported_size",
        "reports_all",
    )

    def __init__(self, id: int, inbox: Inbox, bus: Replier, largest_message: int = 0) -> None:
        self.id = id
        self.bus = bus
        self.inbox = inbox
        self.confirmed = False
        self.arrived = 0
        self.consumed = 0
        self.consumed_size = 0
        self.reported = 0
        self.reported_size = 0
        self.dropped: dict[str, int] = {}
        self.dropped_total = 0
        self.closed: SubscriptionClosed | None = None
        self.largest_message = largest_message
        """Bytes of the largest message, headers included, that the broker may want to send."""
        self.reports_all = False
        """The broker goes away: it waits to hear that what it sent was consumed, however little that is."""

    @property
    def is_finished(self) -> bool:
        """The broker has ended it and all that it sent has arrived: lanes may come behind the control stream."""
        return self.closed is not None and self.arrived >= self.closed.handed_over

    def broker_dropped(self) -> int:
        return max(self.dropped_total, sum(self.dropped.values()))


@dataclass(frozen=True, slots=True)
class InboxBooks:
    """Counts of one subscription over all its connections. `received` holds what was read and what is `pending`."""

    received: int
    pending: int
    dropped_by_broker: dict[str, int]
    dropped_here: dict[str, int]


class Inbox:
    """`ready` holds decoded messages; take from its left and call `finished` once it is empty."""

    def __init__(self, window_messages: int, window_size: int) -> None:
        self.window_messages = window_messages
        self.window_size = window_size
        self.ready: deque[Message] = deque()
        self.leg: Leg | None = None
        self.arrived = 0
        self._queue: deque[Arrival] = deque()
        self._legs: deque[Leg] = deque()
        """Over which each of `_queue` came."""
        self._queued = 0
        self._current: Leg | None = None
        """Over which `ready` came: so much counts as consumed with the last of it."""
        self._current_messages = 0
        self._current_size = 0
        self._refill_messages = min(REFILL_MESSAGES, window_messages // 8)
        self._refill_size = window_size // 8
        self._dropped_here: Counter[str] = Counter()
        self._past_drops: Counter[str] = Counter()
        self._is_closed = False

    @property
    def pending(self) -> int:
        return len(self.ready) + self._queued

    @property
    def dropped(self) -> int:
        now = self.leg.broker_dropped() if self.leg else 0
        return self._dropped_here.total() + self._past_drops.total() + now

    def books(self) -> InboxBooks:
        by_broker = self._past_drops + Counter(self.leg.dropped if self.leg else {})
        here = dict(self._dropped_here)
        return InboxBooks(self.arrived - self._dropped_here.total(), self.pending, dict(by_broker), here)

    def begin(self, leg: Leg) -> None:
        """A new connection carries the subscription from here on."""
        self.end()
        self.leg = leg

    def end(self) -> None:
        """The connection of the current leg is gone; what has arrived stays readable."""
        leg, self.leg = self.leg, None
        if leg is not None:
            self._past_drops.update(leg.dropped)
            unexplained = leg.broker_dropped() - sum(leg.dropped.values())
            if unexplained:
                self._past_drops["unexplained"] += unexplained

    def take(self, leg: Leg, arrival: Arrival) -> None:
        """Take a batch in. Its messages count as received until they turn out to be undecodable."""
        number = arrival.body.count
        leg.arrived += number
        self.arrived += number
        if self._is_closed:
            self._dropped_here["unsubscribed"] += number
            self._consume(leg, arrival.body)
            return
        self._queue.append(arrival)
        self._legs.append(leg)
        self._queued += number
        # Two windows can only be exceeded by what earlier connections left behind.
        while self._queued > 2 * self.window_messages and self._legs[0] is not leg:
            self._drop_oldest()

    def refill(self) -> bool:
        """Decode a batch, or several small ones, into `ready`, which must be empty; False when nothing has arrived."""
        queue, ready = self._queue, self.ready
        while queue:
            count = self._decode_some()
            if len(ready) < count:
                self._dropped_here["undecodable"] += count - len(ready)
            if ready:
                return True
            self.finished()
        return False

    def _decode_some(self) -> int:
        """Decode what came over one leg, as much as counts as consumed together; returns its number of messages."""
        queue, legs, ready = self._queue, self._legs, self.ready
        leg = self._current = legs[0]
        bus = leg.bus
        count = size = 0
        while queue and legs[0] is leg and (not count or (count < self._refill_messages and size < self._refill_size)):
            legs.popleft()
            arrival = queue.popleft()
            body = arrival.body
            count += body.count
            size += body.total
            if body.count > 1 or body.flags or body.reply_to:
                ready += _decode(body, arrival.envelope, bus)
                continue
            try:
                context = BatchContext(body.topic.decode(), None, arrival.envelope, bus)
            except UnicodeDecodeError:
                continue
            ready.append(Message(context, arrival.envelope.first, body.raw[body.messages_start :]))
        self._queued -= count
        self._current_messages = count
        self._current_size = size
        return count

    def finished(self) -> bool:
        """The last of `ready` was taken: count it as consumed; True when credit should be reported."""
        leg, self._current = self._current, None
        if leg is None:
            return False
        leg.consumed += self._current_messages
        leg.consumed_size += self._current_size
        return self.is_credit_due()

    def is_credit_due(self) -> bool:
        """True when a quarter of the window was consumed since the last report, or the broker waits for less.

        It waits where what was not reported leaves no room for the largest message (docs/protocol.md, "Credit").
        """
        leg = self.leg
        if leg is None or leg.closed is not None:
            return False
        messages = leg.consumed - leg.reported
        size = leg.consumed_size - leg.reported_size
        return (
            messages >= max(1, self.window_messages // 4)
            or size >= self.window_size // 4
            or (messages > 0 and (leg.reports_all or size + leg.largest_message > self.window_size))
        )

    def close(self) -> int:
        """Drop what is not read, counted as `unsubscribed`, and whatever still comes; returns how many went."""
        gone = self.pending
        if gone:
            self._dropped_here["unsubscribed"] += gone
        self._is_closed = True
        self.ready.clear()
        self._queue.clear()
        self._legs.clear()
        self._queued = 0
        self._current = None
        return gone

    def _consume(self, leg: Leg, body: Body) -> None:
        leg.consumed += body.count
        leg.consumed_size += body.total

    def _drop_oldest(self) -> None:
        leg, arrival = self._legs.popleft(), self._queue.popleft()
        self._queued -= arrival.body.count
        self._dropped_here["overflow"] += arrival.body.count
        self._consume(leg, arrival.body)


def _decode(body: Body, envelope: Envelope, bus: Replier) -> list[Message]:
    """Return the messages of a batch that can be decoded."""
    try:
        topic = body.topic.decode()
        reply_to = body.reply_to.decode() if body.reply_to else None
    except UnicodeDecodeError:
        return []
    context = BatchContext(topic, reply_to, envelope, bus)
    if body.flags & FLAG_HEADERS:
        return _decode_with_headers(body, envelope.first, context)
    return list(map(Message, repeat(context), count(envelope.first), read_messages(body)))


def _decode_with_headers(body: Body, first: int, context: BatchContext) -> list[Message]:
    messages: list[Message] = []
    for index, raw in enumerate(read_messages(body), first):
        try:
            encoded, payload = split_headers(raw)
            messages.append(Message(context, index, payload, decode_headers(encoded)))
        except ProtocolViolation:
            continue
    return messages
