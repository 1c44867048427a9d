"""The packets of the memory engine: bytes <-> frames. The outside is QUIC's, so that one demultiplexer reads both.

A packet is a header (RFC 9000 section 17: long until the dialer knows the listener's id, short afterwards), a packet
number of 8 bytes, frames, and a CRC-32 of all that, which stands in for the integrity that encryption gives: what was
changed or made up is dropped, not understood.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from quicbus.transport._packets import INITIAL_SIZE_MIN, MEMORY_VERSION

__all__ = [
    "Ack",
    "Close",
    "Frame",
    "Hello",
    "HelloReply",
    "MalformedPacket",
    "Ping",
    "Reset",
    "Stop",
    "Stream",
    "decode_frames",
    "encode_frame",
    "encode_packet",
    "open_packet",
]

INITIAL, HANDSHAKE, SHORT = 0xC0, 0xE0, 0x40
_NUMBER = struct.Struct("!Q")
_CHECKSUM = struct.Struct("!I")
_STREAM = struct.Struct("!BIQI?")
_STREAM_CODE = struct.Struct("!BIQ")
_CLOSE = struct.Struct("!BQ?H")
_RANGES = struct.Struct("!BH")
_RANGE = struct.Struct("!QQ")
_HELLO = struct.Struct("!B32sIB")
_HELLO_REPLY = struct.Struct("!B32sIBBB")
_PADDING, _PING, _ACK, _STREAM_TYPE, _RESET, _STOP, _CLOSE_TYPE, _HELLO_TYPE, _HELLO_REPLY_TYPE = range(9)

PACKET_OVERHEAD = 1 + 8 + _NUMBER.size + _CHECKSUM.size
LONG_PACKET_OVERHEAD = 7 + 8 + 8 + 2 + 4 + _NUMBER.size + _CHECKSUM.size
STREAM_OVERHEAD = _STREAM.size
CONTROL_SIZE_MAX = 512
"""No frame other than Stream, Ack and Close is larger."""


class MalformedPacket(Exception):
    """The peer's frames make no sense although the checksum is right."""


class Ping(NamedTuple):
    uid: int = 0
    """Known to the sender only."""


class Ack(NamedTuple):
    ranges: tuple[tuple[int, int], ...]
    """First and last packet number of each run, lowest first."""


class Stream(NamedTuple):
    stream_id: int
    offset: int
    data: bytes
    ended: bool


class Reset(NamedTuple):
    stream_id: int
    code: int


class Stop(NamedTuple):
    stream_id: int
    code: int


class Close(NamedTuple):
    code: int
    is_application: bool
    reason: str


class Hello(NamedTuple):
    nonce: bytes
    idle_timeout_ms: int
    alpn: str


class HelloReply(NamedTuple):
    nonce: bytes
    idle_timeout_ms: int
    alpn: str
    original_destination_connection_id: bytes
    retry_source_connection_id: bytes


Frame = Ping | Ack | Stream | Reset | Stop | Close | Hello | HelloReply


def encode_frame(frame: Frame) -> bytes:
    match frame:
        case Stream(stream_id, offset, data, ended):
            return _STREAM.pack(_STREAM_TYPE, stream_id, offset, len(data), ended) + data
        case Ack(ranges):
            return _RANGES.pack(_ACK, len(ranges)) + b"".join(_RANGE.pack(*run) for run in ranges)
        case Ping():
            return bytes([_PING])
        case Reset(stream_id, code):
            return _STREAM_CODE.pack(_RESET, stream_id, code)
        case Stop(stream_id, code):
            return _STREAM_CODE.pack(_STOP, stream_id, code)
        case Close(code, is_application, reason):
            encoded = reason.encode()
            return _CLOSE.pack(_CLOSE_TYPE, code, is_application, len(encoded)) + encoded
        case Hello(nonce, idle_timeout_ms, alpn):
            return _HELLO.pack(_HELLO_TYPE, nonce, idle_timeout_ms, len(alpn)) + alpn.encode()
        case HelloReply(nonce, idle_timeout_ms, alpn, original, retry):
            head = _HELLO_REPLY.pack(_HELLO_REPLY_TYPE, nonce, idle_timeout_ms, len(alpn), len(original), len(retry))
            return head + alpn.encode() + original + retry


def decode_frames(payload: bytes) -> list[Frame]:
    """Return the frames of a packet. Raises `MalformedPacket`."""
    frames: list[Frame] = []
    position = 0
    try:
        while position < len(payload) and payload[position] != _PADDING:
            frame, position = _decode_frame(payload, position)
            frames.append(frame)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise MalformedPacket(str(error)) from None
    if position > len(payload):
        raise MalformedPacket("the last frame is cut short")
    return frames


def _decode_frame(payload: bytes, position: int) -> tuple[Frame, int]:
    kind = payload[position]
    if kind == _STREAM_TYPE:
        _, stream_id, offset, size, ended = _STREAM.unpack_from(payload, position)
        start = position + _STREAM.size
        return Stream(stream_id, offset, payload[start : start + size], ended), start + size
    if kind == _ACK:
        _, count = _RANGES.unpack_from(payload, position)
        start = position + _RANGES.size
        end = start + count * _RANGE.size
        if end > len(payload):
            raise MalformedPacket("an ACK is cut short")
        return Ack(tuple(_RANGE.iter_unpack(payload[start:end]))), end
    if kind == _PING:
        return Ping(), position + 1
    if kind in (_RESET, _STOP):
        _, stream_id, code = _STREAM_CODE.unpack_from(payload, position)
        return (Reset if kind == _RESET else Stop)(stream_id, code), position + _STREAM_CODE.size
    if kind == _CLOSE_TYPE:
        _, code, is_application, size = _CLOSE.unpack_from(payload, position)
        start = position + _CLOSE.size
        return Close(code, is_application, payload[start : start + size].decode()), start + size
    if kind == _HELLO_TYPE:
        _, nonce, idle, size = _HELLO.unpack_from(payload, position)
        start = position + _HELLO.size
        return Hello(nonce, idle, payload[start : start + size].decode()), start + size
    if kind == _HELLO_REPLY_TYPE:
        _, nonce, idle, size, original_size, retry_size = _HELLO_REPLY.unpack_from(payload, position)
        alpn_end = position + _HELLO_REPLY.size + size
        original_end = alpn_end + original_size
        end = original_end + retry_size
        alpn = payload[alpn_end - size : alpn_end].decode()
        return HelloReply(nonce, idle, alpn, payload[alpn_end:original_end], payload[original_end:end]), end
    raise MalformedPacket(f"unknown frame type {kind}")


def encode_packet(
    first: int, destination: bytes, number: int, frames: bytes, *, source: bytes = b"", token: bytes = b""
) -> bytes:
    """Return a datagram with one packet; `first` is INITIAL, HANDSHAKE or SHORT. An Initial is padded."""
    if first == SHORT:
        body = b"%c%b%b%b" % (first, destination, _NUMBER.pack(number), frames)
        return body + _CHECKSUM.pack(zlib.crc32(body))
    head = b"%c%b%c%b%c%b" % (
        first,
        MEMORY_VERSION.to_bytes(4, "big"),
        len(destination),
        destination,
        len(source),
        source,
    )
    if first == INITIAL:
        head += (0x4000 | len(token)).to_bytes(2, "big") + token
        missing = INITIAL_SIZE_MIN - len(head) - 4 - _NUMBER.size - len(frames) - _CHECKSUM.size
        frames += bytes(max(0, missing))
    rest = _NUMBER.size + len(frames) + _CHECKSUM.size
    body = head + (0x80000000 | rest).to_bytes(4, "big") + _NUMBER.pack(number) + frames
    return body + _CHECKSUM.pack(zlib.crc32(body))


class OpenedPacket(NamedTuple):
    first: int
    destination: bytes
    source: bytes
    number: int
    payload: bytes


def open_packet(datagram: bytes) -> OpenedPacket | None:
    """Return what is in a datagram, or `None` for what this engine did not make."""
    if len(datagram) < PACKET_OVERHEAD or zlib.crc32(datagram[:-4]) != _CHECKSUM.unpack(datagram[-4:])[0]:
        return None
    first = datagram[0]
    if first == SHORT:
        return OpenedPacket(first, datagram[1:9], b"", _NUMBER.unpack_from(datagram, 9)[0], datagram[17:-4])
    if first not in (INITIAL, HANDSHAKE) or int.from_bytes(datagram[1:5], "big") != MEMORY_VERSION:
        return None
    try:
        destination_end = 6 + datagram[5]
        source_end = destination_end + 1 + datagram[destination_end]
        position = source_end
        if first == INITIAL:
            position += 2 + (int.from_bytes(datagram[position : position + 2], "big") & 0x3FFF)
        position += 4
        number = _NUMBER.unpack_from(datagram, position)[0]
    except (IndexError, struct.error):
        return None
    source = datagram[destination_end + 1 : source_end]
    return OpenedPacket(first, datagram[6:destination_end], source, number, datagram[position + 8 : -4])
