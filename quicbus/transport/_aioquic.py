"""The engine on aioquic: pure Python above OpenSSL, there on every platform."""

from __future__ import annotations

import ssl
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.logger import QuicLogger
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.recovery import QuicPacketNumberWindow
from aioquic.tls import Epoch
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from quicbus import limits
from quicbus.identity.binding import ChannelBindingSink
from quicbus.transport import _library
from quicbus.transport._aioquic_congestion import CONGESTION_CONTROL
from quicbus.transport._qlog import QlogFile

if TYPE_CHECKING:
    from quicbus.transport.engine import EngineConfiguration, EngineEvent

__all__ = ["AioquicEngine"]

LARGEST_DATAGRAM_SIZE: Final = 16_383
"""aioquic writes lengths of STREAM and CRYPTO frames into 14 bits (RFC 9000 section 16), whatever they are."""
FIRST_WINDOW: Final = limits.UNDELIVERED_BEFORE_PROOF
"""Bytes that a peer may have under way at first; it grows as fast as slow start does."""


class AioquicEngine:
    """`Engine` on aioquic."""

    name = "aioquic"
    versions = (_library.QUIC_VERSION_1,)

    def __init__(self) -> None:
        _library.quiet_library_logger()

    def dial(self, configuration: EngineConfiguration) -> AioquicConnection:
        own, sink, qlog = _own_configuration(configuration)
        return AioquicConnection(QuicConnection(configuration=own), configuration, sink, qlog)

    def accept(
        self,
        configuration: EngineConfiguration,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None,
    ) -> AioquicConnection:
        own, sink, qlog = _own_configuration(configuration)
        quic = QuicConnection(
            configuration=own,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        first = retry_source_connection_id or original_destination_connection_id
        return AioquicConnection(quic, configuration, sink, qlog, (first,))


class AioquicConnection(_library.LibraryConnection):
    __slots__ = ("_numbers", "_window")

    def __init__(
        self,
        quic: QuicConnection,
        configuration: EngineConfiguration,
        binding: ChannelBindingSink,
        qlog: QlogFile | None,
        first_ids: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(quic, configuration, binding, qlog, first_ids)
        self._window = _ReceiveWindow()
        self._numbers: _CountedNumbers | None = None
        cast("Any", quic)._local_max_data = self._window

    @property
    def unsent_size(self) -> int:
        if self._was_told:
            return 0
        streams = cast("Any", self._quic)._streams.values()
        return sum([stream.sender._buffer_stop - stream.sender._buffer_start for stream in streams])

    @property
    def round_trip_s(self) -> float:
        return 0.0 if self._was_told else cast("float", cast("Any", self._quic)._loss._rtt_smoothed)

    def receive(self, datagram: bytes, now: float) -> None:
        numbers = self._numbers
        if numbers is None:
            super().receive(datagram, now)
            return
        before = numbers.taken
        super().receive(datagram, now)
        if numbers.taken == before and self._termination is None:
            self.rejected_datagrams += 1
            self.rejected_size += len(datagram)

    def ping(self, uid: int) -> None:
        """RFC 9002 section 7.5: what looks whether the peer is there must not wait for room in the congestion window,
        which a path that has broken off leaves full."""
        super().ping(uid)
        cast("Any", self._quic)._probe_pending = True

    def _on_completed(self, event: Any) -> EngineEvent | None:
        space = cast("Any", self._quic)._spaces[Epoch.ONE_RTT]
        self._numbers = space.received_packets = _CountedNumbers(space.received_packets)
        return super()._on_completed(event)

    def _on_stream_data(self, event: Any) -> EngineEvent:
        self._window.released += len(event.data)
        return super()._on_stream_data(event)

    def _on_reset(self, event: Any) -> EngineEvent:
        stream = cast("Any", self._quic)._streams.get(event.stream_id)
        if stream is not None:  # what was waiting in it will never come out
            self._window.released += stream.receiver.highest_offset - stream.receiver.starting_offset()
        return super()._on_reset(event)

    def _peer_closed(self) -> bool:
        return cast("Any", self._quic)._state is QuicConnectionState.DRAINING

    def _listener_certificate(self) -> bytes | None:
        certificate = cast("Any", self._quic).tls._peer_certificate
        return None if certificate is None else cast("bytes", certificate.public_bytes(Encoding.DER))

    def _streams_allowed(self) -> int:
        # aioquic queues what the peer does not allow yet, without a word.
        return cast("int", cast("Any", self._quic)._remote_max_streams_uni)


AioquicConnection.map_events(events)


class _CountedNumbers(QuicPacketNumberWindow):
    """Takes the place of the numbers of received packets, which aioquic adds to once a packet was authenticated."""

    def __init__(self, numbers: QuicPacketNumberWindow) -> None:
        super().__init__()
        self.__dict__.update(vars(numbers))
        self.taken = 0

    def add(self, packet_number: int) -> None:
        self.taken += 1
        super().add(packet_number)


class _ReceiveWindow:
    """Takes the place of a connection's `Limit` for MAX_DATA, and grows with what came out of streams in order.

    aioquic doubles that limit whenever half of it was used, counts a stream by its highest offset, and fills the gap
    before it with zeros. With one small datagram a round trip, each at the end of the window, a stranger would make
    it hold as much memory as there is.
    """

    __slots__ = ("_value", "released", "sent", "used")

    frame_type = QuicFrameType.MAX_DATA
    name = "max_data"

    def __init__(self) -> None:
        self._value = self.sent = FIRST_WINDOW
        self.used = 0
        """Counted by aioquic: the highest offsets of all streams."""
        self.released = 0
        """Bytes that left the streams."""

    @property
    def value(self) -> int:
        return self._value

    @value.setter
    def value(self, wish: int) -> None:
        """aioquic wishes for more in each packet; a step is half a window, so that few packets carry a MAX_DATA."""
        window = min(max(self.released, FIRST_WINDOW), _library.MAX_DATA)
        if self.released + window - self._value >= window // 2:
            self._value = self.released + window


@lru_cache(maxsize=16)
def _shared_configuration(configuration: EngineConfiguration) -> QuicConfiguration:
    """Parse certificates and keys once for all connections of a configuration."""
    _library.check_configuration(configuration)
    shared = QuicConfiguration(
        alpn_protocols=list(configuration.alpns),
        congestion_control_algorithm=CONGESTION_CONTROL,
        idle_timeout=configuration.idle_timeout_s,
        is_client=configuration.is_client,
        max_data=FIRST_WINDOW,
        max_datagram_size=min(configuration.max_datagram_size, LARGEST_DATAGRAM_SIZE),
        max_stream_data=_library.MAX_STREAM_DATA,
        supported_versions=[_library.QUIC_VERSION_1],
    )
    if configuration.is_client:
        shared.cadata = configuration.authority
        shared.server_name = configuration.server_name
        shared.verify_mode = ssl.CERT_REQUIRED
    else:
        shared.certificate, *shared.certificate_chain = x509.load_pem_x509_certificates(configuration.certificate_chain)
        shared.private_key = load_pem_private_key(configuration.private_key, None)
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
