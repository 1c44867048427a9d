"""One subscription at the broker: its window, what waits for it, its overflow policy, its books.

Sent at once is what fits the window while nothing waits; the rest waits here. Waiting and on its way together are at
most `max_pending` messages and `max_pending_size` bytes; a message larger than that passes when it is alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from quicbus.exceptions import ProtocolViolation
from quicbus_broker.routing.backlog import Backlog, Waiting, fitting
from quicbus_broker.routing.output_room import OutputRoom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.routing.outputs import Batch, Destination

__all__ = [
    "BLOCK_TIMEOUT",
    "DISCONNECTED",
    "EXPIRED",
    "NOT_PERMITTED",
    "NO_MEMBER",
    "OVERFLOW",
    "UNSUBSCRIBED",
    "Overflow",
    "Subscription",
    "SubscriptionOptions",
]

OVERFLOW: Final = "overflow"
BLOCK_TIMEOUT: Final = "block_timeout"
EXPIRED: Final = "expired"
NO_MEMBER: Final = "no_member"
NOT_PERMITTED: Final = "not_permitted"
UNSUBSCRIBED: Final = "unsubscribed"
DISCONNECTED: Final = "disconnected"


# A subscription that keeps up, as nearly all do, needs none of its own.
_NOTHING_WAITS: Final = Backlog()
_NOTHING_DROPPED: Final[dict[str, int]] = {}
_NEVER: Final = -math.inf


class Overflow(StrEnum):
    """What happens to messages for a subscription that is full."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    BLOCK = "block"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """What a subscriber asked for. `window_*` bound what is on its way, `max_pending*` all of it."""

    overflow: Overflow
    max_pending: int
    max_pending_size: int
    window_messages: int
    window_size: int


class Subscription:
    """`handed_over` and `consumed` count messages, `dropped` messages by reason. All only grow."""

    __slots__ = (
        "_named",
        "_reported",
        "_window_messages",
        "_window_size",
        "backlog",
        "consumed",
        "consumed_size",
        "destination",
        "dropped",
        "dropped_total",
        "filter",
        "group",
        "handed_over",
        "handed_over_size",
        "has_overflowed",
        "id",
        "is_full",
        "is_open",
        "is_report_due",
        "options",
        "output",
        "progress_at",
    )

    def __init__(
        self,
        destination: Destination,
        id: int,
        filter: str,
        group: str | None,
        options: SubscriptionOptions,
        output: OutputRoom | None = None,
    ) -> None:
        """`output`: the destination's, for all of its subscriptions; without it there is room for everything."""
        self.output = output or OutputRoom()
        self.destination = destination
        self.id = id
        self.filter = filter
        self.group = group
        self.options = options
        self.is_open = True
        self.handed_over = 0
        self.handed_over_size = 0
        self.consumed = 0
        self.consumed_size = 0
        self.dropped = _NOTHING_DROPPED
        self.dropped_total = 0
        self.is_report_due = False
        """Its destination was told that there are drops to report, and has not reported them yet."""
        self._reported = 0
        self._named: Sequence[tuple[int, int]] = ()
        self.backlog = _NOTHING_WAITS
        self.has_overflowed = False
        """The policy `disconnect` was met: the subscription must be ended."""
        self.is_full = False
        """The policy `block` was met: publishers are held back until half of what is pending was consumed."""
        self.progress_at = _NEVER
        """When it became full, or was last seen to consume since."""
        # What handed_over may reach: the window moves on as the subscriber consumes.
        self._window_messages = options.window_messages
        self._window_size = options.window_size

    @property
    def outstanding(self) -> int:
        """Messages handed over and not yet consumed."""
        return self.handed_over - self.consumed

    @property
    def pending(self) -> int:
        """Messages waiting here or on their way."""
        return self.handed_over - self.consumed + self.backlog.messages

    @property
    def pending_size(self) -> int:
        return self.handed_over_size - self.consumed_size + self.backlog.size

    def named(self) -> Sequence[tuple[int, int]]:
        """Return what a delivery says of it: id and messages dropped so far. The same object until more are dropped."""
        if not self._named:
            self._named = ((self.id, self.dropped_total),)
        return self._named

    def offer(self, batch: Batch, start: int, stop: int, size: int, now: float) -> int:
        """Take messages of `size` bytes; returns how many, from `start` on, are to be sent now.

        The rest waits or is dropped by the policy. `has_overflowed` and `is_full` may be set by it.
        """
        sent = self.handed_over + stop - start
        if sent <= self._window_messages and not self.backlog.messages:
            sent_size = self.handed_over_size + size
            output = self.output
            if sent_size <= self._window_size and output.size < output.allowed:
                output.size += size
                self.handed_over = sent
                self.handed_over_size = sent_size
                return stop - start
        return self._offer_part(batch, start, stop, size, now)

    def consume(self, messages: int, size: int, now: float) -> None:
        """Move the window on: the subscriber has consumed so much in all. Raises `ProtocolViolation`."""
        if not self.consumed <= messages <= self.handed_over or not self.consumed_size <= size <= self.handed_over_size:
            raise ProtocolViolation(
                f"credit of subscription {self.id} for {messages} messages, {size} bytes, "
                f"between {self.consumed}, {self.consumed_size} and {self.handed_over}, {self.handed_over_size}"
            )
        if messages > self.consumed:
            self.progress_at = now
        self.consumed = messages
        self.consumed_size = size
        self._window_messages = messages + self.options.window_messages
        self._window_size = size + self.options.window_size

    def take_ready(self, now: float) -> list[Waiting]:
        """Take out of the backlog what the window allows."""
        backlog = self.backlog
        ready: list[Waiting] = []
        if not backlog.messages:
            return ready
        self.expire(now)
        while backlog.messages:
            if self.output.is_full:
                self.output.has_waiting = True
                break
            taken = backlog.take(
                self._window_messages - self.handed_over,
                self._window_size - self.handed_over_size,
                at_least_one=self.handed_over == self.consumed,
            )
            if taken is None:
                break
            self.handed_over += taken.count
            self.handed_over_size += taken.size
            self.output.size += taken.size
            ready.append(taken)
        if not backlog.messages:
            self.backlog = _NOTHING_WAITS
        return ready

    def expire(self, now: float) -> int:
        """Drop what waited too long; returns the number of messages."""
        if now < self.backlog.next_expiry():
            return 0
        expired = self.backlog.expire(now)
        if expired:
            self.count_dropped(EXPIRED, expired)
        return expired

    def may_release(self) -> bool:
        """Whether a full subscription has room again: half of what may be pending."""
        options = self.options
        return self.pending <= options.max_pending // 2 and self.pending_size <= options.max_pending_size // 2

    def close(self) -> list[Waiting]:
        """End it; returns what was waiting, which the caller gives to others or counts as dropped."""
        self.is_open = False
        waiting, self.backlog = self.backlog, _NOTHING_WAITS
        return waiting.clear()

    def count_dropped(self, reason: str, messages: int) -> None:
        if self.dropped is _NOTHING_DROPPED:
            self.dropped = {}
        self.dropped[reason] = self.dropped.get(reason, 0) + messages
        self.dropped_total += messages
        self._named = ()

    @property
    def has_unreported_drops(self) -> bool:
        return self.dropped_total != self._reported

    def drops_reported(self) -> None:
        """The subscriber was told the totals as they are."""
        self.is_report_due = False
        self._reported = self.dropped_total

    def room(self) -> int:
        """How many more messages may be pending; 0 or less: none."""
        options = self.options
        if self.pending_size >= options.max_pending_size and self.pending:
            return 0
        return options.max_pending - self.pending

    def _offer_part(self, batch: Batch, start: int, stop: int, size: int, now: float) -> int:
        ready = 0
        if not self.backlog.messages:
            ready = self._send_first(batch, start, stop)
            if ready:
                start += ready
                size = sum(batch.body.sizes[start:stop])
            if start == stop:
                return ready
        self.expire(now)
        match self.options.overflow:
            case Overflow.DROP_OLDEST:
                self._wait(batch, start, stop, size)
                self._drop_oldest()
            case Overflow.DROP_NEWEST:
                self._keep_fitting(batch, start, stop)
            case Overflow.BLOCK:
                self._wait(batch, start, stop, size)
                if not self.is_full and self.room() <= 0:
                    self.is_full = True
                    self.progress_at = now
            case Overflow.DISCONNECT:
                self._wait(batch, start, stop, size)
                options = self.options
                self.has_overflowed = self.pending > options.max_pending or self.pending_size > options.max_pending_size
        return ready

    def _send_first(self, batch: Batch, start: int, stop: int) -> int:
        """Send what fits the window, and one message of any size when nothing is on its way."""
        if self.output.is_full:
            self.output.has_waiting = True
            return 0
        sizes = batch.body.sizes
        messages = self._window_messages - self.handed_over
        count, size = fitting(sizes, start, stop, messages, self._window_size - self.handed_over_size)
        if not count and self.handed_over == self.consumed and messages > 0:
            count, size = 1, sizes[start]
        self.handed_over += count
        self.handed_over_size += size
        self.output.size += size
        return count

    def _wait(self, batch: Batch, start: int, stop: int, size: int) -> None:
        if self.backlog is _NOTHING_WAITS:
            self.backlog = Backlog()
        self.backlog.append(batch, start, stop, size)

    def _drop_oldest(self) -> None:
        # Something is always on its way while messages wait, so a message of any size passes when it is alone.
        options = self.options
        while True:
            messages = self.pending - options.max_pending
            size = self.pending_size - options.max_pending_size
            if messages <= 0 and size <= 0:
                return
            dropped = self.backlog.drop(messages, size)
            if dropped is None:
                return
            self.count_dropped(OVERFLOW, dropped.count)

    def _keep_fitting(self, batch: Batch, start: int, stop: int) -> None:
        options = self.options
        messages = options.max_pending - self.pending
        count, size = fitting(batch.body.sizes, start, stop, messages, options.max_pending_size - self.pending_size)
        if count:
            self._wait(batch, start, start + count, size)
        if start + count < stop:
            self.count_dropped(OVERFLOW, stop - start - count)
