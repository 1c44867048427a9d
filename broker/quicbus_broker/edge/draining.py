"""The graceful end of one session: GoAway and Drained in both directions, and when it may be closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quicbus.wire.frames import Drained, GoAway

if TYPE_CHECKING:
    from quicbus.transport.connection import Connection
    from quicbus_broker.edge.control import ControlStream
    from quicbus_broker.edge.publisher import Publisher
    from quicbus_broker.edge.subscriber import Subscriber

__all__ = ["Draining"]

QUIET_S: Final = 0.3
"""A client reports what it consumed by quarters of its window, so the last messages are never reported. They have
arrived when nothing moved on the connection for so long: neither data nor acknowledgements nor repetitions."""


class Draining:
    """Begins when the session is open."""

    def __init__(
        self, connection: Connection, control: ControlStream, publisher: Publisher, subscriber: Subscriber
    ) -> None:
        self._connection = connection
        self._control = control
        self._publisher = publisher
        self._subscriber = subscriber
        self._goes_away = False
        self._client_drained_at: int | None = None
        self._client_goes_away = False
        self._has_told = False
        self._movement: tuple[int, int] | None = None
        self._moved_at = 0.0

    def go_away(self, reason: str, deadline_s: float) -> None:
        """Ask the client to finish; again is once."""
        if not self._goes_away:
            self._goes_away = True
            self._control.write(GoAway(reason=reason, deadline_s=deadline_s))

    def client_goes_away(self) -> None:
        """The client wants to close: it is told when all that it sent was taken."""
        self._client_goes_away = True
        self._connection.transmit_soon()

    def client_drained(self, batches: int) -> None:
        """The client sends nothing after its first `batches` batches."""
        self._client_drained_at = batches
        self._connection.transmit_soon()

    def before_transmit(self) -> None:
        """Tell the client, once, when this side has finished."""
        if self._client_goes_away and not self._publisher.holds_partial:
            self._client_goes_away = False
            self._tell()
        if self._goes_away and not self._has_told and self._is_taken() and self._subscriber.is_drained:
            self._has_told = True
            self._tell()

    def is_over(self, now: float) -> bool:
        """Whether all was taken, handed over, and has arrived as far as can be told. Ask again and again."""
        if not self._has_told:
            return False
        if not self._subscriber.has_outstanding:
            return True
        statistics = self._connection.statistics()
        movement = (statistics.datagrams_sent, statistics.datagrams_received)
        if movement != self._movement:
            self._movement = movement
            self._moved_at = now
        return now - self._moved_at >= QUIET_S

    def _is_taken(self) -> bool:
        return self._client_drained_at is not None and self._publisher.taken_up_to >= self._client_drained_at

    def _tell(self) -> None:
        self._publisher.tell()
        self._control.write(Drained(batches=self._subscriber.lanes.records))
