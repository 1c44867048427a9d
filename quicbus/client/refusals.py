"""What became of published messages that the broker did not take, as `flush` reports it. Pure."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.client.permitted import Permitted
from quicbus.exceptions import ConnectionLost, LimitExceeded, MessageTooLarge, NotPermitted, PublishRefused

if TYPE_CHECKING:
    from quicbus.exceptions import QuicbusError
    from quicbus.wire.frames import Refused

__all__ = ["Refusals"]


class Refusals:
    """`counts` holds all refusals since the client began; `take_failure` what came since it was last called."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.permitted = Permitted()
        """Of the session that carries the publisher."""
        self._tracked: deque[tuple[str, int]] = deque(maxlen=limits.TRACKED_BATCHES)
        """Topic and largest message of the newest batches, which are numbered one after another."""
        self._newest = 0
        self._new: Counter[str] = Counter()
        self._new_lost = 0
        self._first: tuple[str, int, Refused | None] | None = None
        self._retry_after_s: float | None = None
        """As it was said last."""

    def new_session(self) -> None:
        self._tracked.clear()
        self.permitted = Permitted()

    def track(self, number: int, topic: str, largest: int) -> None:
        """Remember the topic of a batch; the oldest are forgotten, and their refusal names no topic."""
        self._newest = number
        self._tracked.append((topic, largest))

    def add(self, frame: Refused) -> str:
        """Count what the broker refused; returns the topic, empty where it is not known."""
        age = self._newest - frame.number
        topic, largest = self._tracked[-1 - age] if 0 <= age < len(self._tracked) else ("", 0)
        if frame.reason == "not_permitted" and topic:
            self.permitted.refused(topic)
        self._count(frame.reason, frame.messages, (topic, largest, frame))
        if frame.retry_after_s is not None:
            self._retry_after_s = frame.retry_after_s
        return topic

    def refuse_here(self, topic: str, largest: int, messages: int) -> None:
        """The broker that was reached takes less than the one that the messages were published for."""
        self._count("too_large", messages, (topic, largest, None))

    def lost(self, messages: int) -> None:
        self._new_lost += messages

    def take_failure(self, max_message_size: int, max_publish_rate: int = 0) -> QuicbusError | None:
        """Return what `flush` raises, and begin anew."""
        new, self._new = self._new, Counter()
        first, self._first = self._first, None
        lost, self._new_lost = self._new_lost, 0
        retry_after_s, self._retry_after_s = self._retry_after_s, None
        if first is None:
            if lost:
                return ConnectionLost(f"{lost} published messages were on their way and are possibly lost")
            return None
        topic, largest, frame = first
        if set(new) == {"not_permitted"}:
            return NotPermitted("publish", topic)
        if set(new) == {"too_large"}:
            return MessageTooLarge(largest, max_message_size)
        if set(new) == {"rate"} and frame is not None and frame.limit:
            return LimitExceeded(frame.limit, frame.current, frame.allowed, retry_after_s)
        if set(new) == {"rate"} and frame is not None and max_publish_rate:
            # The broker lets a second's worth pass and refuses what comes on top.
            return LimitExceeded("max_publish_rate", max_publish_rate + new.total(), max_publish_rate, retry_after_s)
        detail = frame.detail if frame else ""
        if lost:
            detail = f"{detail}; {lost} more are possibly lost".lstrip("; ")
        return PublishRefused(new, detail, retry_after_s)

    def _count(self, reason: str, messages: int, about: tuple[str, int, Refused | None]) -> None:
        self.counts[reason] += messages
        self._new[reason] += messages
        if self._first is None:
            self._first = about
