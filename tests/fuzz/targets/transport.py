"""Datagrams: packet headers, Retry tokens, the packets of the memory engine."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING

from quicbus.transport import _memory_packets as memory
from quicbus.transport import engine as seam
from quicbus.transport._packets import (
    INITIAL_SIZE_MIN,
    MEMORY_VERSION,
    QUIC_VERSION_1,
    PacketHeader,
    PacketType,
    make_retry,
    make_version_negotiation,
    parse_header,
)
from quicbus.transport._retry import RetryTokenRefused, RetryTokens
from quicbus.transport.demultiplexer import connection_id, runs
from quicbus.transport.memory import MemoryEngine
from tests.fuzz.target import Target, join, parts

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]

ADDRESS = ("127.0.0.1", 5000)
VERSIONS = (QUIC_VERSION_1, MEMORY_VERSION)
ID = bytes(range(8))
OTHER_ID = bytes(range(8, 16))


# --- headers ----------------------------------------------------------------------------------------------------------


def packet_headers(data: bytes) -> None:
    connection_id(data)
    stretches = list(runs(data, 40)) if data else []
    assert [start for start, _, _ in stretches[1:]] == [end for _, end, _ in stretches[:-1]]
    header = parse_header(data, VERSIONS)
    if header is None:
        return
    if header.type is PacketType.OTHER_VERSION:
        answer = parse_header(make_version_negotiation(header, VERSIONS), VERSIONS)
        assert answer is None or answer.type is PacketType.VERSION_NEGOTIATION
    elif header.type is PacketType.INITIAL and header.version == QUIC_VERSION_1:
        retry = parse_header(make_retry(header, ID, b"token"), VERSIONS)
        assert retry is not None
        assert (retry.type, retry.token) == (PacketType.RETRY, b"token")


def _header_seeds() -> Iterable[bytes]:
    header = PacketHeader(PacketType.INITIAL, QUIC_VERSION_1, ID, OTHER_ID)
    yield make_retry(header, ID, b"token")
    yield make_version_negotiation(header)
    for kind in (0xC0, 0xD0, 0xE0, 0xF0):
        yield _long(kind, QUIC_VERSION_1) + b"\x03tok\x40\x20" + bytes(32)
    yield _long(0xC0, 0xFACEB00C)
    yield b"\x40" + ID + bytes(32)


def _long(first: int, version: int) -> bytes:
    return bytes([first]) + version.to_bytes(4, "big") + b"\x08" + ID + b"\x08" + OTHER_ID


# --- Retry tokens -----------------------------------------------------------------------------------------------------


def retry_tokens(data: bytes) -> None:
    """A token as it comes, and one of ours with these changes: none of them is taken, and none is taken twice."""
    tokens = RetryTokens()
    for token in (data, _changed(tokens.create(ADDRESS, ID, OTHER_ID, 1.0), data)):
        try:
            validated = tokens.validate(token, ADDRESS, OTHER_ID, 1.0)
        except RetryTokenRefused:
            continue
        assert token is not data
        assert validated == (ID, OTHER_ID)
        assert not any(data)
        try:
            tokens.validate(token, ADDRESS, OTHER_ID, 1.0)
        except RetryTokenRefused:
            return
        raise AssertionError("taken twice")


def _changed(token: bytes, changes: bytes) -> bytes:
    changed = bytes(a ^ b for a, b in zip(token, changes, strict=False))
    return changed + token[len(changed) :] if len(changes) <= len(token) else changed + changes[len(token) :]


# --- the memory engine ------------------------------------------------------------------------------------------------


def memory_packets(data: bytes) -> None:
    packet = memory.open_packet(data)
    if packet is not None:
        memory.decode_frames(packet.payload)
    for frame in memory.decode_frames(data):
        assert memory.decode_frames(memory.encode_frame(frame)) == [frame]


def memory_connections(data: bytes) -> None:
    """Packets with a valid checksum, one after the other, at a listener and at a dialer."""
    engine = MemoryEngine(random.Random(1))
    for is_client in (True, False):
        configuration = _configuration(is_client)
        if is_client:
            connection = engine.dial(configuration)
            connection.connect(0.0)
        else:
            connection = engine.accept(configuration, ID, None)
        own_id = connection.connection_ids[0]
        first = memory.HANDSHAKE if is_client else memory.INITIAL
        for number, payload in enumerate(parts(data)):
            kind = memory.SHORT if number else first
            connection.receive(memory.encode_packet(kind, own_id, number, payload, source=OTHER_ID), number / 10)
            while connection.next_event() is not None:
                pass
            connection.datagrams_to_send(number / 10)
            connection.handle_timer(number / 10)


@cache
def _configuration(is_client: bool) -> seam.EngineConfiguration:
    return seam.EngineConfiguration(is_client=is_client, alpn="quicbus/1", server_name="memory")


def _memory_frames() -> list[memory.Frame]:
    return [
        memory.Hello(bytes(32), 30_000, "quicbus/1"),
        memory.HelloReply(bytes(32), 30_000, "quicbus/1", ID, b""),
        memory.Stream(2, 0, b"\x01data", False),
        memory.Stream(6, 3, b"\x02lane", True),
        memory.Ack(((0, 2), (4, 9))),
        memory.Ping(),
        memory.Reset(6, 3),
        memory.Stop(3, 3),
        memory.Close(3, True, "goodbye"),
    ]


def _memory_packet_seeds() -> Iterable[bytes]:
    encoded = [memory.encode_frame(frame) for frame in _memory_frames()]
    yield from encoded
    yield b"".join(encoded)
    payload = struct.pack("!B8sQ", memory.SHORT, ID, 3) + encoded[2]
    yield payload + zlib.crc32(payload).to_bytes(4, "big")


def _memory_connection_seeds() -> Iterable[bytes]:
    encoded = [memory.encode_frame(frame) for frame in _memory_frames()]
    yield join(*encoded)
    yield join(encoded[0] + encoded[2], encoded[4], encoded[3] + encoded[6])


TARGETS = (
    Target("packet_headers", packet_headers, _header_seeds, max_size=INITIAL_SIZE_MIN + 100),
    Target("retry_tokens", retry_tokens, lambda: [b"", bytes(64), b"\x01" * 80]),
    Target("memory_packets", memory_packets, _memory_packet_seeds, (memory.MalformedPacket,)),
    Target("memory_connections", memory_connections, _memory_connection_seeds),
)
