"""An open session of kind `node` on one connection, the same on both sides: frames, and bundles on lanes. Pure.

`LinkDialer` and the edge's session bring a connection this far. Nothing here waits: what the neighbour does not take
stays in the outbox, which is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quicbus import limits
from quicbus.exceptions import LimitExceeded, ProtocolViolation
from quicbus.transport.engine import cut_reason
from quicbus.wire.bundles import KIND_BROADCAST, KIND_DIRECT, KIND_RELAY, KIND_RETURNED, decode_bundle
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import (
    STREAM_TYPE_CONTROL,
    STREAM_TYPE_LANE,
    Accepted,
    GoAway,
    Hello,
    Ping,
    Pong,
    Proof,
    ProofWanted,
    Welcome,
)
from quicbus.wire.node_frames import NODE_FRAME_TYPES, LinkTaken, Reached
from quicbus.wire.records import Oversize, RecordParser
from quicbus_broker.mesh.session.link_outbox import LinkOutbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Connection
    from quicbus.transport.control import ControlStream
    from quicbus.transport.engine import Terminated
    from quicbus.wire.bundles import Bundle
    from quicbus.wire.frames import Frame, FrameParser

__all__ = ["Link", "LinkOwner"]

BUNDLE_KINDS = frozenset((KIND_BROADCAST, KIND_DIRECT, KIND_RELAY, KIND_RETURNED))
_REPORT_AFTER = limits.LINK_WINDOW // 4
_MAX_INCOMPLETE = limits.MAX_BUNDLE_SIZE + limits.LINK_WINDOW
"""An honest neighbour sends one record after the other: one may be long, of others only a window can be on its way."""


_READ_PING = 2**63 - 2
"""Its Pong shows how far the control stream was read. The ids of the mesh's own Pings stay far below."""
_ASK_AFTER = 1024 * 1024


class LinkOwner(Protocol):
    """What links call, from the event loop; nothing of it waits or raises."""

    def frame_arrived(self, link: Link, frame: Frame) -> None: ...

    def bundle_arrived(self, link: Link, bundle: Bundle) -> None: ...

    def turn_ends(self) -> None:
        """A link is about to write: the last chance to give it what this turn brought."""
        ...

    def congestion_changed(self, link: Link) -> None: ...

    def violated(self, link: Link, code: CloseCode, reason: str) -> None:
        """The neighbour did what no honest one does; the link is being closed."""
        ...

    def closed(self, link: Link, termination: Terminated) -> None: ...


class Link:
    """`node` and `boot` are the neighbour's. `number` is never used again by this owner.

    `frames` is the parser of the neighbour's control stream `control_id`; both may have been used up to here.
    """

    def __init__(
        self,
        connection: Connection,
        control: ControlStream,
        frames: FrameParser,
        control_id: int,
        owner: LinkOwner,
        *,
        number: int,
        node: bytes,
        boot: int,
        name: str,
        clock: Callable[[], float],
        on_proof: Callable[[Frame], None],
    ) -> None:
        """`on_proof` takes the frames that prolong a session: Proof at the listener, ProofWanted at the dialer."""
        self.connection = connection
        self.number = number
        self.node = node
        self.boot = boot
        self.name = name
        self.outbox = LinkOutbox()
        self._control = control
        self._frames = frames
        self._control_id = control_id
        self._owner = owner
        self._clock = clock
        self._on_proof = on_proof
        self._proof_type = ProofWanted if connection.is_client else Proof
        self._lanes_in: dict[int, RecordParser] = {}
        self._lanes_out: dict[int, int] = {}
        self._ignored: set[int] = set()
        self._taken = 0
        self._reported = 0
        self._was_congested = False
        self._was_reached = False
        self._read_size = control.sent_size
        self._asked_size = 0
        """How much was sent before the Ping that asks whether it was read; 0: none is under way."""
        frames.types = NODE_FRAME_TYPES
        frames.max_size = limits.MAX_CONTROL_FRAME_SIZE
        connection.allow_undelivered(limits.LINK_WINDOW + limits.UNDELIVERED_SLACK)

    @property
    def is_closed(self) -> bool:
        return self.connection.is_closed

    def send(self, frame: Frame) -> None:
        """Have a frame leave at the end of this turn."""
        if not self.is_closed:
            self._control.write(frame)

    def send_bundle(self, bundle: Bundle, waits: bool) -> list[Bundle]:
        """Queue a bundle; returns those that had to go for it."""
        dropped = self.outbox.put(bundle, waits, self._clock())
        self.connection.transmit_soon()
        self._tell_congestion()
        return dropped

    def close(self, code: int, reason: str) -> None:
        """Close; the owner's `closed` follows."""
        self.connection.close(code, cut_reason(reason))

    # --- what the connection calls ------------------------------------------------------------------------------------

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if self.is_closed:
            return
        try:
            self._read(stream_id, data)
            if ended and (stream_id == self._control_id or stream_id in self._lanes_in):
                raise ProtocolViolation(f"stream {stream_id} ended")
        except ProtocolViolation as violation:
            self._violated(CloseCode.PROTOCOL_VIOLATION, violation.detail)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if not self.is_closed and stream_id not in self._ignored:
            self._violated(CloseCode.PROTOCOL_VIOLATION, f"stream {stream_id} was reset with code {code}")

    def before_transmit(self) -> None:
        self._owner.turn_ends()
        if self.is_closed:
            return
        try:
            self._write_lanes()
        except LimitExceeded as error:
            self._violated(CloseCode.LIMIT_EXCEEDED, f"{error}; allow this side {limits.LANES + 1} streams")
            return
        if self._taken > self._reported and not any(parser.held for parser in self._lanes_in.values()):
            self._report_taken()
        if not self._is_read():
            return
        self._control.flush()
        self._tell_congestion()

    def closed(self, termination: Terminated) -> None:
        self._owner.closed(self, termination)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, stream_id: int, data: bytes) -> None:
        if stream_id == self._control_id:
            self._read_control(data)
            return
        parser = self._lanes_in.get(stream_id)
        if parser is None:
            if not data or stream_id in self._ignored:
                return
            if data[0] != STREAM_TYPE_LANE:
                self._refuse_stream(stream_id, data[0])
                return
            if len(self._lanes_in) >= limits.LANES:
                raise ProtocolViolation(f"more than {limits.LANES} lanes")
            parser = self._lanes_in[stream_id] = RecordParser(limits.MAX_BUNDLE_SIZE)
            data = data[1:]
        self._read_lane(parser, data)

    def _read_control(self, data: bytes) -> None:
        for frame in self._frames.read(data):
            if isinstance(frame, LinkTaken):
                self.outbox.taken(frame.size)
                self.connection.transmit_soon()
            elif isinstance(frame, Ping | Pong) and frame.id == _READ_PING:
                self._on_read_ping(frame)
            elif isinstance(frame, self._proof_type):
                self._on_proof(frame)
            elif isinstance(frame, Reached) and (self._was_reached or not self.connection.is_client):
                raise ProtocolViolation("Reached, which a listener says once")
            elif isinstance(frame, Welcome | Hello | Accepted | Proof | ProofWanted):
                raise ProtocolViolation(f"{type(frame).__name__} after the session was open")
            elif not isinstance(frame, GoAway):
                self._was_reached = self._was_reached or isinstance(frame, Reached)
                self._owner.frame_arrived(self, frame)
            if self.is_closed:
                return

    def _on_read_ping(self, frame: Ping | Pong) -> None:
        """Answered here, over this very connection, of which a node may have two."""
        if isinstance(frame, Ping):
            self._control.write(Pong(id=frame.id))
        elif self._asked_size:
            self._read_size, self._asked_size = self._asked_size, 0
            self.connection.transmit_soon()

    def _read_lane(self, parser: RecordParser, data: bytes) -> None:
        self._taken += len(data)
        for record in parser.feed(data):
            if isinstance(record, Oversize):
                raise ProtocolViolation(f"a bundle of {record.size} bytes, at most {limits.MAX_BUNDLE_SIZE} may be")
            if record.kind in BUNDLE_KINDS:
                self._owner.bundle_arrived(self, decode_bundle(record.kind, record.payload))
                if self.is_closed:
                    return
        if parser.held > limits.LINK_WINDOW and sum(each.held for each in self._lanes_in.values()) > _MAX_INCOMPLETE:
            raise ProtocolViolation(f"more than {_MAX_INCOMPLETE} bytes of incomplete records")
        if self._taken - self._reported >= _REPORT_AFTER:
            self._report_taken()

    def _refuse_stream(self, stream_id: int, kind: int) -> None:
        if kind == STREAM_TYPE_CONTROL:
            raise ProtocolViolation("a second control stream")
        if len(self._ignored) >= limits.MAX_INCOMING_STREAMS:
            raise ProtocolViolation("too many streams of unknown types")
        self._ignored.add(stream_id)
        self.connection.stop_stream(stream_id, CloseCode.GOODBYE)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write_lanes(self) -> None:
        if self.outbox.is_empty:
            return
        for lane, parts in self.outbox.take(self._clock()).items():
            stream_id = self._lanes_out.get(lane)
            if stream_id is None:
                stream_id = self._lanes_out[lane] = self.connection.open_stream()
                parts.insert(0, bytes((STREAM_TYPE_LANE,)))
            self.connection.send(stream_id, parts[0] if len(parts) == 1 else b"".join(parts))

    def _is_read(self) -> bool:
        """Watch that the neighbour reads its frames, which have no other bound; closes where it does not."""
        unread = self._control.sent_size - self._read_size
        if unread > limits.MAX_UNREAD_FRAMES:
            self._violated(CloseCode.STALLED, f"{unread} bytes of control frames and no Pong; read the control stream")
            return False
        if unread > _ASK_AFTER and not self._asked_size:
            self._asked_size = self._control.sent_size
            self._control.write(Ping(id=_READ_PING))
        return True

    def _report_taken(self) -> None:
        self._reported = self._taken
        self._control.write(LinkTaken(size=self._taken))

    def _tell_congestion(self) -> None:
        if self.outbox.is_congested != self._was_congested:
            self._was_congested = self.outbox.is_congested
            self._owner.congestion_changed(self)

    def _violated(self, code: CloseCode, reason: str) -> None:
        self._owner.violated(self, code, reason)
        self.close(code, reason)
