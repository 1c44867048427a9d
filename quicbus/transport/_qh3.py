"""The engine on qh3: aioquic's calls above a packet core in Rust, at about a sixth of the cost per packet.

Datagrams are taken from the core (`_core.poll_transmit`), past `QuicConnection.datagrams_to_send`: where a listener
may not send more yet, the core raises, and the datagrams that it had made before would be lost with the exception.
Handshakes without Retry then take up to a second, or fail; taken one by one they need one round trip more.
"""

from __future__ import annotations

import ssl
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.logger import QuicLogger

from quicbus.identity.binding import ChannelBindingSink
from quicbus.transport import _library
from quicbus.transport._qlog import QlogFile
from quicbus.transport.engine import StreamData, Terminated
from quicbus.wire.varint import decode_varint, encode_varint

if TYPE_CHECKING:
    from quicbus.transport.engine import EngineConfiguration, EngineEvent

__all__ = ["Qh3Engine"]


LARGEST_DATAGRAM_SIZE: Final = 65_527
"""What UDP can carry (RFC 9000 section 18.2)."""
QH3_DATAGRAM_SIZE: Final = 1472
"""What qh3 announces for every dialer."""
AHEAD_S: Final = 0.001
"""With data to send the core is told a time so much ahead. Then the acknowledgement of a lone datagram, which it sends
by itself after just that time, goes with the data. And what its pacer holds back for less leaves at once: timers know
no less, and it counts small datagrams as full ones, so that within a host the third small message in half a
millisecond would wait for the timer."""
_MAX_UDP_PAYLOAD_SIZE: Final = 0x03
"""The id of that transport parameter."""


class Qh3Engine:
    """`Engine` on qh3."""

    name = "qh3"
    versions = (_library.QUIC_VERSION_1,)

    def __init__(self) -> None:
        _library.quiet_library_logger()

    def dial(self, configuration: EngineConfiguration) -> Qh3Connection:
        own, sink, qlog = _own_configuration(configuration)
        return Qh3Connection(_Dialer(configuration=own), configuration, sink, qlog)

    def accept(
        self,
        configuration: EngineConfiguration,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None,
    ) -> Qh3Connection:
        own, sink, qlog = _own_configuration(configuration)
        quic = QuicConnection(
            configuration=own,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        first = retry_source_connection_id or original_destination_connection_id
        return Qh3Connection(quic, configuration, sink, qlog, (first,))


class _Dialer(QuicConnection):
    """qh3 announces that a dialer takes datagrams of 1,472 bytes, whatever it is set to; listeners keep to that."""

    def _create_tls(self, remote_source_cid: bytes | None) -> Any:
        bridge = super()._create_tls(remote_source_cid)
        if self.configuration.max_datagram_size > QH3_DATAGRAM_SIZE:
            extensions = bridge.tls.handshake_extensions
            bridge.tls.handshake_extensions = [(kind, _takes_all_sizes(data)) for kind, data in extensions]
        return bridge


def _takes_all_sizes(parameters: bytes) -> bytes:
    """Return encoded transport parameters (RFC 9000 section 18) with another `max_udp_payload_size`."""
    parts: list[bytes] = []
    offset = 0
    while (number := decode_varint(parameters, offset)) is not None:
        size = decode_varint(parameters, number[1])
        assert size is not None
        end = size[1] + size[0]
        if number[0] != _MAX_UDP_PAYLOAD_SIZE:
            parts.append(parameters[offset:end])
        offset = end
    largest = encode_varint(LARGEST_DATAGRAM_SIZE)
    return b"".join((*parts, encode_varint(_MAX_UDP_PAYLOAD_SIZE), encode_varint(len(largest)), largest))


class _FetchedEvent:
    """Stands for the core while qh3 takes an event that was fetched from it already, and those behind it."""

    def __init__(self, core: Any, event: Any) -> None:
        self._core = core
        self._event = event

    def next_event(self) -> Any:
        event, self._event = self._event, None
        return self._core.next_event() if event is None else event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


class Qh3Connection(_library.LibraryConnection):
    __slots__ = ()

    _circles = ("_tls",)

    @property
    def unsent_size(self) -> int:
        core = self._live_core()
        if core is not None:
            return cast("int", core.get_send_buffer_size())
        return 0 if self._was_told else cast("int", cast("Any", self._quic).get_send_buffer_size())

    @property
    def round_trip_s(self) -> float:
        core = None if self._was_told else cast("Any", self._quic)._core
        return 0.0 if core is None else core.smoothed_rtt or 0.0

    def receive(self, datagram: bytes, now: float) -> None:
        core = self._live_core() if datagram else None
        if core is None:
            super().receive(datagram, now)
        else:
            self._receive(core, datagram, len(datagram), now)

    def receive_segments(self, buffer: bytes, segment_size: int, now: float) -> None:
        core = self._live_core()
        if core is not None:
            self._receive(core, buffer, segment_size, now)
        elif self._termination is not None:
            self._late_datagrams += 1
        else:
            told = max(now, self._told)
            self._guarded(cast("Any", self._quic).receive_gro_buffer, buffer, segment_size, _library.PEER, told)

    def next_event(self) -> EngineEvent | None:
        if self._termination is None:
            quic = cast("Any", self._quic)
            waiting = quic._events
            if not waiting and quic._close_event is None:
                return None
            if waiting and type(waiting[0]) is StreamData:
                return cast("StreamData", waiting.popleft())
        return super().next_event()

    def timer(self) -> float | None:
        core = self._live_core()
        if core is None:
            return super().timer()
        try:
            timer = core.get_timer()
        except BaseException as error:
            self._failed(error)
            return None
        return None if timer is None else cast("float", timer[1])

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        core = None if end else self._live_core()
        if core is None or stream_id not in cast("Any", self._quic)._created_local_stream_ids:
            super().send(stream_id, data, end)
        elif stream_id in self._open_streams:
            try:
                core.send_stream(stream_id, data, False)
            except BaseException as error:
                self._failed(error)

    def _live_core(self) -> Any:
        """Return the core where it can be asked past qh3's Python: after the handshake, before any end, untraced."""
        if self._termination is not None or self._qlog is not None:
            return None
        quic = cast("Any", self._quic)
        return quic._core if quic._handshake_complete and quic._close_event is None else None

    def _receive(self, core: Any, buffer: bytes, segment_size: int, now: float) -> None:
        """Do what `QuicConnection.receive_gro_buffer` does, and read the report that it drops."""
        try:
            # Datagrams, bytes, packets taken, duplicates, packets that nobody could decrypt, events.
            _, _, _, duplicates, undecryptable, _ = core.receive_gro_buffer(
                buffer, segment_size, _library.PEER, now if now > self._told else self._told
            )
            self._take_events(core)
        except BaseException as error:
            self._failed(error)
            return
        rejected = duplicates + undecryptable
        if rejected:
            self.rejected_datagrams += rejected
            self.rejected_size += min(rejected * segment_size, len(buffer))

    def _take_events(self, core: Any) -> None:
        """Do what `QuicConnection._drain_core` does, but put `StreamData` into qh3's queue in place of its own kind."""
        quic = cast("Any", self._quic)
        while (event := core.next_event()) is not None:
            if event[0] != "stream_data":
                quic._core = _FetchedEvent(core, event)
                try:
                    quic._drain_core()
                finally:
                    quic._core = core
                return
            quic._events.append(StreamData(event[1], event[2], event[3]))

    def _peer_closed(self) -> bool:
        core = cast("Any", self._quic)._core
        return core is not None and core.state == "draining"

    def _on_terminated(self, event: Any) -> EngineEvent | None:
        if self._termination is None and self._own_close is None and not event.error_code and not event.reason_phrase:
            # A peer's own close is noticed before its closing period ends, so this can't be one.
            self._termination = Terminated(0, "the peer lost the connection (stateless reset)", False, False)
        return super()._on_terminated(event)

    def _listener_certificate(self) -> bytes | None:
        certificate = cast("Any", self._quic).get_peercert()
        return None if certificate is None else cast("bytes", certificate.public_bytes())

    def _streams_allowed(self) -> int:
        return cast("int", cast("Any", self._quic).max_concurrent_uni_streams)

    def _is_refusal(self, error: BaseException) -> bool:
        return isinstance(error, QuicConnectionError)

    def _datagrams_to_send(self, now: float) -> list[bytes]:
        quic = cast("Any", self._quic)
        core = quic._core
        datagrams: list[bytes] = []
        if core is None:
            return datagrams
        if core.get_send_buffer_size():
            now += AHEAD_S
        now = self._told = max(now, self._told)
        try:
            while (transmit := core.poll_transmit(now)) is not None:
                datagrams.append(transmit[0])
        except RuntimeError as error:
            # A listener may not send more yet (RFC 9000 section 8.1); the next datagram or timer goes on.
            if "packet builder capacity" not in str(error):
                raise
        if self._qlog is not None:
            for datagram in datagrams:
                quic._log_datagram("datagrams_sent", datagram)
                quic._log_packets("packet_sent", datagram)
        return datagrams


Qh3Connection.map_events(events)
Qh3Connection._mapping[StreamData] = lambda _, event: event


@lru_cache(maxsize=16)
def _shared_configuration(configuration: EngineConfiguration) -> QuicConfiguration:
    """Parse certificates and keys once for all connections of a configuration."""
    _library.check_configuration(configuration)
    shared = QuicConfiguration(
        alpn_protocols=list(configuration.alpns),
        idle_timeout=configuration.idle_timeout_s,
        is_client=configuration.is_client,
        max_data=_library.MAX_DATA,
        max_datagram_size=configuration.max_datagram_size,
        max_stream_data=_library.MAX_STREAM_DATA,
        probe_datagram_size=configuration.probe_datagram_size,
        supported_versions=[_library.QUIC_VERSION_1],
    )
    if configuration.is_client:
        shared.load_verify_locations(cadata=configuration.authority)
        shared.server_name = configuration.server_name
        shared.verify_mode = ssl.CERT_REQUIRED
    else:
        shared.load_cert_chain(configuration.certificate_chain, configuration.private_key)
    return shared


def _own_configuration(
    configuration: EngineConfiguration,
) -> tuple[QuicConfiguration, ChannelBindingSink, QlogFile | None]:
    own = copy(_shared_configuration(configuration))
    sink = ChannelBindingSink()
    own.secrets_log_file = cast("TextIO", sink)
    qlog = None
    if configuration.qlog_dir is not None:
        own.quic_logger = QuicLogger()  # not shared: a trace is found by its place in the logger
        qlog = QlogFile(own.quic_logger, configuration.qlog_dir, configuration.is_client)
    return own, sink, qlog
