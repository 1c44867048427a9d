"""A batch of one topic: under construction, and as the record that it becomes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from mypy_extensions import mypyc_attr

from quicbus import limits
from quicbus.values import make_structs

if TYPE_CHECKING:
    from quicbus.client.outgoing import Outgoing, Route

__all__ = ["MESSAGE_COST", "OpenBatch", "SealedBatch"]

MESSAGE_COST: Final = limits.BATCH_TARGET_SIZE // limits.BATCH_MAX_MESSAGES
"""Added to each message's size, so that one bound of a batch bounds its bytes and its count; at least the four bytes
that a message takes in the table of sizes."""
_SAME_MOMENT_S: Final = 0.01
"""Messages that expire share a batch, and with it one expiry, when they were published this close together."""
assert MESSAGE_COST >= 4


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class SealedBatch:
    """A record for a lane. `request` is the number of the request that it carries, or 0."""

    __slots__ = ("lane", "number", "record", "request")

    def __init__(self, lane: int, record: bytes, number: int, request: int) -> None:
        self.lane = lane
        self.record = record
        self.number = number
        self.request = request


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class OpenBatch:
    """A batch under construction: a message, and those that follow it.

    With its `Route` it is part of a cycle until it leaves the queue of its publisher, which cuts that.
    """

    __slots__ = (
        "base_cost",
        "deadline",
        "expires_in_ms",
        "first",
        "flags",
        "following",
        "index",
        "is_plain",
        "largest",
        "opened",
        "reply_to",
        "request",
        "room",
        "route",
    )

    def __init__(
        self,
        route: Route,
        first: bytes,
        room: int,
        index: int,
        base_cost: int,
        is_plain: bool = True,
        following: list[bytes] | None = None,
        opened: float = 0.0,
        largest: int = 0,
        flags: int = 0,
        reply_to: bytes = b"",
        expires_in_ms: int = 0,
        request: int = 0,
        deadline: float | None = None,
    ) -> None:
        self.route = route
        self.first = first
        self.following = following
        """Where there is a second message: with many topics there is none, and lists are what the collector visits."""
        self.room = room
        self.index = index
        self.base_cost = base_cost
        self.is_plain = is_plain
        """Nothing but a payload may join it."""
        self.opened = opened
        self.largest = largest
        self.flags = flags
        self.reply_to = reply_to
        self.expires_in_ms = expires_in_ms
        self.request = request
        self.deadline = deadline

    @classmethod
    def of(cls, first: Outgoing, index: int, now: float) -> OpenBatch:
        """Return one for a message and what may go with it."""
        route, data = first.route, first.data
        room = limits.BATCH_TARGET_SIZE - len(data) - MESSAGE_COST
        batch = cls(route, data, room, index, route.base_cost + len(first.reply_to))
        batch.is_plain = not (first.flags or first.reply_to or first.expires_in_ms)
        batch.opened = now
        batch.largest = first.payload_size
        batch.flags = first.flags
        batch.reply_to = first.reply_to
        batch.expires_in_ms = first.expires_in_ms
        batch.request = first.request
        batch.deadline = now + first.expires_in_ms / 1000 if first.expires_in_ms else None
        return batch

    @property
    def cost(self) -> int:
        """At least the bytes of its record."""
        return self.base_cost + limits.BATCH_TARGET_SIZE - self.room

    @property
    def count(self) -> int:
        following = self.following
        return 1 if following is None else 1 + len(following)

    @property
    def messages(self) -> list[bytes]:
        """All of them, in a list of their own."""
        return [self.first, *(self.following or ())]

    def add(self, data: bytes) -> None:
        """Let a message follow that is within `room`, its `MESSAGE_COST` included."""
        self.room -= len(data) + MESSAGE_COST
        if self.following is None:
            self.following = [data]
        else:
            self.following.append(data)

    def largest_payload(self) -> int:
        """`append` does not keep `largest` up to date; its messages have no headers, so that their size is known."""
        return self.largest if self.flags else max(map(len, self.messages))

    def cut(self, count: int) -> OpenBatch:
        """Keep the first `count` messages, fewer than there are; return a batch like this one with the others."""
        messages = self.messages
        rest = OpenBatch(
            self.route,
            messages[count],
            0,
            self.index,
            self.base_cost,
            self.is_plain,
            messages[count + 1 :] or None,
            self.opened,
            self.largest,
            self.flags,
            self.reply_to,
            self.expires_in_ms,
            self.request,
            self.deadline,
        )
        self.following = messages[1:count] or None
        for batch in (self, rest):
            batch.room = limits.BATCH_TARGET_SIZE - sum(map(len, batch.messages)) - MESSAGE_COST * batch.count
        return rest

    def takes(self, message: Outgoing, now: float) -> bool:
        return (
            self.room >= len(message.data) + MESSAGE_COST
            and self.flags == message.flags
            and self.reply_to == message.reply_to
            and self.expires_in_ms == message.expires_in_ms
            and not (self.request or message.request)
            and (not self.expires_in_ms or now - self.opened < _SAME_MOMENT_S)
        )


make_structs(globals(), SealedBatch, OpenBatch)
