"""The listener's side of one client connection: proof, control frames, lanes, closing. Nodes go on to the mesh.

No clock and no I/O of its own: the endpoint calls it, it writes through `Connection`. What a client may not send is
caught here and becomes a close code in one place, `_blame`. Input that takes long is dealt with by slices (`Intake`).
"""

from __future__ import annotations

import logging
import math
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from quicbus import limits
from quicbus.exceptions import LimitExceeded, ProtocolViolation
from quicbus.identity import ProofRefused
from quicbus.transport.connection import shown_address
from quicbus.transport.engine import cut_reason
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import (
    PROTOCOL_VERSION,
    STREAM_TYPE_CONTROL,
    STREAM_TYPE_LANE,
    Accepted,
    Drained,
    Flush,
    Frame,
    FrameParser,
    GoAway,
    Hello,
    PeersWanted,
    Ping,
    Pong,
    Proof,
    ProofWanted,
    SpreadWanted,
    Subscribe,
    SubscriptionCredit,
    Trust,
    Unsubscribe,
)
from quicbus_broker.edge.admission import KIND_CLIENT
from quicbus_broker.edge.control import ControlStream
from quicbus_broker.edge.draining import Draining
from quicbus_broker.edge.inquiries import Inquiries
from quicbus_broker.edge.intake import Input, Intake
from quicbus_broker.edge.nodes import KIND_NODE, NodeArrival
from quicbus_broker.edge.permissions import Permissions, reply_prefix
from quicbus_broker.edge.publisher import Publisher, TooManyOversize
from quicbus_broker.edge.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated
    from quicbus.wire.frames import Brokers
    from quicbus_broker.edge.admission import Admission, Admitted
    from quicbus_broker.edge.nodes import Nodes, NodeSession
    from quicbus_broker.edge.turns import Turns

__all__ = ["Session", "SessionState"]

logger = logging.getLogger("quicbus_broker.edge")

_CLIENT_UNIDIRECTIONAL: Final = 0b10
"""The low two bits of the ids of streams that the dialer opens (RFC 9000 section 2.1)."""
FAULTS: Final = (ProtocolViolation, ProofRefused, TooManyOversize, LimitExceeded)
"""What a client's input may raise."""
MAX_UNANSWERED: Final = 4 * 1024 * 1024
"""Bytes of control frames that may be written to a client that answers no Ping: one that does not read."""


class SessionState(Enum):
    HANDSHAKE = "handshake"
    PROVING = "proving"
    OPEN = "open"
    CLOSED = "closed"


class Session:
    """A `ConnectionHandler`. `publisher` and `subscriber` exist from the accepted proof on."""

    def __init__(self, connection: Connection, admission: Admission, turns: Turns, number: int) -> None:
        self.connection = connection
        self.number = number
        """Of no other session of this broker."""
        self.kind = KIND_CLIENT
        self.state = SessionState.HANDSHAKE
        self.publisher: Publisher | None = None
        self.subscriber: Subscriber | None = None
        self.name = ""
        self.key_id = b""
        """Of a client's key, once it is proven."""
        self.expires_at = math.inf
        """When the certificate ends, by the exchange's clock."""
        self._admission = admission
        self._control = ControlStream(connection)
        self._inquiries = Inquiries(connection, self._control, admission.mesh)
        self._frames = FrameParser()
        self._turns = turns
        self._intake = Intake(turns, self)
        self._control_id = -1
        self._streams: set[int] = set()
        self._binding = b""
        self._early: list[Frame] = []
        self._unproven_bytes = 0
        self._answered_size = 0
        self._ping_sent = False
        self._wants_proof = False
        self._draining: Draining | None = None
        self._node: NodeSession | None = None
        self._permissions: Permissions | None = None

    # --- what the endpoint calls ------------------------------------------------------------------------------------

    def negotiated(self) -> None:
        self._guarded(self._welcome)

    def connected(self, channel_binding: bytes) -> None:
        self._binding = channel_binding
        if self.state is SessionState.HANDSHAKE:
            self.state = SessionState.PROVING
            refusal = self._admission.refusal()
            if refusal is not None and self._admission.nodes is None:  # otherwise Hello tells whether it is a client
                self.refuse(CloseCode.TOO_MANY_CONNECTIONS, refusal)
                return
        early, self._early = self._early, []
        for frame in early:
            self._guarded(partial(self._on_frame, frame))

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if self.state is SessionState.CLOSED:
            return
        if self._node is not None:
            self._node.stream_data(stream_id, data, ended)
            return
        try:  # Not by `_guarded`, as in `before_transmit`: a function would be made for each datagram.
            self._take(stream_id, data, ended)
        except FAULTS as fault:
            self._blame(fault)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if self._node is not None:
            self._node.stream_reset(stream_id, code)
        elif self.state is not SessionState.CLOSED:
            self.refuse(CloseCode.PROTOCOL_VIOLATION, f"stream {stream_id} was reset with code {code}")

    def before_transmit(self) -> None:
        if self._node is not None:
            self._node.before_transmit()
        elif self.state is not SessionState.CLOSED:
            try:
                self._write()
            except FAULTS as fault:
                self._blame(fault)

    def closed(self, termination: Terminated) -> None:
        self._leave()  # What arrived before is published yet.
        if self._node is not None:
            self._node.closed(termination)
        self._admission.closed(self, termination)

    # --- what the server calls --------------------------------------------------------------------------------------

    def go_away(self, reason: str, deadline_s: float) -> None:
        """Ask the client to finish. A session without a proof is closed at once."""
        if self._draining is None:
            self.close(CloseCode.GOING_AWAY, reason)
        else:
            self._draining.go_away(reason, deadline_s)

    def want_proof(self, deadline_s: float) -> None:
        """Ask the client for its proof again: its certificate ends soon, and may have been renewed."""
        if self.state is SessionState.OPEN:
            self._wants_proof = True
            self._control.write(ProofWanted(deadline_s=deadline_s))

    def tell_brokers(self, brokers: Brokers) -> None:
        """Tell the client where else it may go, in place of what it was told before."""
        if self.state is SessionState.OPEN and self._node is None and self._admission.tells_brokers:
            self._control.write(brokers)

    def permissions_changed(self) -> None:
        """There is another table: go on by it, and end the subscriptions that it does not permit."""
        if self._permissions is not None and self.subscriber is not None and self.state is SessionState.OPEN:
            self._permissions.refresh()
            self._control.write(self._permissions.told())
            self.subscriber.permissions_changed()

    def tell_trust(self, trust: Trust) -> None:
        """Tell the client the mesh's trust list."""
        if self.state is SessionState.OPEN and self._node is None and not self._admission.is_local:
            self._control.write(trust)

    def is_drained(self, now: float) -> bool:
        """After `go_away`: whether all that the client sent was taken, and all that was for it has arrived."""
        return self._draining is None or self._draining.is_over(now)

    def close(self, code: CloseCode, reason: str) -> None:
        self._intake.close()
        self._leave()
        self.connection.close(code, cut_reason(reason))

    def refuse(self, code: CloseCode, reason: str) -> None:
        """Close because of what the client is or did, and count it."""
        self._admission.count_refusal(self, code, reason)
        self.close(code, reason)

    def _leave(self) -> None:
        """End the subscriptions, once. The transport's `closed` may come as late as its repeated close frames."""
        if self.state is SessionState.CLOSED:
            return
        self.state = SessionState.CLOSED
        self._inquiries.closed()
        if self.subscriber is not None:
            self.subscriber.closed()
            self._intake.turn_ended()
            if self._leave_further():
                self._turns.wait(self)
        else:
            self._intake.close()

    # --- work by the slice ------------------------------------------------------------------------------------------

    def work(self) -> bool:
        """Do one slice of what waits; tells whether there is more to do."""
        self._intake.turn_ended()
        try:
            if self.state is SessionState.CLOSED:
                return self._leave_further()
            self._guarded(self._go_on)
            self.connection.transmit_soon()
        except Exception:
            logger.exception("! the session failed", extra={"peer": shown_address(self.connection.peer_address)})
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        return self.state is not SessionState.CLOSED and self._intake.waits

    def _leave_further(self) -> bool:
        """Do one slice of what is left to do after the end; tells whether there is more."""
        publisher, subscriber = self.publisher, self.subscriber
        if publisher is None or subscriber is None:
            return False
        if not subscriber.leave(self._turns):
            return True
        self._guarded(self._go_on)
        if self._intake.waits:
            return True
        self._admission.exchange.forget(publisher)
        self._intake.close()
        return False

    def _go_on(self) -> None:
        self._intake.go_on()
        while (source := self._intake.next(self._control_id)) is not None:
            self._deal(*source)

    def _put(self, source: Input) -> None:
        self._intake.put(source, is_control=source.stream_id == self._control_id)
        allowed = self._admission.limits.max_waiting_control_size
        if self._intake.control_size > allowed:
            detail = f"{self._intake.control_size} bytes of control frames wait, {allowed} may; wait for the answers"
            self.refuse(CloseCode.LIMIT_EXCEEDED, detail)

    # --- frames and lanes -------------------------------------------------------------------------------------------

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except FAULTS as fault:
            self._blame(fault)

    def _blame(self, fault: Exception) -> None:
        """The one place where what a client did wrong becomes a close."""
        if isinstance(fault, ProtocolViolation):
            self.refuse(CloseCode.PROTOCOL_VIOLATION, fault.detail)
        elif isinstance(fault, ProofRefused):
            self.refuse(fault.code, fault.why)
        elif isinstance(fault, TooManyOversize):
            self.refuse(CloseCode.LIMIT_EXCEEDED, f"oversize messages, although refused: {fault}")
        else:
            self.refuse(CloseCode.LIMIT_EXCEEDED, f"{fault}; allow this side {limits.LANES + 1} streams")

    def _welcome(self) -> None:
        self._control.open()
        self._control.write(self._admission.welcome())
        self.connection.transmit_soon()

    def _take(self, stream_id: int, data: bytes, ended: bool) -> None:
        if stream_id not in self._streams:
            if not data:
                if ended:
                    raise ProtocolViolation(f"stream {stream_id} ended before its type")
                return
            self._open(stream_id, data[0])
            data = data[1:]
        if self.publisher is None:
            self._unproven_bytes += len(data)
            if self._unproven_bytes > limits.MAX_CONTROL_FRAME_SIZE_BEFORE_PROOF:
                raise ProtocolViolation("more than a Hello before the proof")
        elif stream_id != self._control_id:
            self.publisher.arrived(len(data))
        if self._intake.waits:
            self._put(Input(stream_id, data, ended))
        else:
            self._deal(stream_id, data, ended)

    def _deal(self, stream_id: int, data: bytes, ended: bool) -> None:
        publisher = self.publisher
        if publisher is None:
            self._on_early(data)
        elif stream_id == self._control_id:
            self._intake.deal(self._frames.read(data), self._on_frame, len(data), is_control=True)
        elif data and (records := publisher.records(stream_id, data)):
            self._intake.deal(records, publisher.take, len(data), is_control=False)
        if ended:
            self._on_end(stream_id)

    def _open(self, stream_id: int, kind: int) -> None:
        if stream_id & 0b11 != _CLIENT_UNIDIRECTIONAL:
            raise ProtocolViolation(f"stream {stream_id} is not unidirectional")
        if kind == STREAM_TYPE_CONTROL:
            if self._control_id >= 0:
                raise ProtocolViolation("a second control stream")
            self._control_id = stream_id
        elif kind == STREAM_TYPE_LANE:
            if self.publisher is None:
                raise ProtocolViolation("a lane before the proof was accepted")
            self.publisher.open_lane(stream_id)
        else:
            raise ProtocolViolation(f"stream {stream_id} is of unknown type 0x{kind:02x}")
        self._streams.add(stream_id)

    def _on_end(self, stream_id: int) -> None:
        if stream_id == self._control_id:
            raise ProtocolViolation("the control stream ended")
        if self.publisher is not None:
            self.publisher.lane_ended(stream_id)

    def _on_early(self, data: bytes) -> None:
        """Take control frames of a client that had not proved who it is when they came."""
        for frame in self._frames.read(data):
            if self.state is SessionState.HANDSHAKE:
                self._early.append(frame)
            else:
                self._on_frame(frame)
            if self._node is not None:
                return  # the rest is for the mesh

    def _on_frame(self, frame: Frame) -> None:
        if self.state is SessionState.CLOSED:
            return
        publisher, subscriber, draining = self.publisher, self.subscriber, self._draining
        if publisher is None or subscriber is None or draining is None:
            if not isinstance(frame, Hello):
                raise ProtocolViolation(f"{type(frame).__name__} before the proof was accepted")
            self._on_hello(frame)
            return
        match frame:
            case SubscriptionCredit():
                subscriber.credit(frame)
            case Flush():
                publisher.flush(frame)
            case Subscribe():
                subscriber.subscribe(frame)
            case Unsubscribe(id=id):
                subscriber.unsubscribe(id)
            case Ping(id=id):
                self._control.write(Pong(id=id))
            case Pong():
                self._answered_size = self._control.sent_size
                self._ping_sent = False
                self.connection.transmit_soon()
            case PeersWanted(id=id):
                self._inquiries.peers_wanted(id)
            case SpreadWanted(id=id, subscription=subscription):
                self._inquiries.spread_wanted(id, is_subscribed=subscription in subscriber.subscriptions)
            case GoAway():
                draining.client_goes_away()
            case Drained(batches=batches):
                draining.client_drained(batches)
            case Proof() if self._wants_proof:
                self._on_proof(frame)
            case _:
                raise ProtocolViolation(f"{type(frame).__name__} is not for a broker")

    def _on_hello(self, hello: Hello) -> None:
        if hello.version != PROTOCOL_VERSION:
            self.refuse(
                CloseCode.UNSUPPORTED_VERSION,
                f"this broker speaks version {PROTOCOL_VERSION}, not {hello.version}; update the older side",
            )
            return
        if hello.kind == KIND_NODE and self._admission.nodes is not None:
            self._on_node(hello, self._admission.nodes)
            return
        admitted = self._admission.admit(self, hello, self._binding)
        self.name, self.key_id = admitted.name, admitted.key_id
        exchange, edge_limits = self._admission.exchange, self._admission.limits
        name = None if self._admission.is_local else admitted.name
        permissions = Permissions(exchange.policy, name, reply_prefix(exchange.origin, admitted.session))
        publisher = Publisher(
            self.connection, self._control, exchange, edge_limits, name=admitted.name, permissions=permissions
        )
        self.publisher = publisher
        subscriber = Subscriber(self.connection, self._control, exchange, edge_limits, permissions)
        self.subscriber = subscriber
        self._permissions = permissions
        self._draining = Draining(self.connection, self._control, publisher, subscriber)
        self.state = SessionState.OPEN
        self._frames.max_size = limits.MAX_CONTROL_FRAME_SIZE
        self.connection.allow_undelivered(publisher.window + limits.UNDELIVERED_SLACK)
        self._accept(admitted, publisher)
        if permissions.restricts:
            self._control.write(permissions.told())

    def _accept(self, admitted: Admitted, publisher: Publisher) -> None:
        self._control.write(
            Accepted(
                session=admitted.session,
                name=admitted.name,
                publish_credit=publisher.credit,
                brokers=list(self._admission.brokers()),
                expires_in_s=admitted.expires_in_s,
            )
        )
        if trust := self._admission.trust():
            self._control.write(Trust(signed=trust))

    def _on_node(self, hello: Hello, nodes: Nodes) -> None:
        """Let a node in; from then on the connection is the mesh's."""
        self.kind = KIND_NODE
        node, admitted = self._admission.admit_node(self, hello, self._binding)
        self.name = admitted.name
        self.state = SessionState.OPEN
        self._control.write(
            Accepted(
                session=admitted.session,
                name=admitted.name,
                publish_credit=limits.LINK_WINDOW,
                expires_in_s=admitted.expires_in_s,
                observed=shown_address(self.connection.peer_address),
            )
        )
        arrival = NodeArrival(
            self.connection,
            node,
            hello.boot,
            admitted.name,
            self._control,
            self._frames,
            self._control_id,
            lambda frame: self._guarded(partial(self._on_proof, frame)),
        )
        self._node = nodes.take(arrival)
        self._node.stream_data(self._control_id, b"", False)  # what came right after Hello is in the parser

    def _on_proof(self, proof: Frame) -> None:
        if not isinstance(proof, Proof) or not self._wants_proof:
            raise ProtocolViolation("a Proof that was not asked for")
        self._wants_proof = False
        self._admission.admit_again(self, proof, self._binding)

    # --- the end of a turn ------------------------------------------------------------------------------------------

    def _write(self) -> None:
        publisher, subscriber, draining = self.publisher, self.subscriber, self._draining
        if publisher is not None and subscriber is not None and draining is not None:
            self._intake.turn_ended()
            self._turns.turn_ended()
            publisher.waiting = self._intake.lanes_size
            subscriber.before_transmit()
            publisher.before_transmit()
            draining.before_transmit()
            unanswered = self._control.sent_size - self._answered_size
            self._inquiries.write(MAX_UNANSWERED // 4 - unanswered)
            self._watch_reader()
        self._control.flush()

    def _watch_reader(self) -> None:
        """Close a client that has us write control frames and reads none: they have no other bound."""
        unanswered = self._control.sent_size - self._answered_size
        if unanswered > MAX_UNANSWERED:
            self.refuse(CloseCode.STALLED, f"{unanswered} bytes of control frames and no Pong; read the control stream")
        elif unanswered > MAX_UNANSWERED // 4 and not self._ping_sent:
            self._ping_sent = True
            self._control.write(Ping(id=0))
