"""Two joined connections in one process, without datagrams: sessions are tested against each other, step by step.

Nothing moves by itself: `Pipe.pump()` delivers what was sent, turn by turn, until both sides are quiet.

```python
pipe = Pipe()
pipe.start(ClientSession(pipe.dialer, ...), BrokerSession(pipe.listener, ...))
pipe.pump()
```

Other than at a real endpoint an exception out of a handler is raised by `pump()`, so that a test sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import LimitExceeded
from quicbus.transport.connection import Address, ConnectionStatistics
from quicbus.transport.engine import Terminated

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import ConnectionHandler

__all__ = ["CHANNEL_BINDING", "Pipe", "PipeEnd", "PipeStuck"]

CHANNEL_BINDING = bytes(range(32))
MAX_TURNS = 10_000
"""`pump()` gives up after so many turns: two sessions that answer each other for ever are a mistake."""


class PipeStuck(AssertionError):
    """`pump()` did not come to rest."""


class PipeEnd:
    """One side: a `quicbus.transport.connection.Connection`."""

    def __init__(self, pipe: Pipe, *, is_client: bool, max_streams: int = limits.MAX_INCOMING_STREAMS) -> None:
        self._pipe = pipe
        self._is_client = is_client
        self._next_stream = 2 if is_client else 3
        self._streams_left = max_streams
        self._closed = False
        self.handler: ConnectionHandler | None = None
        self.outgoing: dict[int, list[bytes]] = {}
        self.ended: set[int] = set()
        self.stopped: list[tuple[int, int]] = []
        self.pings = 0
        self.undelivered_allowed = 0
        self._dirty = False
        self.bytes_sent = 0
        self.bytes_received = 0
        self.heard = 0.0
        self.listener_node = b""
        self.alpn = "quicbus/1"

    @property
    def dirty(self) -> bool:
        """It wants a turn."""
        return self._dirty

    @dirty.setter
    def dirty(self, value: bool) -> None:
        self._dirty = value
        if value and self._pipe.wake is not None:
            self._pipe.wake()

    @property
    def is_client(self) -> bool:
        return self._is_client

    @property
    def engine(self) -> str:
        return "memory"

    @property
    def peer_address(self) -> Address:
        return ("127.0.0.1", 4433 if self._is_client else 50_000)

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def last_heard(self) -> float:
        return self.heard

    def open_stream(self) -> int:
        if not self._streams_left:
            raise LimitExceeded("streams", limits.MAX_INCOMING_STREAMS, limits.MAX_INCOMING_STREAMS)
        self._streams_left -= 1
        stream_id = self._next_stream
        self._next_stream += 4
        return stream_id

    @property
    def unsent_size(self) -> int:
        return 0

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        if self._closed:
            return
        self.outgoing.setdefault(stream_id, []).append(bytes(data))
        self.bytes_sent += len(data)
        if end:
            self.ended.add(stream_id)
        self.dirty = True

    def stop_stream(self, stream_id: int, code: int) -> None:
        if not self._closed:
            self.stopped.append((stream_id, code))
            self.dirty = True

    def ping(self, *, is_pressing: bool = False) -> None:
        if not self._closed:
            self.pings += 1
            self.dirty = True

    def has_moved(self) -> bool:
        return False

    def transmit_soon(self) -> None:
        self.dirty = not self._closed

    def transmit_now(self) -> None:
        self.transmit_soon()
        self._pipe.pump_now(self)

    def allow_undelivered(self, size: int) -> None:
        self.undelivered_allowed = size

    def close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        if len(reason.encode()) > limits.MAX_CLOSE_REASON_SIZE:
            raise ValueError("the reason is too long for a close frame")
        self._pipe.end(Terminated(int(code), reason, is_application=True, is_local=True), by=self)

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(0, 0, self.bytes_sent, self.bytes_received, 0, 0, None)

    def mark_closed(self) -> None:
        self._closed = True
        self.dirty = False
        self.outgoing.clear()


class Pipe:
    """`dialer` and `listener` are the two ends. `chunk_size` cuts what is delivered, to try every way of splitting."""

    def __init__(self, *, clock: Callable[[], float] = lambda: 0.0, chunk_size: int | None = None) -> None:
        self.dialer = PipeEnd(self, is_client=True)
        self.listener = PipeEnd(self, is_client=False)
        self.chunk_size = chunk_size
        self.silent = False
        """While set nothing is delivered and nothing is lost: the other process is stopped."""
        self._is_in_turn = False
        self.wake: Callable[[], None] | None = None
        """Called whenever there is something to pump, for tests that let an event loop do it."""
        self._clock = clock
        self._terminations: list[tuple[PipeEnd, Terminated]] = []

    def start(self, dialer: ConnectionHandler, listener: ConnectionHandler) -> None:
        """Join the two handlers and let them know that the handshake is complete, in the order of a real one."""
        self.dialer.handler, self.listener.handler = dialer, listener
        listener.negotiated()
        dialer.negotiated()
        dialer.connected(CHANNEL_BINDING)
        listener.connected(CHANNEL_BINDING)
        self.dialer.dirty = self.listener.dirty = True

    def pump(self) -> int:
        """Deliver until both sides are quiet; returns the number of turns that took."""
        for turns in range(MAX_TURNS):
            if not self.pump_once():
                return turns
        raise PipeStuck(f"still busy after {MAX_TURNS} turns")

    def pump_once(self) -> bool:
        """One turn of each side: let it write, then deliver to the other. False when there was nothing to do."""
        if self.silent:
            return False
        busy = False
        for end, other in ((self.dialer, self.listener), (self.listener, self.dialer)):
            if end.dirty:
                busy = True
                self._turn(end, other)
        for end, termination in self._take_terminations():
            busy = True
            _handler(end).closed(termination)
        return busy

    def pump_now(self, end: PipeEnd) -> None:
        """A turn of one side, unless it is called from within one."""
        if end.dirty and not (self.silent or self._is_in_turn):
            self._turn(end, self.listener if end is self.dialer else self.dialer)

    def break_off(self, reason: str = "") -> None:
        """End the connection as an idle time-out does: both sides learn of it at the next `pump()`."""
        self.end(Terminated(0, reason, is_application=False, is_local=True), by=self.dialer, silently=True)

    def end(self, termination: Terminated, *, by: PipeEnd, silently: bool = False) -> None:
        """Close both ends. What `by` had written in this turn is discarded, as the engines do."""
        for end in (by, self.listener if by is self.dialer else self.dialer):
            if not end.is_closed:
                end.mark_closed()
                local = silently or end is by
                seen = Terminated(termination.code, termination.reason, termination.is_application, local)
                self._terminations.append((end, seen))
        if self.wake is not None:
            self.wake()

    def _turn(self, end: PipeEnd, other: PipeEnd) -> None:
        self._is_in_turn = True
        try:
            self._write_and_deliver(end, other)
        finally:
            self._is_in_turn = False

    def _write_and_deliver(self, end: PipeEnd, other: PipeEnd) -> None:
        end.dirty = False
        _handler(end).before_transmit()
        end.dirty = False
        outgoing, end.outgoing = end.outgoing, {}
        ended, end.ended = end.ended, set()
        stopped, end.stopped = end.stopped, []
        if not (outgoing or stopped or end.pings):
            return
        other.heard = self._clock()
        if end.pings:
            end.pings = 0
            end.heard = self._clock()
        for stream_id, chunks in outgoing.items():
            self._deliver(other, stream_id, b"".join(chunks), stream_id in ended)
        for stream_id, code in stopped:
            if not other.is_closed:
                _handler(other).stream_reset(stream_id, code)
        other.dirty = not other.is_closed

    def _deliver(self, end: PipeEnd, stream_id: int, data: bytes, ended: bool) -> None:
        end.bytes_received += len(data)
        size = self.chunk_size or len(data) or 1
        offsets = range(0, len(data), size) if data else range(1)
        for offset in offsets:
            if end.is_closed:
                return
            chunk = data[offset : offset + size]
            _handler(end).stream_data(stream_id, chunk, ended and offset + size >= len(data))

    def _take_terminations(self) -> list[tuple[PipeEnd, Terminated]]:
        taken, self._terminations = self._terminations, []
        return taken


def _handler(end: PipeEnd) -> ConnectionHandler:
    assert end.handler is not None, "Pipe.start() comes first"
    return end.handler
