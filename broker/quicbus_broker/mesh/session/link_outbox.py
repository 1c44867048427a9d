"""What waits to be sent to one neighbour: bundles in order, in the window that the neighbour moves on by LinkTaken."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import peek_body
from quicbus.wire.bundles import KIND_BROADCAST, bundle_parts, encode_record_front, encode_signature

if TYPE_CHECKING:
    from quicbus.wire.bundles import Bundle

__all__ = ["LinkOutbox", "lane_of"]


class _Entry:
    __slots__ = ("bundle", "number", "parts", "queued_at", "size", "waits")

    def __init__(self, number: int, bundle: Bundle, waits: bool, now: float) -> None:
        self.number = number
        self.bundle = bundle
        self.waits = waits
        self.queued_at = now
        # The bytes as they came, where it is passed on; what is broadcast was encoded once, to be signed.
        self.parts = [bundle.signed] if bundle.signed else bundle_parts(bundle)
        self.size = sum(map(len, self.parts)) + len(bundle.signature)

    def aged(self, now: float) -> Bundle:
        age_ms = self._age_ms(now)
        return self.bundle if age_ms == self.bundle.age_ms else msgspec.structs.replace(self.bundle, age_ms=age_ms)

    def record(self, now: float) -> list[bytes]:
        """Return the record in parts: bodies are not copied here."""
        bundle = self.bundle
        signature = encode_signature(bundle.signature)
        size = self.size - len(bundle.signature)
        return [encode_record_front(bundle, size, self._age_ms(now)), *self.parts, signature]

    def _age_ms(self, now: float) -> int:
        return self.bundle.age_ms + max(0, round(1000 * (now - self.queued_at)))


class LinkOutbox:
    """Bounded: over `queue_size` bytes the oldest bundle goes, over `waiting_size` of those whose publishers wait.

    Those are held back long before, at a window's worth, and may still send what they have credit for.

    A window counts bytes on the lanes and is filled to the last one: a record may leave in parts, so that even one that
    is larger than the window gets through.
    """

    __slots__ = (
        "_droppable",
        "_number",
        "_partial",
        "_queue_size",
        "_rest",
        "_taken",
        "_unconfirmed",
        "_waiting",
        "_waiting_size",
        "_window",
        "is_congested",
        "queued",
        "sent",
        "waiting",
    )

    def __init__(
        self,
        window: int = limits.LINK_WINDOW,
        queue_size: int = limits.LINK_QUEUE_SIZE,
        waiting_size: int = limits.LINK_WAITING_SIZE,
    ) -> None:
        self.sent = 0
        """Bytes of records given to the transport in all."""
        self.queued = 0
        """Bytes of bundles that wait."""
        self.waiting = 0
        """Bytes among them whose publishers wait rather than lose messages."""
        self.is_congested = False
        """Whether publishers who wait rather than lose messages should be held back now."""
        self._window = window
        self._queue_size = queue_size
        self._waiting_size = waiting_size
        self._taken = 0
        # Where the records of bundles end that nobody would send again, with the messages in them.
        self._unconfirmed: deque[tuple[int, int]] = deque()
        # Two queues, in order by number: what is dropped leaves nothing behind, whatever is before it in the other one.
        self._number = 0
        self._droppable: deque[_Entry] = deque()
        self._waiting: deque[_Entry] = deque()
        self._partial: tuple[int, _Entry] | None = None
        self._rest = b""

    @property
    def is_empty(self) -> bool:
        """Nothing waits; `under_way` may still be."""
        return not self.queued and self._partial is None

    @property
    def under_way(self) -> int:
        """Bytes that were sent and not reported as taken."""
        return self.sent - self._taken

    def put(self, bundle: Bundle, waits: bool, now: float) -> list[Bundle]:
        """Queue a bundle, and return those that had to go for it: the oldest ones, never the newest."""
        self._number += 1
        entry = _Entry(self._number, bundle, waits, now)
        self.queued += entry.size
        if waits:
            self._waiting.append(entry)
            self.waiting += entry.size
            self.is_congested = self.is_congested or self.waiting > self._window
        else:
            self._droppable.append(entry)
        dropped: list[Bundle] = []
        while self.queued - self.waiting > self._queue_size and len(self._droppable) > 1:
            dropped.append(self._take_from(self._droppable).bundle)
        while self.waiting > self._waiting_size and len(self._waiting) > 1:
            dropped.append(self._take_from(self._waiting).bundle)
        return dropped

    def take(self, now: float) -> dict[int, list[bytes]]:
        """Return what may be sent now, lane by lane; their age has grown by the time that they waited."""
        room = self._window - self.under_way
        lanes: dict[int, list[bytes]] = {}
        while room > 0:
            if self._partial is None:
                entry = self._next()
                if entry is None:
                    break
                lane, record = lane_of(entry.bundle), entry.record(now)
                size = sum(map(len, record))
                if size <= room:
                    lanes.setdefault(lane, []).extend(record)
                    room -= size
                    self.sent += size
                    self._sent_whole(entry.bundle)
                    continue
                self._partial, self._rest = (lane, entry), b"".join(record)
            lane, entry = self._partial
            part, self._rest = self._rest[:room], self._rest[room:]
            lanes.setdefault(lane, []).append(part)
            room -= len(part)
            self.sent += len(part)
            if not self._rest:
                self._sent_whole(entry.bundle)
                self._partial = None
        if self.waiting <= self._window // 2:
            self.is_congested = False
        return lanes

    def taken(self, size: int) -> None:
        """The neighbour has taken so many bytes in all; raises `ProtocolViolation` where that cannot be."""
        if not self._taken <= size <= self.sent:
            raise ProtocolViolation(f"LinkTaken of {size} bytes, {self.sent} were sent and {self._taken} taken before")
        self._taken = size
        while self._unconfirmed and self._unconfirmed[0][0] <= size:
            self._unconfirmed.popleft()

    @property
    def possibly_lost(self) -> int:
        """Messages that were sent and not reported as taken; what is broadcast is repaired and not among them."""
        return sum(messages for _, messages in self._unconfirmed)

    def withdraw(self, now: float) -> list[tuple[Bundle, bool]]:
        """The connection is lost: return the bundles that were not sent whole, aged, with whether publishers wait."""
        left = sorted([*self._droppable, *self._waiting], key=lambda entry: entry.number)
        if self._partial is not None:
            left.insert(0, self._partial[1])
        self._droppable.clear()
        self._waiting.clear()
        self._partial, self._rest, self.queued, self.waiting, self.is_congested = None, b"", 0, 0, False
        return [(entry.aged(now), entry.waits) for entry in left]

    def _sent_whole(self, bundle: Bundle) -> None:
        if bundle.kind != KIND_BROADCAST:
            self._unconfirmed.append((self.sent, sum([peek_body(batch.body)[0] for batch in bundle.batches])))

    def _next(self) -> _Entry | None:
        """Take the next bundle to send out of its queue."""
        droppable, waiting = self._droppable, self._waiting
        if droppable and (not waiting or droppable[0].number < waiting[0].number):
            return self._take_from(droppable)
        return self._take_from(waiting) if waiting else None

    def _take_from(self, queue: deque[_Entry]) -> _Entry:
        entry = queue.popleft()
        self.queued -= entry.size
        if entry.waits:
            self.waiting -= entry.size
        return entry


def lane_of(bundle: Bundle) -> int:
    """Return the lane that a bundle travels on: a broadcast, with batches of all lanes, on that of its number."""
    if bundle.kind == KIND_BROADCAST:
        return bundle.number % limits.LANES
    return bundle.batches[0].lane % limits.LANES
