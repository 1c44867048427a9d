"""One connection of an endpoint: its engine, its handler, its path and its deadlines. No socket, no event loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from quicbus.identity import ProofRefused, check_listener_certificate
from quicbus.transport.connection import ConnectionStatistics, shown_address
from quicbus.transport.counters import total_size
from quicbus.transport.engine import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    HandshakeCompleted,
    Negotiated,
    PingAcknowledged,
    StreamData,
    StreamReset,
    Terminated,
    cut_reason,
)
from quicbus.transport.key_updates import KeyUpdates
from quicbus.transport.lone_datagram import FAR_ROUND_TRIP_S, LoneDatagram
from quicbus.transport.path import AMPLIFICATION
from quicbus.transport.pings import Pings
from quicbus.transport.undelivered import UndeliveredBytes
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from quicbus.transport.connection import Address, ConnectionHandler
    from quicbus.transport.engine import EngineConnection, EngineEvent
    from quicbus.transport.network import Path
    from quicbus.transport.owner import Owner
    from quicbus.transport.path import PathMap
    from quicbus.transport.settings import EndpointSettings

__all__ = ["EndpointConnection"]

logger = logging.getLogger("quicbus.transport")

LINGER_S: Final = 1.0
"""After its own close a connection answers what still arrives by closing again: the close may have been lost."""


class EndpointConnection:
    """The `Connection` that sessions hold."""

    def __init__(
        self,
        owner: Owner,
        quic: EngineConnection,
        paths: PathMap[Path],
        settings: EndpointSettings,
        *,
        datagram_size: int,
        engine: str,
        is_client: bool,
        mesh: str,
        is_validated: bool,
        now: float,
    ) -> None:
        """`mesh`: for dialers, the one that the listener must be of. `is_validated`: the peer has shown that it
        receives at its address, or this side dialed it."""
        self._owner = owner
        self._quic = quic
        self._settings = settings
        self._engine = engine
        self._is_client = is_client
        self._mesh = mesh
        self._listener_node = b""
        self._alpn = ""
        self._is_validated = is_validated
        self._datagram_size = datagram_size
        self._handler: ConnectionHandler | None = None
        self.paths = paths
        self.is_complete = False
        self.is_stranger = not is_client
        """It was accepted and has not proved who it is."""
        self.wants_to_send = True
        """Something other than the acknowledgement of a lone datagram may want to leave."""
        self._lone = LoneDatagram()
        self.unproven_size = 0
        """Bytes received while it was a stranger."""
        self._last_heard = now
        self._last_sent = now
        self._handshake_deadline: float | None = now + settings.handshake_timeout_s
        self._linger_until: float | None = None
        self._closing: Terminated | None = None
        self._unanswered_since: float | None = None
        """The handshake was completed then, and nothing was sent since."""
        self._last_before_close: list[bytes] = []
        self._is_terminated = False
        self._close_cause = ""
        self._pings = Pings()
        self._source = ""
        """This host's address towards the peer, when a dialer looked last."""
        self._datagrams_sent = self._datagrams_received = 0
        self._bytes_sent = self._bytes_received = 0
        self._rejected_datagrams = self._rejected_size = 0
        self._key_updates = KeyUpdates(settings.key_update_packets)
        self._undelivered = UndeliveredBytes(now, settings.max_unproven_size)

    # --- Connection: for sessions -----------------------------------------------------------------------------------

    @property
    def is_client(self) -> bool:
        return self._is_client

    @property
    def engine(self) -> str:
        return self._engine

    @property
    def peer_address(self) -> Address:
        return self.paths.active.address

    @property
    def listener_node(self) -> bytes:
        return self._listener_node

    @property
    def alpn(self) -> str:
        return self._alpn

    @property
    def is_closed(self) -> bool:
        return self._closing is not None

    @property
    def last_heard(self) -> float:
        return self._last_heard

    @property
    def unsent_size(self) -> int:
        return self._quic.unsent_size

    def open_stream(self) -> int:
        return self._quic.open_stream()

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self._quic.send(stream_id, data, end)
        self._changed()

    def stop_stream(self, stream_id: int, code: int) -> None:
        self._quic.stop_stream(stream_id, code)
        self._changed()

    def ping(self, *, is_pressing: bool = False) -> None:
        if self.is_complete and self._closing is None:
            self._ping(self._owner.now(), is_pressing=is_pressing and self._is_client)
            self._changed()

    def has_moved(self) -> bool:
        before, source = self._source, self._owner.source_towards(self.paths.active)
        self._source = source or before  # Without a way it keeps the address that it may get back.
        return bool(before and source) and source != before

    def transmit_soon(self) -> None:
        self._owner.mark_dirty(self)

    def transmit_now(self) -> None:
        self._owner.serve_now(self)

    def allow_undelivered(self, size: int) -> None:
        self._undelivered.allow(size)
        self._no_stranger()

    def close(self, code: int, reason: str) -> None:
        self.close_for(code, reason, "local")

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            datagrams_sent=self._datagrams_sent,
            datagrams_received=self._datagrams_received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            address_changes=self.paths.changes,
            key_updates=self._key_updates.count,
            rtt_s=self._pings.rtt_s,
        )

    # --- for the endpoint -------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the endpoint may forget this connection."""
        return self._is_terminated and self._linger_until is None

    @property
    def connection_ids(self) -> tuple[bytes, ...]:
        return self._quic.connection_ids

    def begin(self, handler: ConnectionHandler, now: float) -> None:
        self._handler = handler
        if self._is_client:
            self._quic.connect(now)

    def feed(self, buffer: bytes, segment_size: int, path: Path, now: float) -> None:
        """Take a datagram, or several of `segment_size` bytes that all carry one connection id."""
        active = self.paths.active
        if path is active or path.peer == active.peer:
            if self.paths.has_candidate:
                self.paths.heard_on_active(now)
            self._take(buffer, segment_size, now)
        elif self.paths.is_fixed or not self.is_complete:
            self._owner.counters.drop("other_address", -(-len(buffer) // segment_size))
        else:
            self._feed_from_elsewhere(buffer, segment_size, path, now)

    def drain(self, now: float, source: Path | None = None) -> None:
        """Hand the engine's events to the handler. `source`: where the datagrams came from, if not from the peer."""
        next_event, handler = self._quic.next_event, self._handler
        try:
            while (event := next_event()) is not None:
                if type(event) is StreamData:
                    self._undelivered.delivered(len(event.data))
                    if self._closing is None and handler is not None:
                        handler.stream_data(event.stream_id, event.data, event.ended)
                else:
                    self._on_event(event, now, source)
                    handler = self._handler
        except Exception as error:
            self._handler_failed(error)
        self._check_undelivered(now)

    def before_transmit(self) -> None:
        if self._handler is not None and self._closing is None:
            try:
                self._handler.before_transmit()
            except Exception as error:
                self._handler_failed(error)

    def datagrams_to_send(self, now: float) -> list[tuple[Path, list[bytes]]]:
        """Return what wants to leave now, and where to."""
        self.wants_to_send = False
        self._lone.asked()
        datagrams = self._last_before_close + self._quic.datagrams_to_send(now)
        self._last_before_close, self._unanswered_since = [], None
        if not self._is_validated and self._closing is not None:
            datagrams = self._affordable(datagrams)
        if not datagrams:
            return []
        self._pings.repeat(datagrams, self._datagram_size)
        self._last_sent = now
        self._datagrams_sent += len(datagrams)
        self._bytes_sent += total_size(datagrams)
        if self._datagrams_sent >= self._key_updates.due_at:
            self._update_keys(now)
        if self.paths.has_candidate:
            return self.paths.split(datagrams, now)
        return [(self.paths.active, datagrams)]

    def waits_until(self, now: float) -> float | None:
        """Return how long it can wait, where nothing but the acknowledgement of a lone datagram wants to leave.

        It is asked again when its wake-up comes (`handle_timer`), if nothing else was to be sent before. In a handshake
        the engine has answers of its own, which `unsent_size` does not count.
        """
        was_fed = self._lone.end_turn()
        if self.wants_to_send or not was_fed or self.is_stranger or self._closing is not None:
            return None
        if not self.is_complete or self._unanswered_since is not None or self._quic.unsent_size:
            return None
        if self._quic.round_trip_s >= FAR_ROUND_TRIP_S:
            return None
        return self._lone.acknowledge_at if now < self._lone.acknowledge_at else None

    def deadline(self) -> float | None:
        """Return when `handle_timer` wants to be called."""
        if self._lone.size and not self.wants_to_send:
            return self._lone.acknowledge_at
        when = self._quic.timer()
        if self._is_terminated:
            return self._linger_until
        other = self._handshake_deadline
        if other is None:
            other = self._last_sent + self._settings.keep_alive_s
        return other if when is None or other < when else when

    def handle_timer(self, now: float) -> None:
        self.wants_to_send = True
        if self._linger_until is not None and now >= self._linger_until:
            self._linger_until = None
            return
        when = self._quic.timer()
        if when is not None and when <= now:
            self._quic.handle_timer(now)
        if self._closing is not None:
            return
        if self._handshake_deadline is not None:
            if now >= self._handshake_deadline:
                self._handshake_timed_out()
        elif self.is_complete and now >= self._last_sent + self._settings.keep_alive_s:
            self._ping(now)

    def unreachable(self, reason: str) -> None:
        """The system says that nothing reaches the peer's address. Believed only before the handshake completes."""
        if self._is_client and not self.is_complete and self._closing is None:
            self._closing = Terminated(0, reason, is_application=False, is_local=True)
            self._close_cause = "unreachable"
            self._quic.close(CloseCode.GOODBYE, "")
            self._tell_closed(self._closing)
            self._is_terminated = True

    def close_for(self, code: int, reason: str, cause: str) -> None:
        """Close; `cause` is what the endpoint counts it under."""
        if self._closing is not None:
            return
        self._closing = Terminated(int(code), cut_reason(reason), is_application=True, is_local=True)
        self._close_cause = cause
        if self._is_client and self._unanswered_since is not None:
            # qh3 would leave out the end of the handshake, and the listener could not read the close.
            self._last_before_close = self._quic.datagrams_to_send(self._unanswered_since)
        self._quic.close(code, reason)
        self._changed()

    def abandon(self, reason: str) -> None:
        """End without a word to the peer."""
        self._closing = self._closing or Terminated(0, reason, is_application=False, is_local=True)
        self._tell_closed(self._closing)
        self._is_terminated = True
        self._linger_until = None

    # --- datagrams --------------------------------------------------------------------------------------------------

    def _take(self, buffer: bytes, segment_size: int, now: float) -> None:
        size = len(buffer)
        quic = self._quic
        self._bytes_received += size
        if segment_size < size:
            self._datagrams_received += -(-size // segment_size)
            quic.receive_segments(buffer, segment_size, now)
        else:
            self._datagrams_received += 1
            quic.receive(buffer, now)
        if quic.rejected_datagrams != self._rejected_datagrams:
            size -= self._count_rejected()
            if not size:
                return
        self._last_heard = now
        self._undelivered.fed(size)
        if self._lone.fed(size, segment_size < len(buffer), now):
            self.wants_to_send = True

    def _count_rejected(self) -> int:
        """Count what the engine could not authenticate, which nobody holds; whoever copied a connection id can send as
        much of it as he likes. Returns its bytes."""
        quic = self._quic
        self._owner.counters.drop("not_authenticated", quic.rejected_datagrams - self._rejected_datagrams)
        size = quic.rejected_size - self._rejected_size
        self._rejected_datagrams, self._rejected_size = quic.rejected_datagrams, quic.rejected_size
        return size

    def _feed_from_elsewhere(self, buffer: bytes, segment_size: int, path: Path, now: float) -> None:
        # What came before is drained first, so that an acknowledgement among the events now can only be from `path`.
        self.drain(now)
        is_new = self.paths.received(path, len(buffer), now, self._pings.next)
        self._take(buffer, segment_size, now)
        if is_new:
            self._ping(now)
        self.drain(now, path)

    def _affordable(self, datagrams: list[bytes]) -> list[bytes]:
        # RFC 9000 section 8.1. The engines keep to it, but aioquic not with its close.
        left = AMPLIFICATION * self._bytes_received - self._bytes_sent
        return datagrams if total_size(datagrams) <= left else []

    def _changed(self) -> None:
        """The engine was given something that may want to leave."""
        self.wants_to_send = True
        self._owner.mark_dirty(self)

    def _ping(self, now: float, *, is_pressing: bool = False) -> int:
        self.wants_to_send = True
        uid = self._pings.begin(now, is_pressing=is_pressing)
        self._quic.ping(uid)
        return uid

    def _update_keys(self, now: float) -> None:
        if not self.is_complete or self._closing is not None:
            return
        if self._key_updates.begin(self._datagrams_sent, self._ping(now)):
            self._quic.request_key_update()
            self._owner.counters.key_updates += 1
        self._changed()

    def _check_undelivered(self, now: float) -> None:
        excess = self._undelivered.excess(self._bytes_sent, self._datagrams_received, now)
        if excess is not None and self._closing is None:
            why = f"{excess} bytes of incomplete streams are over the limit of {self._undelivered.allowed}"
            logger.warning("= %s:%d %s", *self.peer_address, why, extra=self._named)
            self._owner.counters.hit("max_unproven_size" if self.is_stranger else "undelivered")
            self.close_for(CloseCode.LIMIT_EXCEEDED, why, "undelivered")

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_event(self, event: EngineEvent, now: float, source: Path | None) -> None:
        if isinstance(event, PingAcknowledged):
            self._on_ping_acknowledged(event.uid, now, source)
        elif isinstance(event, ConnectionIdIssued):
            self._owner.id_issued(self, event.connection_id)
        elif isinstance(event, ConnectionIdRetired):
            self._owner.id_retired(self, event.connection_id)
        elif isinstance(event, Terminated):
            self._on_terminated(event, now)
        elif self._closing is None and self._handler is not None:
            if isinstance(event, Negotiated):
                self._negotiated(event.alpn, self._handler)
            elif isinstance(event, HandshakeCompleted):
                self.is_complete = self._is_validated = True
                self._unanswered_since = now
                self._end_handshake()
                if self._knows_listener(event.listener_certificate):
                    self._handler.connected(event.channel_binding)
            elif isinstance(event, StreamReset):
                self._handler.stream_reset(event.stream_id, event.code)

    def _negotiated(self, alpn: str, handler: ConnectionHandler) -> None:
        self._alpn = alpn
        chosen = handler.negotiated()
        if chosen is not None:
            self._handler = chosen
            chosen.negotiated()

    def _knows_listener(self, certificate: bytes) -> bool:
        """Check what TLS does not: that the certificate is a node's of the mesh that was dialed."""
        if not certificate:
            return True
        try:
            peer = check_listener_certificate(certificate, self._mesh)
        except ProofRefused as refused:
            self.close_for(refused.code, refused.why, "listener_refused")
            return False
        self._listener_node = peer.node_id
        return True

    @property
    def _named(self) -> dict[str, str]:
        """What stands on log lines as the peer: the node id, where it is known, and the address."""
        address = shown_address(self.peer_address)
        return {"peer": f"{self._listener_node.hex()}@{address}" if self._listener_node else address}

    def _on_ping_acknowledged(self, uid: int, now: float, source: Path | None) -> None:
        self._pings.acknowledged(uid, now)
        self._key_updates.acknowledged(uid)
        if source is not None and self.paths.acknowledged(uid, source):
            self._owner.counters.address_changes += 1
            logger.debug("= %s:%d is the peer's address now", *source.address, extra=self._named)

    def _on_terminated(self, event: Terminated, now: float) -> None:
        self._is_terminated = True
        if event.is_local and self._closing is not None:
            self._linger_until = now + LINGER_S
        if self._closing is None:
            self._closing = event
            self._close_cause = "idle" if event.code == 0 and event.is_local else "local" if event.is_local else "peer"
            if event.is_local and event.code:
                self._linger_until = now + LINGER_S
        self._tell_closed(self._closing)

    def _tell_closed(self, termination: Terminated) -> None:
        handler, self._handler = self._handler, None
        self._end_handshake()
        self._no_stranger()
        if handler is None:
            return
        self._owner.counters.close(self._close_cause or "local")
        try:
            handler.closed(termination)
        except Exception:
            self._owner.counters.handler_errors += 1
            logger.exception("! %s:%d the session failed while it was closed", *self.peer_address, extra=self._named)

    def _end_handshake(self) -> None:
        if self._handshake_deadline is not None:
            self._handshake_deadline = None
            self._owner.handshake_ended(self)

    def _no_stranger(self) -> None:
        if self.is_stranger:
            self.is_stranger = False
            self.wants_to_send = True
            self._owner.stranger_gone(self)

    def _handshake_timed_out(self) -> None:
        self._owner.counters.hit("handshake_timeout_s")
        timeout_s = self._settings.handshake_timeout_s
        why = f"the handshake with {self.peer_address[0]} port {self.peer_address[1]} took over {timeout_s:g} s"
        self.close_for(CloseCode.HANDSHAKE_TIMEOUT, why, "handshake_timeout")

    def _handler_failed(self, error: Exception) -> None:
        self._owner.counters.handler_errors += 1
        logger.error("! %s:%d the session failed", *self.peer_address, exc_info=error, extra=self._named)
        self.close_for(CloseCode.INTERNAL_ERROR, "internal error", "handler_error")
