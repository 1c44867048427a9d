"""The door of a listener: strangers wait here until all connections were served, and are let in within bounds.

A stranger is who has not proved yet who it is, with a connection or without one. Its datagrams are dealt with at the
end of a turn, `STRANGERS_TURN_S` of it at most: first those of handshakes under way, then Initials that bring a Retry
token, then the rest. What does not fit the queue is dropped without being parsed; dialers repeat it by themselves.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from quicbus import limits
from quicbus.transport._packets import has_token
from quicbus.transport.admission import Accept, Admission, Answer, Drop, RefusedSession
from quicbus.transport.connection import shown_address
from quicbus.transport.demultiplexer import connection_id
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.address_limits import AddressUse
    from quicbus.transport.connection import Connection, ConnectionHandler
    from quicbus.transport.counters import Counters
    from quicbus.transport.demultiplexer import Elsewhere
    from quicbus.transport.endpoint_connection import EndpointConnection
    from quicbus.transport.network import Path
    from quicbus.transport.settings import EndpointSettings

__all__ = ["Door", "DoorOwner"]

logger = logging.getLogger("quicbus.transport")

cpu_clock = time.perf_counter if sys.platform == "win32" else time.thread_time
"""What strangers cost is what they take of the processor, not of the other processes' time; Windows counts that in
ticks of 16 ms."""


class DoorOwner(Protocol):
    """What the door needs of its endpoint."""

    counters: Counters

    @property
    def make_handler(self) -> Callable[[Connection], ConnectionHandler] | None:
        """`None`: nobody listens."""
        ...

    def find(self, identifier: bytes) -> EndpointConnection | None: ...
    def accept(self, verdict: Accept, path: Path, now: float) -> EndpointConnection: ...
    def feed(
        self, connection: EndpointConnection, buffer: bytes, segment_size: int, path: Path, now: float
    ) -> None: ...
    def send_to_stranger(self, path: Path, datagram: bytes) -> None: ...
    def forget(self, connection: EndpointConnection) -> None: ...


class _Waiting(NamedTuple):
    connection: EndpointConnection | None
    buffer: bytes
    segment_size: int
    path: Path


class _Queue:
    """First come, first served, bounded in datagrams and in bytes."""

    __slots__ = ("_entries", "_size")

    def __init__(self) -> None:
        self._entries: deque[_Waiting] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: _Waiting) -> bool:
        """Returns whether there was room."""
        size = self._size + len(entry.buffer)
        if len(self._entries) >= limits.MAX_STRANGERS_WAITING or size > limits.MAX_STRANGERS_WAITING_SIZE:
            return False
        self._entries.append(entry)
        self._size = size
        return True

    def pop(self) -> _Waiting:
        entry = self._entries.popleft()
        self._size -= len(entry.buffer)
        return entry


class Door:
    """Made by the endpoint, for its listener. `clock` measures work, in seconds."""

    def __init__(
        self,
        owner: DoorOwner,
        settings: EndpointSettings,
        admission: Admission,
        clock: Callable[[], float] = cpu_clock,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.admission = admission
        self.accepted = 0
        """Accepted connections that are not forgotten."""
        self.waiting = 0
        """Datagrams that there are for `work` to deal with."""
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._elsewhere = elsewhere
        self._of_strangers, self._with_token, self._without_token = self._queues = (_Queue(), _Queue(), _Queue())
        self._strangers: dict[EndpointConnection, AddressUse] = {}
        self._uses: dict[EndpointConnection, tuple[str, AddressUse]] = {}
        self._unproven_size = 0

    @property
    def half_open(self) -> int:
        """Connections that were accepted and have not proved who they are."""
        return len(self._strangers)

    # --- what arrives -----------------------------------------------------------------------------------------------

    def knock(self, identifier: bytes | None, buffer: bytes, segment_size: int, path: Path, now: float) -> None:
        """Take datagrams, one or several, with a connection id that is no connection's here, or with none."""
        counters = self._owner.counters
        if identifier is None:
            counters.drop("garbage", -(-len(buffer) // segment_size) if buffer else 1)
            return
        if self._elsewhere is not None and self._elsewhere.takes(identifier, buffer, segment_size, path):
            return
        if not buffer[0] & 0x80:
            counters.drop("unknown_connection", -(-len(buffer) // segment_size))
            return
        if self._owner.make_handler is None:
            counters.drop("not_listening", -(-len(buffer) // segment_size))
            return
        for start in range(0, len(buffer), segment_size):
            datagram = buffer[start : start + segment_size] if segment_size < len(buffer) else buffer
            queue = self._with_token
            if not has_token(datagram):
                queue = self._without_token
                self.admission.switch.saw_initial(now)
                if self.admission.is_flooded(now):
                    counters.drop("flood")
                    continue
            if queue.put(_Waiting(None, datagram, len(datagram), path)):
                self.waiting += 1
            else:
                counters.drop("flood")

    def defer(self, connection: EndpointConnection, buffer: bytes, segment_size: int, path: Path) -> None:
        """Take datagrams of a connection that has not proved yet who it is."""
        if self._of_strangers.put(_Waiting(connection, buffer, segment_size, path)):
            self.waiting += 1
        else:
            self._owner.counters.drop("flood", -(-len(buffer) // segment_size))

    # --- what becomes of it -----------------------------------------------------------------------------------------

    def work(self, now: float) -> float:
        """Deal with those who wait, for a bounded time. Returns when it began, by the clock that measures: for `worked`
        once the endpoint has sent what came of it."""
        began = self._clock()
        while self.waiting:
            entry = next(queue for queue in self._queues if queue).pop()
            self.waiting -= 1
            if entry.connection is not None:
                self._serve(entry.connection, entry, now)
            else:
                self._judge(entry, now)
            if self._clock() - began >= limits.STRANGERS_TURN_S:
                break
        return began

    def worked(self, began: float) -> None:
        """Count the time since `work` began."""
        self.admission.handshakes.spent(self._clock() - began)

    def _judge(self, entry: _Waiting, now: float) -> None:
        owner, path = self._owner, entry.path
        known = owner.find(connection_id(entry.buffer) or b"")
        if known is not None:  # One of several first datagrams, of which the first was accepted.
            self._serve(known, entry, now)
            return
        began = self._clock()
        self._update_switch(now)
        verdict = self.admission.judge(entry.buffer, path.address, self.accepted, self.half_open, now)
        if isinstance(verdict, Accept):
            self._accept(verdict, entry, now)
            return
        if isinstance(verdict, Answer):
            if verdict.is_retry:
                owner.counters.retries_sent += 1
            else:
                owner.counters.version_negotiations_sent += 1
            owner.send_to_stranger(path, verdict.datagram)
        elif isinstance(verdict, Drop):
            owner.counters.drop(verdict.reason)
            if verdict.limit:
                owner.counters.hit(verdict.limit)
        took = self._clock() - began
        self.admission.answers.spent(took)
        self.admission.handshakes.spent(-took)  # `worked` counts it once more.

    def _accept(self, verdict: Accept, entry: _Waiting, now: float) -> None:
        owner, path = self._owner, entry.path
        named = {"peer": shown_address(path.address)}
        try:
            connection = owner.accept(verdict, path, now)
        except Exception:
            owner.counters.drop("not_accepted")
            logger.exception("! %s could not be accepted", named["peer"], extra=named)
            return
        owner.counters.accepted += 1
        self.accepted += 1
        use = self.admission.addresses.accepted(path.address[0], now)
        self._strangers[connection] = use
        self._uses[connection] = (path.address[0], use)
        if verdict.refusal is not None and verdict.refusal.limit:
            owner.counters.hit(verdict.refusal.limit)
        make_handler = owner.make_handler
        assert make_handler is not None
        try:
            handler = RefusedSession(connection, verdict.refusal) if verdict.refusal else make_handler(connection)
        except Exception:
            owner.counters.handler_errors += 1
            logger.exception("! %s no session could be made", named["peer"], extra=named)
            connection.abandon("no session could be made")
            owner.forget(connection)
            return
        connection.begin(handler, now)
        self._serve(connection, entry, now)

    def _serve(self, connection: EndpointConnection, entry: _Waiting, now: float) -> None:
        self._owner.feed(connection, entry.buffer, entry.segment_size, entry.path, now)
        if connection in self._strangers:
            self._unproven_size += len(entry.buffer)
            connection.unproven_size += len(entry.buffer)
            if self._unproven_size > self._settings.max_unproven_total_size:
                self._close_largest()

    def _close_largest(self) -> None:
        """Close the strangers that sent most, until a quarter is free: a good one sends a few kilobytes."""
        self._owner.counters.hit("max_unproven_total_size")
        allowed = self._settings.max_unproven_total_size
        for connection in sorted(self._strangers, key=lambda each: each.unproven_size, reverse=True):
            if 4 * self._unproven_size <= 3 * allowed:
                break
            self.proven(connection)
            why = f"max_unproven_total_size: connections without a proof sent {allowed} bytes; try again in 5 s"
            connection.close_for(CloseCode.LIMIT_EXCEEDED, why, "unproven")

    # --- what becomes of strangers ----------------------------------------------------------------------------------

    def proven(self, connection: EndpointConnection) -> None:
        """It is no stranger any more, or ends. Again is once."""
        use = self._strangers.pop(connection, None)
        if use is not None:
            use.unproven -= 1
            self._unproven_size -= connection.unproven_size

    def forgotten(self, connection: EndpointConnection, now: float) -> None:
        """The endpoint has forgotten a connection."""
        self.proven(connection)
        host_and_use = self._uses.pop(connection, None)
        if host_and_use is not None:
            self.accepted -= 1
            self.admission.addresses.gone(*host_and_use, now)

    def is_over(self, now: float) -> bool:
        """Look whether a flood that turned Retry on is over; ask now and then while there is one."""
        if self._settings.retry == "auto" and self.admission.switch.is_on:
            self._update_switch(now)
        return not self.admission.switch.is_on

    def _update_switch(self, now: float) -> None:
        switch = self.admission.switch
        if self._settings.retry != "auto" or not switch.update(self.half_open, now):
            return
        if switch.is_on:
            self._owner.counters.hit("retry_auto")
            logger.warning(
                "= Retry is on: %d handshakes are not proven, %d Initials came in a second",
                self.half_open,
                round(switch.rate(now)),
            )
        else:
            logger.warning("= Retry is off again: %d handshakes are not proven", self.half_open)
