"""QUIC packets as far as an endpoint reads and writes them itself: headers, version negotiation, Retry.

aioquic's helpers do it for every engine (RFC 9000 section 17; the memory engine's packets have the same outside).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import (
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "CONNECTION_ID_SIZE",
    "INITIAL_SIZE_MIN",
    "MEMORY_VERSION",
    "QUIC_VERSION_1",
    "PacketHeader",
    "PacketType",
    "has_token",
    "make_retry",
    "make_version_negotiation",
    "parse_header",
    "short_header_id",
]

CONNECTION_ID_SIZE = 8
"""Of every id that an engine here chooses: a short header does not say how long its id is."""
QUIC_VERSION_1 = 1
MEMORY_VERSION = 0x71624D31
"""Of the memory engine ("qbM1"): no QUIC implementation takes its packets for its own, nor the other way round."""
INITIAL_SIZE_MIN = 1200
"""A shorter datagram with an Initial is dropped (RFC 9000 section 14.1)."""


class PacketType(Enum):
    INITIAL = "initial"
    ZERO_RTT = "0-RTT"
    HANDSHAKE = "handshake"
    RETRY = "retry"
    VERSION_NEGOTIATION = "version negotiation"
    ONE_RTT = "1-RTT"
    OTHER_VERSION = "other version"
    """A long header of a version that is not supported: only the version and the ids mean anything."""


_TYPES = {
    QuicPacketType.INITIAL: PacketType.INITIAL,
    QuicPacketType.ZERO_RTT: PacketType.ZERO_RTT,
    QuicPacketType.HANDSHAKE: PacketType.HANDSHAKE,
    QuicPacketType.RETRY: PacketType.RETRY,
    QuicPacketType.VERSION_NEGOTIATION: PacketType.VERSION_NEGOTIATION,
}


class PacketHeader(msgspec.Struct, frozen=True):
    """The header of the first packet in a datagram. `version` is 0 in a short header; Initials and
    Retries may have a token."""

    type: PacketType
    version: int
    destination_connection_id: bytes
    source_connection_id: bytes = b""
    token: bytes = b""


def short_header_id(datagram: bytes) -> bytes | None:
    """Return the destination id of a datagram with a short header, else `None`. The fast path of demultiplexing."""
    if len(datagram) > CONNECTION_ID_SIZE and datagram[0] & 0xC0 == 0x40:
        return datagram[1 : 1 + CONNECTION_ID_SIZE]
    return None


def has_token(datagram: bytes) -> bool:
    """Tell whether a datagram with a long header may be an Initial with a token.

    Nothing is parsed or checked: it is for floods. `False` is certain for an Initial.
    """
    if len(datagram) < 7 or datagram[0] & 0x30:
        return False
    at = 6 + datagram[5]
    if at >= len(datagram):
        return False
    at += 1 + datagram[at]
    if at >= len(datagram):
        return False
    size = 1 << (datagram[at] >> 6)  # RFC 9000 section 16: a zero may be written with 1, 2, 4 or 8 bytes.
    return bool(datagram[at] & 0x3F) or any(datagram[at + 1 : at + size])


def parse_header(datagram: bytes, versions: Collection[int] = (QUIC_VERSION_1,)) -> PacketHeader | None:
    """Return the header of the first packet in a datagram, or `None` for what is not a packet of ours."""
    short_id = short_header_id(datagram)
    if short_id is not None:
        return PacketHeader(PacketType.ONE_RTT, 0, short_id)
    if len(datagram) < 7 or not datagram[0] & 0x80:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    if version != 0 and version not in versions:
        return _parse_invariants(datagram, version)
    try:
        header = pull_quic_header(Buffer(data=datagram))
    except ValueError:
        return None
    kind = _TYPES[header.packet_type]
    return PacketHeader(kind, version, header.destination_cid, header.source_cid, header.token)


def _parse_invariants(datagram: bytes, version: int) -> PacketHeader | None:
    # RFC 8999 section 5.1: ids of any version may have 255 bytes.
    destination_end = 6 + datagram[5]
    if destination_end >= len(datagram):
        return None
    source_end = destination_end + 1 + datagram[destination_end]
    if source_end > len(datagram):
        return None
    destination, source = datagram[6:destination_end], datagram[destination_end + 1 : source_end]
    return PacketHeader(PacketType.OTHER_VERSION, version, destination, source)


def make_version_negotiation(header: PacketHeader, versions: Collection[int] = (QUIC_VERSION_1,)) -> bytes:
    """Answer a packet of a version that is not supported (RFC 9000 section 6)."""
    return encode_quic_version_negotiation(
        source_cid=header.destination_connection_id,
        destination_cid=header.source_connection_id,
        supported_versions=list(versions),
    )


def make_retry(header: PacketHeader, retry_source_connection_id: bytes, token: bytes) -> bytes:
    """Answer an Initial that carries no token (RFC 9000 section 8.1.2)."""
    return encode_quic_retry(
        version=header.version,
        source_cid=retry_source_connection_id,
        destination_cid=header.source_connection_id,
        original_destination_cid=header.destination_connection_id,
        retry_token=token,
    )
