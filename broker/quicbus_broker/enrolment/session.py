"""The listener's side of one connection of `quicbus-join/1`: one frame in, one frame out, or a close.

No clock and no I/O of its own; the desk decides who is served and finds the answer. What a joiner may not send is
caught in `_guarded` and becomes a close code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quicbus import limits
from quicbus.exceptions import LimitExceeded, ProtocolViolation
from quicbus.transport.control import ControlStream
from quicbus.transport.engine import cut_reason
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import STREAM_TYPE_CONTROL, FrameParser
from quicbus.wire.join_frames import JOIN_FRAME_TYPES, JOIN_VERSION, Joined, JoinRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated

__all__ = ["Desk", "JoinSession"]

_DIALER_UNIDIRECTIONAL = 0b10
"""The low two bits of the ids of streams that the dialer opens (RFC 9000 section 2.1)."""


class Desk(Protocol):
    """Who serves joiners, as a session sees it. Nothing of it waits or raises."""

    def refusal(self, session: JoinSession) -> str | None:
        """Return why there is no room for a joiner whose handshake is complete; from then on it takes room."""
        ...

    def requested(self, session: JoinSession, request: bytes) -> None:
        """`answer` or `refuse` follows, unless the session is closed before."""
        ...

    def refused(self, session: JoinSession, code: CloseCode, reason: str) -> None: ...

    def closed(self, session: JoinSession) -> None: ...


class JoinSession:
    """A `ConnectionHandler`."""

    def __init__(self, connection: Connection, desk: Desk) -> None:
        self.connection = connection
        self.is_closed = False
        self.is_answered = False
        self._desk = desk
        self._control = ControlStream(connection)
        self._frames = FrameParser(limits.MAX_JOIN_SIZE, JOIN_FRAME_TYPES)
        self._stream_id = -1
        self._size = 0
        self._is_connected = False
        self._request: JoinRequest | None = None

    # --- what the endpoint calls ------------------------------------------------------------------------------------

    def negotiated(self) -> None: ...

    def connected(self, channel_binding: bytes) -> None:
        self._is_connected = True
        refusal = self._desk.refusal(self)
        if refusal is not None:
            self.refuse(CloseCode.TOO_MANY_CONNECTIONS, refusal)
        elif self._request is not None:
            self._ask(self._request)

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if not self.is_closed:
            try:
                self._take(stream_id, data)
            except ProtocolViolation as error:
                self.refuse(CloseCode.PROTOCOL_VIOLATION, error.detail)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if not self.is_closed:
            self.refuse(CloseCode.PROTOCOL_VIOLATION, f"stream {stream_id} was reset with code {code}")

    def before_transmit(self) -> None:
        if not self.is_closed:
            self._control.flush()

    def closed(self, termination: Terminated) -> None:
        self.is_closed = True
        self._desk.closed(self)

    # --- what the desk calls ----------------------------------------------------------------------------------------

    def answer(self, issued: bytes, brokers: Sequence[str]) -> None:
        """Send the certificate. The dialer closes then: a close from here would overtake what was sent."""
        if not self.is_closed:
            try:
                self._control.open()
            except LimitExceeded as error:
                self.refuse(CloseCode.LIMIT_EXCEEDED, f"{error}; allow this side a stream")
                return
            self.is_answered = True
            self._control.write(Joined(issued=issued, brokers=tuple(brokers)))
            self.connection.transmit_soon()

    def refuse(self, code: CloseCode, reason: str) -> None:
        """Close because of what the joiner is, did or asked for; counted, once."""
        if not self.is_closed:
            self._desk.refused(self, code, reason)
            self.close(code, reason)

    def close(self, code: CloseCode, reason: str) -> None:
        self.is_closed = True
        self.connection.close(code, cut_reason(reason))

    # --- the request ------------------------------------------------------------------------------------------------

    def _take(self, stream_id: int, data: bytes) -> None:
        self._size += len(data)
        if self._size > limits.MAX_JOIN_SIZE:
            raise ProtocolViolation(f"a joiner sends at most {limits.MAX_JOIN_SIZE} bytes")
        if self._stream_id < 0 and data:
            if stream_id & 0b11 != _DIALER_UNIDIRECTIONAL or data[0] != STREAM_TYPE_CONTROL:
                raise ProtocolViolation(f"stream {stream_id} is not the one that a joiner opens")
            self._stream_id, data = stream_id, data[1:]
        if stream_id != self._stream_id and data:
            raise ProtocolViolation("a second stream of a joiner")
        for frame in self._frames.feed(data):
            if not isinstance(frame, JoinRequest) or self._request is not None:
                raise ProtocolViolation(f"{type(frame).__name__} where one JoinRequest belongs")
            self._request = frame
            if self._is_connected:
                self._ask(frame)

    def _ask(self, request: JoinRequest) -> None:
        if request.version != JOIN_VERSION:
            self.refuse(
                CloseCode.UNSUPPORTED_VERSION,
                f"this node speaks version {JOIN_VERSION} of joining, not {request.version}; update the older side",
            )
            return
        self._desk.requested(self, request.request)
