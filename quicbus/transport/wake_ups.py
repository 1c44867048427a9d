"""When an endpoint's connections want to be woken: two queues, of strangers and of all others, behind one timer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from quicbus.transport.timers import TimerQueue, to_tick

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle
    from collections.abc import Callable

    from quicbus.transport.endpoint_connection import EndpointConnection

__all__ = ["WakeUps"]

MAX_WOKEN: Final = 8
MAX_STRANGERS_WOKEN: Final = 4
"""In one turn, at 0.1 to 0.2 ms each (aioquic): a thousand handshakes that began together and say something again
together would hold it up 0.2 s."""
LATE_S: Final = 0.25
"""So late comes a timer only where the whole process stood still: it was stopped or starved."""
TURNS_TO_READ: Final = 64
"""Of the loop, each with a look at the socket: more than its buffer holds, 512 datagrams or 1 MiB a turn."""
READ_AGAIN_AFTER_S: Final = 1.0
"""Where each timer comes late the loop is overloaded, and connections that wait for a timer must not wait longer."""


class WakeUps:
    """`on_time` is called when there may be something for `take_due`; call `arm` after each turn.

    A timer that comes very late lets the loop read first. uvloop can call timers before it looks at sockets, and what
    peers said meanwhile waits there: by the clock alone their connections would end as idle, handshakes as too late.
    """

    def __init__(self, loop: AbstractEventLoop, on_time: Callable[[], None]) -> None:
        self._loop = loop
        self._on_time = on_time
        self._known: TimerQueue[EndpointConnection] = TimerQueue()
        self._strangers: TimerQueue[EndpointConnection] = TimerQueue()
        self._timer: Handle | None = None
        self._armed_for = 0.0
        self._expected_at = 0.0
        """When the timer would come at the earliest: it may have been set for a time that was over."""
        self._read_at = -math.inf
        self._is_armed = False
        """The timer comes no later than the earliest: nothing was scheduled that is earlier."""

    def schedule(self, connection: EndpointConnection, when: float) -> None:
        """Wake it then, or earlier."""
        if (self._strangers if connection.is_stranger else self._known).schedule(connection, when):
            self._is_armed = False

    def cancel(self, connection: EndpointConnection) -> None:
        self._known.cancel(connection)
        self._strangers.cancel(connection)

    def take_due(self, now: float, *, is_busy: bool = False) -> list[EndpointConnection]:
        """Return some whose time has come, earliest first; each has to be scheduled anew.

        `is_busy`: datagrams wait, which come first; then half as many go on, so that acknowledgements do.
        """
        known, strangers = (MAX_WOKEN // 2, 1) if is_busy else (MAX_WOKEN, MAX_STRANGERS_WOKEN)
        return [*self._known.pop_due(now, known), *self._strangers.pop_due(now, strangers)]

    def arm(self) -> None:
        """Set the timer for the earliest."""
        if self._is_armed:
            return
        when = self._known.earliest()
        of_stranger = self._strangers.earliest()
        if of_stranger is not None and (when is None or of_stranger < when):
            when = of_stranger
        # A timer that comes too early is set again then: it would be dearer to move it at each datagram.
        if self._timer is None or when is None or when < self._armed_for:
            self.disarm()
            if when is not None:
                self._armed_for = when
                self._expected_at = max(when, self._loop.time())
                self._timer = self._loop.call_at(to_tick(when), self._fire)
        self._is_armed = True

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_armed = False

    def _fire(self) -> None:
        now = self._loop.time()
        if now - self._expected_at > LATE_S and now - self._read_at > READ_AGAIN_AFTER_S:
            self._read_at = now
            self._armed_for = -math.inf
            self._let_read(TURNS_TO_READ)
            return
        self._timer = None
        self._is_armed = False
        self._on_time()

    def _let_read(self, turns: int) -> None:
        self._timer = self._loop.call_soon(self._let_read, turns - 1) if turns else self._loop.call_soon(self._fire)
