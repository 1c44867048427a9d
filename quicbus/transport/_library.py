"""What the engines on aioquic and qh3 share: qh3 is a fork of aioquic and kept its calls without I/O.

`LibraryConnection` is an `EngineConnection` on either library's `QuicConnection`. It imports neither; `_aioquic.py`
and `_qh3.py` derive from it and supply what differs.

Where a fact can't be had from the libraries' public interface, an attribute of `QuicConnection` is read; the
conformance tests notice when one changes:

- `_close_event`: why a connection is ending. Both report that only when the closing period is over, which would let a
  refused client wait for up to a second (2 s before an RTT is measured).
- What `_aioquic.py` and `_qh3.py` read in the methods under "what differs": aioquic offers no certificate of the peer,
  and neither says who closed or, before it is used up, how many streams may be opened.
- Which datagrams were authenticated: aioquic's window of received packet numbers, the reports of qh3's core.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from quicbus import limits
from quicbus.exceptions import InvalidSetting, LimitExceeded
from quicbus.transport import engine as seam

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.identity.binding import ChannelBindingSink
    from quicbus.transport._qlog import QlogFile

__all__ = ["LibraryConnection", "check_configuration", "quiet_library_logger"]

PEER: Final = ("192.0.2.1", 4433)
"""What the libraries are told the peer's address is, whatever it is (RFC 5737: never a real one)."""

MAX_DATA: Final = 16 * 1024 * 1024
MAX_STREAM_DATA: Final = 8 * 1024 * 1024
"""Flow control of QUIC itself, larger than what the fastest path holds under way. Both libraries open these windows as
bytes arrive, read or not, so they do not hold up a sender: quicbus' credit does."""

QUIC_VERSION_1: Final = 1

INTERNAL_ERROR: Final = 0x1
NO_APPLICATION_PROTOCOL: Final = 0x100 + 120
_IDLE_REASON: Final = "Idle timeout"


def check_configuration(configuration: seam.EngineConfiguration) -> None:
    """Refuse what would make a library fall back to something less safe, or fail later without a clear reason."""
    if configuration.is_client:
        # Without an authority both libraries trust the system's; without a name aioquic takes any certificate.
        if not configuration.authority:
            raise InvalidSetting("authority", "a dialer needs the authority's certificate")
        if not configuration.server_name:
            raise InvalidSetting("server_name", "a dialer needs the name that the listener's certificate must carry")
    elif not (configuration.certificate_chain and configuration.private_key):
        raise InvalidSetting("certificate", "a listener needs a certificate and its private key")


def quiet_library_logger() -> None:
    """Keep what both libraries log about peers (logger `quic`) out of the application's log, unless it asked for it.

    An application that wants it sets that logger's level before the first connection.
    """
    library_logger = logging.getLogger("quic")
    if library_logger.level == logging.NOTSET:
        library_logger.setLevel(logging.CRITICAL)


class _Closing(Protocol):
    error_code: int
    frame_type: int | None
    reason_phrase: str


class QuicLibrary(Protocol):
    """The part of both libraries' `QuicConnection` that is used here."""

    host_cid: bytes
    configuration: Any
    _close_event: _Closing | None

    def connect(self, addr: tuple[str, int], now: float) -> None: ...
    def receive_datagram(self, data: bytes, addr: tuple[str, int], now: float) -> None: ...
    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]: ...
    def next_event(self) -> object | None: ...
    def get_timer(self) -> float | None: ...
    def handle_timer(self, now: float) -> None: ...
    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...
    def reset_stream(self, stream_id: int, error_code: int) -> None: ...
    def stop_stream(self, stream_id: int, error_code: int) -> None: ...
    def send_ping(self, uid: int) -> None: ...
    def request_key_update(self) -> None: ...
    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None: ...


class LibraryConnection:
    """One connection of a library behind the seam. What a library raises is answered here and goes no further."""

    __slots__ = (
        "_binding",
        "_configuration",
        "_first_ids",
        "_last_words",
        "_late_datagrams",
        "_next_stream_id",
        "_open_streams",
        "_own_close",
        "_qlog",
        "_quic",
        "_termination",
        "_told",
        "_was_told",
        "rejected_datagrams",
        "rejected_size",
    )

    _circles: ClassVar[tuple[str, ...]] = ()
    """Attributes of the library's connection whose parts refer to each other."""
    _mapping: ClassVar[dict[type, Callable[[LibraryConnection, Any], seam.EngineEvent | None]]]

    def __init__(
        self,
        quic: object,
        configuration: seam.EngineConfiguration,
        binding: ChannelBindingSink,
        qlog: QlogFile | None,
        first_ids: tuple[bytes, ...] = (),
    ) -> None:
        self._quic = cast("QuicLibrary", quic)
        self._configuration = configuration
        self._binding: ChannelBindingSink | None = binding
        self._qlog = qlog
        self._first_ids = first_ids
        self._open_streams: set[int] = set()
        self._next_stream_id = 2 if configuration.is_client else 3
        self._own_close: seam.Terminated | None = None
        self._termination: seam.Terminated | None = None
        self._was_told = False
        self._told = 0.0
        """The latest time that the library was told, perhaps a little ahead (`_qh3.py`): its clock may not go back."""
        self._last_words: list[bytes] = []
        self._late_datagrams = 0
        self.rejected_size = 0
        self.rejected_datagrams = 0

    # --- what differs -----------------------------------------------------------------------------------------------

    def _peer_closed(self) -> bool:
        """Tell whether the close that is under way is the peer's."""
        raise NotImplementedError

    def _listener_certificate(self) -> bytes | None:
        """Return what the listener showed in the handshake, in DER."""
        raise NotImplementedError

    def _streams_allowed(self) -> int:
        """Return how many unidirectional streams the peer allows from the first one on; 0 while that is not known."""
        raise NotImplementedError

    @property
    def unsent_size(self) -> int:
        raise NotImplementedError

    @property
    def round_trip_s(self) -> float:
        raise NotImplementedError

    def _datagrams_to_send(self, now: float) -> list[bytes]:
        return [datagram for datagram, _ in self._quic.datagrams_to_send(now)]

    def _close_to_send(self, now: float) -> list[bytes]:
        """Once more, for the close, after an exception while sending."""
        try:
            return self._datagrams_to_send(now)
        except BaseException as error:
            self._failed(error)
            return []

    # --- datagrams and time -----------------------------------------------------------------------------------------

    @property
    def connection_ids(self) -> tuple[bytes, ...]:
        return self._first_ids if self._was_told else (self._quic.host_cid, *self._first_ids)

    def connect(self, now: float) -> None:
        self._guarded(self._quic.connect, PEER, now)

    def receive(self, datagram: bytes, now: float) -> None:
        if self._termination is not None:
            self._late_datagrams += 1
            return
        try:
            self._quic.receive_datagram(datagram, PEER, max(now, self._told))
        except BaseException as error:
            self._failed(error)

    def receive_segments(self, buffer: bytes, segment_size: int, now: float) -> None:
        for start in range(0, len(buffer), segment_size):
            self.receive(buffer[start : start + segment_size], now)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        if self._termination is not None:
            return self._repeated_close()
        try:
            datagrams = self._datagrams_to_send(now)
        except BaseException as error:
            self._failed(error)
            datagrams = self._close_to_send(now)
        closing = self._quic._close_event
        if closing is not None and self._owes_close():
            self._last_words = datagrams[-1:]
            self._terminate(closing, is_local=True)
        return datagrams

    def timer(self) -> float | None:
        if self._termination is not None:
            # Due at once: whoever sends the last datagrams and asks for events later still learns of the end.
            return None if self._was_told else 0.0
        if self._owes_close():
            return 0.0
        try:
            return self._quic.get_timer()
        except BaseException as error:
            self._failed(error)
            return None

    def handle_timer(self, now: float) -> None:
        # qh3 counts its closing period from the last time that it was called at: on a quiet connection that is over
        # before the close was sent, and would swallow it.
        if self._termination is None and not self._owes_close():
            self._guarded(self._quic.handle_timer, max(now, self._told))

    def next_event(self) -> seam.EngineEvent | None:
        if self._was_told:
            return None
        while (event := self._quic.next_event()) is not None:
            mapping = self._mapping.get(type(event))
            mapped = mapping(self, event) if mapping is not None else None
            if mapped is not None:
                return mapped
        closing = self._quic._close_event
        if self._termination is None and closing is not None and self._own_close is None and self._peer_closed():
            self._terminate(closing, is_local=False)
        if self._termination is not None:
            self._forget()
        return self._termination

    # --- streams ----------------------------------------------------------------------------------------------------

    def open_stream(self) -> int:
        allowed = 0 if self._was_told else self._streams_allowed()
        opened = self._next_stream_id // 4
        if len(self._open_streams) >= limits.MAX_INCOMING_STREAMS:
            raise LimitExceeded("streams", len(self._open_streams) + 1, limits.MAX_INCOMING_STREAMS)
        if 0 < allowed <= opened:
            raise LimitExceeded("streams", opened + 1, allowed)
        stream_id = self._next_stream_id
        self._next_stream_id += 4
        self._open_streams.add(stream_id)
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        if stream_id not in self._open_streams or self._is_ending():
            return
        if end:
            self._open_streams.discard(stream_id)
        try:
            self._quic.send_stream_data(stream_id, data, end)
        except BaseException as error:
            self._failed(error)

    def reset_stream(self, stream_id: int, code: int) -> None:
        if not self._is_ending():
            self._open_streams.discard(stream_id)
            self._attempted(self._quic.reset_stream, stream_id, code)

    def stop_stream(self, stream_id: int, code: int) -> None:
        if not self._is_ending():
            self._attempted(self._quic.stop_stream, stream_id, code)

    # --- the connection ---------------------------------------------------------------------------------------------

    def ping(self, uid: int) -> None:
        if not self._is_ending():
            self._guarded(self._quic.send_ping, uid)

    def request_key_update(self) -> None:
        if not self._is_ending():
            self._attempted(self._quic.request_key_update)

    def close(self, code: int, reason: str) -> None:
        if self._is_ending():
            return
        reason = seam.cut_reason(reason)
        self._own_close = seam.Terminated(int(code), reason, is_application=True, is_local=True)
        self._guarded(self._quic.close, int(code), None, reason)
        if self._quic._close_event is None:  # qh3 before its first datagram: there is nobody to tell
            self._termination = self._own_close

    # --- ending -----------------------------------------------------------------------------------------------------

    def _owes_close(self) -> bool:
        """Tell whether this side gave up the connection and has not told the peer yet."""
        return self._quic._close_event is not None and (self._own_close is not None or not self._peer_closed())

    def _is_ending(self) -> bool:
        return self._termination is not None or self._quic._close_event is not None

    def _guarded(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            self._failed(error)

    def _attempted(self, call: Callable[..., object], *arguments: Any) -> None:
        """Make a call that may come too late: the stream is gone already, or keys can't be updated yet."""
        try:
            call(*arguments)
        except (AssertionError, ValueError, RuntimeError):
            pass
        except BaseException as error:
            if not self._is_refusal(error):
                self._failed(error)

    def _is_refusal(self, error: BaseException) -> bool:
        """Tell whether `error` says no more than that a call came too early or too late."""
        return False

    def _failed(self, error: BaseException) -> None:
        """End the connection after an exception that only the peer's bytes, or the library, can have caused.

        A panic in qh3's Rust core is a `BaseException`.
        """
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
            raise error
        if self._is_ending():
            return
        code = int(getattr(error, "error_code", INTERNAL_ERROR))
        reason = seam.cut_reason(str(getattr(error, "reason_phrase", "")) or f"{type(error).__name__}: {error}")
        try:
            self._quic.close(code, 0, reason)
        except BaseException as second:
            if isinstance(second, (KeyboardInterrupt, SystemExit)):
                raise
        if self._quic._close_event is None:
            self._termination = seam.Terminated(code, reason, is_application=False, is_local=True)

    def _terminate(self, closing: _Closing, *, is_local: bool) -> None:
        if self._own_close is not None:
            self._termination = self._own_close
            return
        code, reason = int(closing.error_code), closing.reason_phrase
        # A side that gives up by itself (no common version) has no frame type either.
        is_application = closing.frame_type is None and not is_local
        if reason == _IDLE_REASON and not is_application:
            code, is_local = 0, True
        self._termination = seam.Terminated(code, reason, is_application, is_local)

    def _forget(self) -> None:
        """The end was told: nothing is asked of the library any more.

        Its objects refer to each other in circles, 50 to 90 KB of them, which Python would find only some time later.
        """
        self._first_ids = self.connection_ids
        self._was_told = True
        self._open_streams.clear()
        self._binding = None
        if self._qlog is not None:
            self._qlog.write()
            self._qlog = None
        held = vars(self._quic)
        circles = [held[name] for name in self._circles if held[name] is not None]
        held.clear()
        for circle in circles:
            vars(circle).clear()

    def _repeated_close(self) -> list[bytes]:
        # RFC 9000 section 10.2.1: the close may be lost, so it is said again, to the 1st, 2nd, 4th, 8th ... datagram.
        late = self._late_datagrams
        if late and late & (late - 1) == 0:
            self._late_datagrams += 1
            return self._last_words
        return []

    # --- events -----------------------------------------------------------------------------------------------------

    @classmethod
    def map_events(cls, events: Any) -> None:
        """Say which method maps which of the library's events; `events` is its module of them."""
        cls._mapping = {
            events.StreamDataReceived: cls._on_stream_data,
            events.ProtocolNegotiated: cls._on_negotiated,
            events.HandshakeCompleted: cls._on_completed,
            events.StreamReset: cls._on_reset,
            events.StopSendingReceived: cls._on_stopped,
            events.PingAcknowledged: cls._on_ping,
            events.ConnectionIdIssued: cls._on_id_issued,
            events.ConnectionIdRetired: cls._on_id_retired,
            events.ConnectionTerminated: cls._on_terminated,
        }

    def _on_stream_data(self, event: Any) -> seam.EngineEvent:
        return seam.StreamData(event.stream_id, event.data, event.end_stream)

    def _on_negotiated(self, event: Any) -> seam.EngineEvent | None:
        if event.alpn_protocol not in self._configuration.alpns:  # a peer that offers none at all
            self._guarded(self._quic.close, NO_APPLICATION_PROTOCOL, 0, "no common application protocol")
            return None
        return seam.Negotiated(event.alpn_protocol)

    def _on_completed(self, event: Any) -> seam.EngineEvent | None:
        sink, self._binding = self._binding, None
        if self._is_ending() or sink is None:
            return None
        self._quic.configuration.secrets_log_file = None
        if sink.binding is None:
            self._guarded(self._quic.close, INTERNAL_ERROR, 0, "no channel binding")
            return None
        if not self._configuration.is_client:
            return seam.HandshakeCompleted(sink.binding)
        certificate = self._listener_certificate()
        if not certificate:
            self._guarded(self._quic.close, INTERNAL_ERROR, 0, "no certificate of the listener")
            return None
        return seam.HandshakeCompleted(sink.binding, certificate)

    def _on_reset(self, event: Any) -> seam.EngineEvent:
        return seam.StreamReset(event.stream_id, event.error_code)

    def _on_stopped(self, event: Any) -> seam.EngineEvent:
        self._open_streams.discard(event.stream_id)
        return seam.StreamReset(event.stream_id, event.error_code)

    def _on_ping(self, event: Any) -> seam.EngineEvent:
        return seam.PingAcknowledged(event.uid)

    def _on_id_issued(self, event: Any) -> seam.EngineEvent:
        return seam.ConnectionIdIssued(event.connection_id)

    def _on_id_retired(self, event: Any) -> seam.EngineEvent:
        return seam.ConnectionIdRetired(event.connection_id)

    def _on_terminated(self, event: Any) -> seam.EngineEvent | None:
        if self._termination is None:
            self._terminate(event, is_local=not self._peer_closed())
        return None
