"""What waits to be sent to one neighbour: bundles in order, in the window that the neighbour moves on by LinkTaken."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import peek_body
from quicbus.wire.bundles import KIND_BROADCAST, encode_bundle, encode_record_front, encode_signature

if TYPE_CHECKING:
    from quicbus.wire.bundles import Bundle

__all__ = ["LinkOutbox", "lane_of"]


class _Entry:
    __slots__ = ("bundle", "is_gone", "queued_at", "signed", "size", "waits")

    def __init__(self, bundle: Bundle, waits: bool, now: float) -> None:
        self.bundle = bundle
        self.waits = waits
        self.queued_at = now
        # The bytes as they came, where it is passed on; what is broadcast was encoded once, to be signed.
        self.signed = bundle.signed or encode_bundle(bundle)
        self.size = len(self.signed) + len(bundle.signature)
        self.is_gone = False

    def aged(self, now: float) -> Bundle:
        age_ms = round(1000 * (now - self.queued_at))
        if age_ms <= 0:
            return self.bundle
        return msgspec.structs.replace(self.bundle, age_ms=self.bundle.age_ms + age_ms)

    def record(self, now: float) -> bytes:
        bundle = self.aged(now)
        front = encode_record_front(bundle, len(self.signed))
        return b"".join((front, self.signed, encode_signature(bundle.signature)))


class LinkOutbox:
    """Bounded: over `queue_size` bytes the oldest bundle goes, first of those whose publishers do not wait.

    A window counts bytes on the lanes and is filled to the last one: a record may leave in parts, so that even one that
    is larger than the window gets through.
    """

    __slots__ = (
        "_droppable",
        "_partial",
        "_queue",
        "_queue_size",
        "_rest",
        "_taken",
        "_unconfirmed",
        "_window",
        "is_congested",
        "queued",
        "sent",
    )

    def __init__(self, window: int = limits.LINK_WINDOW, queue_size: int = limits.LINK_QUEUE_SIZE) -> None:
        self.sent = 0
        """Bytes of records given to the transport in all."""
        self.queued = 0
        """Bytes of bundles that wait."""
        self.is_congested = False
        """Whether publishers who wait rather than lose messages should be held back now."""
        self._window = window
        self._queue_size = queue_size
        self._taken = 0
        # Where the records of bundles end that nobody would send again, with the messages in them.
        self._unconfirmed: deque[tuple[int, int]] = deque()
        self._queue: deque[_Entry] = deque()
        self._droppable: deque[_Entry] = deque()
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
        """Queue a bundle, and return those that had to go for it: the oldest ones."""
        entry = _Entry(bundle, waits, now)
        self._queue.append(entry)
        self.queued += entry.size
        if waits:
            self.is_congested = self.is_congested or self.queued > self._queue_size // 2
        else:
            self._droppable.append(entry)
        dropped: list[Bundle] = []
        while self.queued > self._queue_size and (oldest := self._oldest()) is not None:
            oldest.is_gone = True
            self.queued -= oldest.size
            dropped.append(oldest.bundle)
        return dropped

    def take(self, now: float) -> dict[int, list[bytes]]:
        """Return what may be sent now, lane by lane; their age has grown by the time that they waited."""
        room = self._window - self.under_way
        lanes: dict[int, list[bytes]] = {}
        while room > 0:
            if self._partial is None and not self._begin(now):
                break
            assert self._partial is not None
            lane = self._partial[0]
            part, self._rest = self._rest[:room], self._rest[room:]
            lanes.setdefault(lane, []).append(part)
            room -= len(part)
            self.sent += len(part)
            if not self._rest:
                self._sent_whole(self._partial[1].bundle)
                self._partial = None
        if self.queued < self._queue_size // 4:
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
        left = [entry for entry in self._queue if not entry.is_gone]
        if self._partial is not None:
            left.insert(0, self._partial[1])
        self._queue.clear()
        self._droppable.clear()
        self._partial, self._rest, self.queued, self.is_congested = None, b"", 0, False
        return [(entry.aged(now), entry.waits) for entry in left]

    def _sent_whole(self, bundle: Bundle) -> None:
        if bundle.kind != KIND_BROADCAST:
            self._unconfirmed.append((self.sent, sum(peek_body(batch.body)[0] for batch in bundle.batches)))

    def _begin(self, now: float) -> bool:
        """Move on to the next record; False when nothing waits."""
        while self._queue:
            entry = self._queue.popleft()
            if not entry.is_gone:
                entry.is_gone = True
                self.queued -= entry.size
                self._partial, self._rest = (lane_of(entry.bundle), entry), entry.record(now)
                break
        while self._droppable and self._droppable[0].is_gone:
            self._droppable.popleft()
        return self._partial is not None

    def _oldest(self) -> _Entry | None:
        """Return what is dropped first. The newest bundle always stays: it may be larger than the queue."""
        while self._droppable and self._droppable[0].is_gone:
            self._droppable.popleft()
        if self._droppable and self._droppable[0] is not self._queue[-1]:
            return self._droppable[0]
        while self._queue and self._queue[0].is_gone:
            self._queue.popleft()
        return self._queue[0] if len(self._queue) > 1 else None


def lane_of(bundle: Bundle) -> int:
    """Return the lane that a bundle travels on: a broadcast, with batches of all lanes, on that of its number."""
    if bundle.kind == KIND_BROADCAST:
        return bundle.number % limits.LANES
    return bundle.batches[0].lane % limits.LANES
