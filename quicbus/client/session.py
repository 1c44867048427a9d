"""The dialer's side of one connection: what it reads, what it writes, what it tells its owner. Pure.

A client outlives its sessions. It gives one the publisher with `carry`, and subscriptions with `subscribe`; both are
the client's and go on to the next session when this one is `closed`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

from quicbus import limits
from quicbus.client.delivery import Arrival, Leg
from quicbus.client.pacing import pace_of
from quicbus.client.permitted import Permitted
from quicbus.client.queries import Queries
from quicbus.client.session_ports import Prove, SessionOwner, SubscriptionOwner
from quicbus.exceptions import ProtocolViolation
from quicbus.transport.engine import cut_reason
from quicbus.wire import frames
from quicbus.wire.batch import parse_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.records import KIND_MESSAGE, Oversize, RecordParser, decode_delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.client.delivery import Inbox
    from quicbus.client.flushing import Flushes
    from quicbus.client.message import Replier
    from quicbus.client.publishing import Publisher
    from quicbus.client.session_ports import SessionTrust
    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated

__all__ = ["AGENT", "KIND_CLIENT", "Prove", "Session", "SessionOwner", "SubscriptionOwner"]

AGENT: Final = "quicbus-python/0.1"
KIND_CLIENT: Final = "client"
_DELIVERY_OVERHEAD: Final = 512 * 1024
"""Envelope, publisher and the table of subscriptions (12 bytes each, at most `limits.MAX_SUBSCRIPTIONS`)."""
_HEADERS_SIZE_FIELD: Final = 2
assert limits.MAX_SUBSCRIPTIONS * 12 + 64 * 1024 + 64 <= _DELIVERY_OVERHEAD


@mypyc_attr(allow_interpreted_subclasses=True)
class Session:
    """A `quicbus.transport.connection.ConnectionHandler`."""

    def __init__(
        self,
        connection: Connection,
        owner: SessionOwner,
        *,
        bus: Replier,
        clock: Callable[[], float],
        name: str = "",
        prove: Prove | None = None,
        trust: SessionTrust | None = None,
    ) -> None:
        self.connection = connection
        self.welcome: frames.Welcome | None = None
        self.acceptance: frames.Accepted | None = None
        self.termination: Terminated | None = None
        self.violation: ProtocolViolation | None = None
        self.brokers: Sequence[str] = ()
        """URLs of further brokers, as this one told last."""
        self.queries = Queries(self._send)
        self._owner = owner
        self._bus = bus
        self._clock = clock
        self._name = name
        self._prove = prove
        self._trust = trust
        self._binding = b""
        self._publisher: Publisher | None = None
        self._flushes: Flushes | None = None
        self.permitted = Permitted()
        self._control_out: list[bytes] = []
        self._control_stream: int | None = None
        self._lanes_out: dict[int, int] = {}
        self._frame_parser = frames.FrameParser(limits.MAX_CONTROL_FRAME_SIZE)
        self._readers: dict[int, Callable[[bytes], None]] = {}
        self._has_control = False
        self._legs: dict[int, tuple[Leg, SubscriptionOwner]] = {}
        self._last_leg = 0
        self._credit_due: dict[int, Leg] = {}
        self._requests: OrderedDict[int, int] = OrderedDict()
        self._granted = 0
        self._is_draining = False
        self._handlers: dict[type[frames.Frame], Callable[..., None]] = {
            frames.Welcome: self._on_welcome,
            frames.Accepted: self._on_accepted,
            frames.Subscribed: self._on_subscribed,
            frames.SubscriptionClosed: self._on_subscription_closed,
            frames.SubscriptionDropped: self._on_subscription_dropped,
            frames.Taken: self._on_taken,
            frames.Refused: self._on_refused,
            frames.NoResponder: self._on_no_responder,
            frames.Flushed: self._on_flushed,
            frames.Ping: self._on_ping,
            frames.Pong: self.queries.on_pong,
            frames.Peers: self.queries.on_peers,
            frames.Spread: self.queries.on_spread,
            frames.Brokers: self._on_brokers,
            frames.Trust: self._on_trust,
            frames.Permissions: self.permitted.told,
            frames.GoAway: self._on_go_away,
            frames.Drained: self._on_drained,
            frames.ProofWanted: self._on_proof_wanted,
        }

    # --- what the client asks for

    @property
    def is_closed(self) -> bool:
        return self.termination is not None

    def carry(self, publisher: Publisher, flushes: Flushes) -> None:
        """From here on this session sends what the client publishes."""
        assert self.welcome is not None, "carry() follows accepted()"
        assert self.acceptance is not None, "carry() follows accepted()"
        self._publisher, self._flushes = publisher, flushes
        edge = self.welcome.limits
        publisher.connected(self.acceptance.publish_credit, edge.max_message_size, pace_of(edge, self._clock))
        publisher.refusals.permitted = self.permitted
        self.connection.transmit_soon()

    def subscribe(
        self,
        inbox: Inbox,
        owner: SubscriptionOwner,
        *,
        filter: str,
        group: str | None = None,
        overflow: str = "drop_oldest",
        max_pending: int,
        max_pending_size: int,
    ) -> Leg:
        self._last_leg += 1
        assert self.welcome is not None, "subscribe() follows accepted()"
        edge = self.welcome.limits
        leg = Leg(self._last_leg, inbox, self._bus, edge.max_message_size + edge.max_headers_size + _HEADERS_SIZE_FIELD)
        inbox.begin(leg)
        self._legs[leg.id] = (leg, owner)
        self._allow(inbox.window_size)
        self._send(
            frames.Subscribe(
                id=leg.id,
                filter=filter,
                group=group,
                overflow=overflow,
                max_pending=max_pending,
                max_pending_size=max_pending_size,
                window_messages=inbox.window_messages,
                window_size=inbox.window_size,
            )
        )
        return leg

    def unsubscribe(self, leg: Leg) -> None:
        """`ended` follows, with the final books in `leg.closed`."""
        if leg.closed is None:
            self._send(frames.Unsubscribe(id=leg.id))

    def report_credit(self, leg: Leg) -> None:
        """Tell the broker at the end of this turn how much was consumed."""
        if leg.id in self._legs and leg.consumed > leg.reported:
            self._credit_due[leg.id] = leg
            self.connection.transmit_soon()

    def go_away(self, reason: str, deadline_s: float) -> None:
        """Ask the broker to take what is under way; `drained` follows."""
        self._send(frames.GoAway(reason=reason, deadline_s=deadline_s))

    def drain(self) -> None:
        """Answer the broker's GoAway: at the end of this turn send what may still be sent, and nothing after it."""
        self._is_draining = True
        for leg, _ in self._legs.values():
            leg.reports_all = True
            self.report_credit(leg)
        self.connection.transmit_soon()

    def detach(self) -> None:
        """Carry nothing from here on: another session does, or none."""
        legs, self._legs = self._legs, {}
        for leg, owner in legs.values():
            if leg.inbox.leg is leg:
                leg.inbox.end()
            if leg.closed is not None:
                owner.ended(leg)
            owner.detached(leg)
        self._credit_due.clear()
        self._publisher = self._flushes = None

    def close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, cut_reason(reason))

    # --- what the connection calls

    def negotiated(self) -> None:
        pass

    def connected(self, channel_binding: bytes) -> None:
        self._binding = channel_binding
        if self._leaves_revoked():
            return
        chain, signature = self._prove(channel_binding) if self._prove else ([], b"")
        self._send(
            frames.Hello(
                version=frames.PROTOCOL_VERSION,
                kind=KIND_CLIENT,
                agent=AGENT,
                name=self._name,
                chain=chain,
                signature=signature,
            )
        )

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if self.is_closed or self.violation:
            return
        try:
            self._read(stream_id, data)
            if ended and self._readers.get(stream_id) == self._read_control:
                raise ProtocolViolation("the broker ended its control stream")
        except ProtocolViolation as violation:
            self.violation = violation
            self.close(CloseCode.PROTOCOL_VIOLATION, violation.detail)

    def stream_reset(self, stream_id: int, code: int) -> None:
        self._readers.pop(stream_id, None)

    def before_transmit(self) -> None:
        publisher = self._publisher
        if publisher is not None:
            self._write_lanes(publisher)
            publisher.new_turn()
            if self._is_draining:
                self._is_draining = False
                publisher.pause()
                self._control_out.append(frames.encode_frame(frames.Drained(batches=publisher.batches_sent)))
        if self._credit_due:
            self._write_credit()
        if self._control_out:
            if self._control_stream is None:
                self._control_stream = self.connection.open_stream()
                self._control_out.insert(0, bytes((frames.STREAM_TYPE_CONTROL,)))
            self.connection.send(self._control_stream, b"".join(self._control_out))
            self._control_out.clear()

    def closed(self, termination: Terminated) -> None:
        self.termination = termination
        self.detach()
        self._owner.closed(self, termination)

    # --- writing

    def _send(self, frame: frames.Frame) -> None:
        self._control_out.append(frames.encode_frame(frame))
        self.connection.transmit_soon()

    def _write_lanes(self, publisher: Publisher) -> None:
        chunks: dict[int, list[bytes]] = {}
        for batch in publisher.seal(self._clock()):
            chunks.setdefault(batch.lane, []).append(batch.record)
            if batch.request:
                self._remember_request(batch.number, batch.request)
        for lane, records in chunks.items():
            stream_id = self._lanes_out.get(lane)
            if stream_id is None:
                stream_id = self._lanes_out[lane] = self.connection.open_stream()
                records.insert(0, bytes((frames.STREAM_TYPE_LANE,)))
            self.connection.send(stream_id, records[0] if len(records) == 1 else b"".join(records))
        if self._flushes is not None:
            for frame in self._flushes.frames(publisher):
                self._control_out.append(frames.encode_frame(frame))

    def _remember_request(self, number: int, request: int) -> None:
        if len(self._requests) >= limits.TRACKED_BATCHES:  # those of old, answered long ago
            self._requests.popitem(last=False)
        self._requests[number] = request

    def _write_credit(self) -> None:
        for leg in self._credit_due.values():
            if leg.consumed > leg.reported and leg.closed is None:
                leg.reported, leg.reported_size = leg.consumed, leg.consumed_size
                frame = frames.SubscriptionCredit(id=leg.id, messages=leg.consumed, size=leg.consumed_size)
                self._control_out.append(frames.encode_frame(frame))
        self._credit_due.clear()

    def _allow(self, size: int) -> None:
        self._granted += size
        self.connection.allow_undelivered(self._granted + limits.UNDELIVERED_SLACK)

    # --- reading

    def _read(self, stream_id: int, data: bytes) -> None:
        reader = self._readers.get(stream_id)
        if reader is None:
            if not data:
                return
            reader = self._readers[stream_id] = self._reader(stream_id, data[0])
            data = data[1:]
        if data:
            reader(data)

    def _reader(self, stream_id: int, stream_type: int) -> Callable[[bytes], None]:
        if stream_type == frames.STREAM_TYPE_CONTROL:
            if self._has_control:
                raise ProtocolViolation("a second control stream")
            self._has_control = True
            return self._read_control
        if stream_type == frames.STREAM_TYPE_LANE:
            if self.welcome is None:
                raise ProtocolViolation("a lane before Welcome")
            parser = RecordParser(self.welcome.limits.max_message_size + limits.BATCH_OVERHEAD + _DELIVERY_OVERHEAD)
            return lambda data: self._read_lane(parser, data)
        self.connection.stop_stream(stream_id, CloseCode.GOODBYE)
        return lambda data: None

    def _read_control(self, data: bytes) -> None:
        for frame in self._frame_parser.feed(data):
            if self.welcome is None and not isinstance(frame, frames.Welcome):
                raise ProtocolViolation(f"{type(frame).__name__} before Welcome")
            handler = self._handlers.get(type(frame))
            if handler is None:
                raise ProtocolViolation(f"{type(frame).__name__} is not for clients")
            handler(frame)

    def _read_lane(self, parser: RecordParser, data: bytes) -> None:
        for record in parser.feed(data):
            if isinstance(record, Oversize):
                raise ProtocolViolation(f"a record of {record.size} bytes")
            if record.kind == KIND_MESSAGE:
                self._deliver(record.payload)

    def _deliver(self, payload: bytes) -> None:
        delivery = decode_delivery(payload)
        arrival = Arrival(parse_body(delivery.body), delivery.envelope)
        for id, dropped in delivery.subscriptions:
            known = self._legs.get(id)
            if known is None:
                continue
            leg, owner = known
            if dropped > leg.dropped_total:
                leg.dropped_total = dropped
            leg.inbox.take(leg, arrival)
            owner.arrived()
            if leg.closed is not None and leg.is_finished:
                self._end(leg, owner)

    def _end(self, leg: Leg, owner: SubscriptionOwner) -> None:
        del self._legs[leg.id]
        self._allow(-leg.inbox.window_size)
        if leg.inbox.leg is leg:
            leg.inbox.end()
        owner.ended(leg)

    # --- control frames

    def _on_welcome(self, frame: frames.Welcome) -> None:
        if self.welcome is not None:
            raise ProtocolViolation("a second Welcome")
        if self._prove is not None and not frame.proof:
            raise ProtocolViolation("a broker over a network that wants no proof")
        node = self.connection.listener_node
        if node and node != frame.node:
            raise ProtocolViolation(f"Welcome says node {frame.node.hex()}, the certificate node {node.hex()}")
        self.welcome = frame
        if frame.version != frames.PROTOCOL_VERSION:
            self.close(
                CloseCode.UNSUPPORTED_VERSION,
                f"this client speaks version {frames.PROTOCOL_VERSION} of the protocol, the broker {frame.version}",
            )
            return
        self._owner.welcomed(self)

    def _on_accepted(self, frame: frames.Accepted) -> None:
        if self.acceptance is not None:
            raise ProtocolViolation("a second Accepted")
        self.acceptance = frame
        self.brokers = frame.brokers
        self._allow(0)
        self._owner.accepted(self)

    def _on_subscribed(self, frame: frames.Subscribed) -> None:
        if known := self._legs.get(frame.id):
            leg, owner = known
            leg.confirmed = True
            owner.confirmed(leg)

    def _on_subscription_closed(self, frame: frames.SubscriptionClosed) -> None:
        if known := self._legs.get(frame.id):
            leg, owner = known
            leg.closed = frame
            leg.dropped = dict(frame.dropped)
            if leg.is_finished:
                self._end(leg, owner)

    def _on_subscription_dropped(self, frame: frames.SubscriptionDropped) -> None:
        if known := self._legs.get(frame.id):
            leg, owner = known
            leg.dropped = dict(frame.dropped)
            owner.dropped_more()

    def _on_taken(self, frame: frames.Taken) -> None:
        if self._publisher is not None:
            self._publisher.taken(frame)
            self.connection.transmit_soon()
            self._owner.credit_changed(self)

    def _on_refused(self, frame: frames.Refused) -> None:
        if self._publisher is not None:
            topic = self._publisher.refused(frame)
            self._owner.refused(self, topic, frame)
            self._owner.credit_changed(self)

    def _on_no_responder(self, frame: frames.NoResponder) -> None:
        request = self._requests.pop(frame.number, 0)
        if request:
            self._owner.no_responder(self, request)

    def _on_flushed(self, frame: frames.Flushed) -> None:
        if self._flushes is not None:
            self._flushes.answered(frame.id)

    def _on_ping(self, frame: frames.Ping) -> None:
        self._send(frames.Pong(id=frame.id))

    def _on_brokers(self, frame: frames.Brokers) -> None:
        if self.acceptance is None:
            raise ProtocolViolation("Brokers before Accepted")
        self.brokers = frame.brokers
        self._owner.brokers_changed(self)

    def _on_trust(self, frame: frames.Trust) -> None:
        if self._trust is not None:
            self._trust.learned(frame.signed)
            self._leaves_revoked()

    def _leaves_revoked(self) -> bool:
        """Close where the broker is revoked, and tell whether it is."""
        why = self._trust.refusal(self.connection.listener_node) if self._trust is not None else ""
        if why:
            self.close(CloseCode.CREDENTIAL_REVOKED, why)
        return bool(why)

    def _on_go_away(self, frame: frames.GoAway) -> None:
        self._owner.going_away(self, frame)

    def _on_proof_wanted(self, frame: frames.ProofWanted) -> None:
        if self._prove is not None:
            chain, signature = self._prove(self._binding)
            self._send(frames.Proof(chain=chain, signature=signature))

    def _on_drained(self, frame: frames.Drained) -> None:
        self._owner.drained(self)
