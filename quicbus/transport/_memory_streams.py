"""The streams of the memory engine, and the packet numbers it has received: pure bookkeeping."""

from __future__ import annotations

from collections import deque

from quicbus.transport import engine as seam
from quicbus.transport._memory_packets import MalformedPacket, Stream

__all__ = ["IncomingStreams", "OutgoingStreams", "ReceivedNumbers"]

RANGES_MAX = 32
"""Runs of packet numbers that are remembered. A packet older than these is taken as new if it comes again, which the
offsets of its stream frames make harmless."""
INCOMING_STREAMS_MAX = 128
_SEGMENT_MIN = 64
"""A smaller rest of a datagram is not worth a frame."""


class ReceivedNumbers:
    """Packet numbers in runs, lowest first."""

    def __init__(self) -> None:
        self._runs: list[list[int]] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, number: int) -> bool:
        """Take a number; false if it was there already."""
        runs = self._runs
        place = len(runs)
        while place and runs[place - 1][0] > number:
            place -= 1
        if place and number <= runs[place - 1][1]:
            return False
        joins_lower = place > 0 and runs[place - 1][1] == number - 1
        joins_upper = place < len(runs) and runs[place][0] == number + 1
        if joins_lower and joins_upper:
            runs[place - 1][1] = runs.pop(place)[1]
        elif joins_lower:
            runs[place - 1][1] = number
        elif joins_upper:
            runs[place][0] = number
        else:
            runs.insert(place, [number, number])
            if len(runs) > RANGES_MAX:
                runs.pop(0)
        return True

    def ranges(self) -> tuple[tuple[int, int], ...]:
        return tuple((first, last) for first, last in self._runs)


class _Outgoing:
    __slots__ = ("again", "is_open", "is_unended", "offset", "pending", "under_way")

    def __init__(self) -> None:
        self.pending: deque[bytes] = deque()
        self.again: deque[Stream] = deque()
        self.offset = 0
        self.under_way = 0
        """Frames sent and not acknowledged."""
        self.is_open = True
        """The application may write."""
        self.is_unended = True
        """The end is not in a frame yet."""

    def wants_to_send(self) -> bool:
        return bool(self.again or self.pending or (self.is_unended and not self.is_open))


class OutgoingStreams:
    """What waits to be sent, stream after stream in turn."""

    def __init__(self) -> None:
        self._streams: dict[int, _Outgoing] = {}
        self._ready: dict[int, None] = {}

    def __len__(self) -> int:
        """How many are open or not wholly acknowledged."""
        return len(self._streams)

    @property
    def unsent_size(self) -> int:
        return sum([sum(map(len, stream.pending)) for stream in self._streams.values()])

    def open(self, stream_id: int) -> None:
        self._streams[stream_id] = _Outgoing()

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_open:
            return
        if data:
            stream.pending.append(data)
        stream.is_open = not end
        if data or end:
            self._ready[stream_id] = None

    def abandon(self, stream_id: int) -> bool:
        """Drop a stream with all that waits on it; false if it is gone already."""
        self._ready.pop(stream_id, None)
        return self._streams.pop(stream_id, None) is not None

    def acknowledged(self, frame: Stream) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is not None:
            stream.under_way -= 1
            if not stream.is_unended and not stream.under_way and not stream.again:
                del self._streams[frame.stream_id]

    def lost(self, frame: Stream) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is not None:
            stream.under_way -= 1
            stream.again.append(frame)
            self._ready[frame.stream_id] = None

    def next_frame(self, room: int) -> Stream | None:
        """Return the next frame with at most `room` bytes of data; what was lost goes first."""
        if room < _SEGMENT_MIN:
            return None
        for stream_id in self._ready:
            stream = self._streams[stream_id]
            if not stream.again:
                frame = _cut(stream_id, stream, room)
            elif len(stream.again[0].data) <= room:
                frame = stream.again.popleft()
            else:
                continue
            stream.under_way += 1
            del self._ready[stream_id]
            if stream.wants_to_send():
                self._ready[stream_id] = None
            return frame
        return None


def _cut(stream_id: int, stream: _Outgoing, room: int) -> Stream:
    parts: list[bytes] = []
    while stream.pending and room:
        data = stream.pending.popleft()
        if len(data) > room:
            stream.pending.appendleft(data[room:])
            data = data[:room]
        parts.append(data)
        room -= len(data)
    ends = not stream.is_open and not stream.pending
    if ends:
        stream.is_unended = False
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    frame = Stream(stream_id, stream.offset, data, ends)
    stream.offset += len(data)
    return frame


class _Incoming:
    __slots__ = ("end", "offset", "waiting")

    def __init__(self) -> None:
        self.offset = 0
        self.end: int | None = None
        self.waiting: dict[int, bytes] = {}


class IncomingStreams:
    """Puts bytes in order, each stream for itself. `first_id` is the peer's first stream (RFC 9000 section 2.1)."""

    def __init__(self, first_id: int) -> None:
        self._first_id = first_id
        self._streams: dict[int, _Incoming] = {}
        self._finished: set[int] = set()
        self._all_finished_below = first_id

    def take(self, frame: Stream) -> seam.StreamData | None:
        """Return what can be handed on now. Raises `MalformedPacket`."""
        stream = self._find(frame.stream_id)
        if stream is None:
            return None
        if frame.ended:
            stream.end = frame.offset + len(frame.data)
        if frame.data and frame.offset >= stream.offset:
            stream.waiting[frame.offset] = frame.data
        parts: list[bytes] = []
        # A frame that is sent again has the bounds it had, so offsets meet exactly.
        while (data := stream.waiting.pop(stream.offset, None)) is not None:
            parts.append(data)
            stream.offset += len(data)
        ended = stream.end is not None and stream.end <= stream.offset
        if ended:
            self._finish(frame.stream_id)
        if not parts and not ended:
            return None
        return seam.StreamData(frame.stream_id, parts[0] if len(parts) == 1 else b"".join(parts), ended)

    def reset(self, stream_id: int) -> bool:
        """The peer gave the stream up; false if it was over already. Raises `MalformedPacket`."""
        if self._find(stream_id) is None:
            return False
        self._finish(stream_id)
        return True

    def is_open(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def _find(self, stream_id: int) -> _Incoming | None:
        stream = self._streams.get(stream_id)
        if stream is None:
            is_peers = stream_id & 3 == self._first_id & 3
            if is_peers and (stream_id < self._all_finished_below or stream_id in self._finished):
                return None
            if not is_peers or len(self._streams) >= INCOMING_STREAMS_MAX:
                raise MalformedPacket(f"stream {stream_id} is not allowed")
            stream = self._streams[stream_id] = _Incoming()
        return stream

    def _finish(self, stream_id: int) -> None:
        del self._streams[stream_id]
        self._finished.add(stream_id)
        while self._all_finished_below in self._finished:
            self._finished.discard(self._all_finished_below)
            self._all_finished_below += 4
