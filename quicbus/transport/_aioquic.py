"""The engine on aioquic: pure Python above OpenSSL, there on every platform."""

from __future__ import annotations

import ssl
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO, cast

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.logger import QuicLogger
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from quicbus.identity.binding import ChannelBindingSink
from quicbus.transport import _library
from quicbus.transport._qlog import QlogFile

if TYPE_CHECKING:
    from quicbus.transport.engine import EngineConfiguration

__all__ = ["AioquicEngine"]


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
    __slots__ = ()

    def _peer_closed(self) -> bool:
        return cast("Any", self._quic)._state is QuicConnectionState.DRAINING

    def _streams_allowed(self) -> int:
        # aioquic queues what the peer does not allow yet, without a word.
        return cast("int", cast("Any", self._quic)._remote_max_streams_uni)


AioquicConnection.map_events(events)


@lru_cache(maxsize=16)
def _shared_configuration(configuration: EngineConfiguration) -> QuicConfiguration:
    """Parse certificates and keys once for all connections of a configuration."""
    _library.check_configuration(configuration)
    shared = QuicConfiguration(
        alpn_protocols=[configuration.alpn],
        congestion_control_algorithm="cubic",
        idle_timeout=configuration.idle_timeout_s,
        is_client=configuration.is_client,
        max_data=_library.MAX_DATA,
        max_datagram_size=configuration.max_datagram_size,
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
