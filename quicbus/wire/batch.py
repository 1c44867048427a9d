"""Batches: one topic, many messages, as bytes that a broker passes on without decoding a message.

A *body* is written by the publisher and never changed on its way; only an overflow policy or a group, which share
whole messages, cut one in two. Layout, little-endian (docs/protocol.md, "Lanes"):

```
flags u8 | topic size u16 | reply topic size u16 | count u32 | number u64 | expires_in_ms u64
topic | reply topic | table of message sizes | messages
```

With `FLAG_HEADERS` every message begins with the size of its headers (u16) and the headers (a msgpack map of strings);
without it a message is its payload.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import repeat
from typing import Final, final

import msgspec
from mypy_extensions import mypyc_attr

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.values import make_structs

__all__ = [
    "FLAG_HEADERS",
    "FLAG_REQUEST",
    "FLAG_WIDE",
    "MIN_BODY_SIZE",
    "Body",
    "decode_headers",
    "encode_body",
    "encode_body_front",
    "encode_headers",
    "message_with_headers",
    "parse_body",
    "peek_body",
    "read_messages",
    "slice_body",
    "split_headers",
]

FLAG_WIDE: Final = 0x01
"""Sizes in the table have four bytes instead of two."""
FLAG_HEADERS: Final = 0x02
"""Every message begins with its headers."""
FLAG_REQUEST: Final = 0x04
"""The publisher waits for a reply: the broker answers `NoResponder` where nobody subscribes."""
_KNOWN_FLAGS: Final = FLAG_WIDE | FLAG_HEADERS | FLAG_REQUEST

# flags, topic size, reply topic size, count, number, expires_in in ms (0: never)
_BODY: Final = struct.Struct("<BHHIQQ")
_unpack_body: Final = _BODY.unpack_from
_Fixed = tuple[int, int, int, int, int, int]
MIN_BODY_SIZE: Final = _BODY.size
"""`peek_body` takes whatever is at least this long."""
_ONE_SIZE: Final = struct.Struct("<H")
_HEADERS_SIZE: Final = struct.Struct("<H")
_SWAP: Final = sys.byteorder == "big"
assert (array("H").itemsize, array("I").itemsize) == (2, 4)

_headers_encoder: Final = msgspec.msgpack.Encoder()
_headers_decoder: Final = msgspec.msgpack.Decoder(dict[str, str])


@final
@mypyc_attr(acyclic=True, free_list_len=1)
@dataclass(init=False, slots=True)
class Body:
    """A checked body: what a broker needs to know of it. `raw` are its bytes as they came.

    Sizes are those of the table: payload and, with `FLAG_HEADERS`, headers.
    """

    raw: bytes
    flags: int
    topic: bytes
    reply_to: bytes
    count: int
    number: int
    expires_in_ms: int
    total: int
    largest: int
    messages_start: int

    def __init__(
        self,
        raw: bytes,
        flags: int,
        topic: bytes,
        reply_to: bytes,
        count: int,
        number: int,
        expires_in_ms: int,
        total: int,
        largest: int,
        messages_start: int,
    ) -> None:
        self.raw = raw
        self.flags = flags
        self.topic = topic
        self.reply_to = reply_to
        self.count = count
        self.number = number
        self.expires_in_ms = expires_in_ms
        self.total = total
        self.largest = largest
        self.messages_start = messages_start

    @property
    def sizes(self) -> array[int]:
        """Read from the table each time: few who route a batch need them."""
        is_wide = self.flags & FLAG_WIDE
        table_start = self.messages_start - self.count * (4 if is_wide else 2)
        return _read_table(self.raw[table_start : self.messages_start], is_wide)


make_structs(globals(), Body)


def encode_body(
    topic: bytes,
    messages: Sequence[bytes],
    *,
    number: int,
    flags: int = 0,
    reply_to: bytes = b"",
    expires_in_ms: int = 0,
) -> bytes:
    """Return the bytes of a body. `FLAG_WIDE` is set as the sizes need it."""
    front = encode_body_front(
        topic, messages, number=number, flags=flags, reply_to=reply_to, expires_in_ms=expires_in_ms
    )
    return b"".join((front, *messages))


def encode_body_front(
    topic: bytes,
    messages: Sequence[bytes],
    *,
    number: int,
    flags: int,
    reply_to: bytes,
    expires_in_ms: int,
) -> bytes:
    """Return what stands before the messages."""
    count = len(messages)
    try:
        table = _ONE_SIZE.pack(len(messages[0])) if count == 1 else struct.pack(f"<{count}H", *map(len, messages))
        flags &= ~FLAG_WIDE
    except struct.error:
        table = struct.pack(f"<{count}I", *map(len, messages))
        flags |= FLAG_WIDE
    return _BODY.pack(flags, len(topic), len(reply_to), count, number, expires_in_ms) + topic + reply_to + table


def parse_body(raw: bytes) -> Body:
    """Check a body once, with no work per message, and return what stands in it.

    Raises `ProtocolViolation` where the table lies: sizes that do not add up to the bytes that follow, no message.
    """
    size = len(raw)
    if size < MIN_BODY_SIZE:
        raise ProtocolViolation(f"a batch of {size} bytes is shorter than its fixed part")
    fixed: _Fixed = _unpack_body(raw)
    flags, topic_size, reply_size, count, number, expires_in_ms = fixed
    if flags & ~_KNOWN_FLAGS:
        raise ProtocolViolation(f"unknown batch flags 0x{flags & ~_KNOWN_FLAGS:02x}")
    if not count:
        raise ProtocolViolation("a batch without messages")
    if not number:
        raise ProtocolViolation("batches are numbered from 1")
    is_wide = flags & FLAG_WIDE
    topic_end = MIN_BODY_SIZE + topic_size
    reply_end = topic_end + reply_size
    messages_start = reply_end + count * (4 if is_wide else 2)
    if messages_start > size:
        raise ProtocolViolation(f"a batch of {size} bytes cannot hold a table of {count} sizes")
    # Messages of one size are common, and one comparison of bytes tells; it costs the others 100 ns.
    if count == 1 and not is_wide:
        largest = total = raw[reply_end] + (raw[reply_end + 1] << 8)
    elif (table := raw[reply_end:messages_start]) == (first := table[: 4 if is_wide else 2]) * count:
        largest = int.from_bytes(first, "little")
        total = largest * count
    else:
        sizes = _read_table(table, is_wide)
        largest = max(sizes)
        total = sum(sizes)
    if messages_start + total != size:
        raise ProtocolViolation(
            f"the sizes of a batch add up to {total} bytes, but {size - messages_start} bytes follow its table"
        )
    return Body(
        raw,
        flags,
        raw[MIN_BODY_SIZE:topic_end],
        raw[topic_end:reply_end] if reply_size else b"",
        count,
        number,
        expires_in_ms,
        total,
        largest,
        messages_start,
    )


def _read_table(table: bytes, is_wide: int) -> array[int]:
    sizes: array[int] = array("I" if is_wide else "H", table)
    if _SWAP:
        sizes.byteswap()
    return sizes


def read_messages(body: Body) -> list[bytes]:
    """Return the messages of a body, each with its headers where `FLAG_HEADERS` is set."""
    if body.count == 1:
        return [body.raw[body.messages_start :]]
    # Reads in C: a third of the time of slices by accumulated sizes. BytesIO does not copy the bytes.
    stream = BytesIO(body.raw)
    stream.seek(body.messages_start)
    is_of_one_size = body.total == body.largest * body.count
    return list(map(stream.read, repeat(body.largest, body.count) if is_of_one_size else body.sizes))


def peek_body(head: bytes) -> tuple[int, int]:
    """Return count and number out of the first bytes (32 are enough) of a body that is not read whole; unchecked.

    Raises `ProtocolViolation` when `head` is shorter than the fixed part of a body.
    """
    if len(head) < _BODY.size:
        raise ProtocolViolation(f"a batch of {len(head)} bytes is shorter than its fixed part")
    fixed: _Fixed = _unpack_body(head)
    _, _, _, count, number, _ = fixed
    return count, number


def slice_body(body: Body, start: int, stop: int) -> Body:
    """Return a body that holds only the messages `start` to `stop` (exclusive) of this one: at least one."""
    all_sizes = body.sizes
    sizes = all_sizes[start:stop]
    first = body.messages_start + sum(all_sizes[:start])
    total = sum(sizes)
    table = sizes
    if _SWAP:
        table = sizes[:]
        table.byteswap()
    head = _BODY.pack(body.flags, len(body.topic), len(body.reply_to), len(sizes), body.number, body.expires_in_ms)
    front = b"".join((head, body.topic, body.reply_to, table.tobytes()))
    return Body(
        raw=front + body.raw[first : first + total],
        flags=body.flags,
        topic=body.topic,
        reply_to=body.reply_to,
        count=len(sizes),
        number=body.number,
        expires_in_ms=body.expires_in_ms,
        total=total,
        largest=max(sizes),
        messages_start=len(front),
    )


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return the bytes of the headers of one message, its size field included.

    Raises `TypeError` for a key or value that is not a `str`, `ValueError` beyond `limits.MAX_HEADERS_SIZE` and for a
    lone surrogate.
    """
    items: Iterable[tuple[object, object]] = headers.items()
    for key, value in items:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"headers map str to str, not {key!r}: {value!r}")
    encoded = _headers_encoder.encode(dict(headers))
    if len(encoded) > limits.MAX_HEADERS_SIZE:
        raise ValueError(f"headers have {len(encoded)} bytes, at most {limits.MAX_HEADERS_SIZE} may be")
    return _HEADERS_SIZE.pack(len(encoded)) + encoded


def message_with_headers(headers: bytes, payload: bytes) -> bytes:
    """Join what `encode_headers` returned (empty: no headers) and a payload for a batch with `FLAG_HEADERS`."""
    return (headers or b"\x00\x00") + payload


def split_headers(message: bytes) -> tuple[bytes, bytes]:
    """Return encoded headers and payload of a message out of a batch with `FLAG_HEADERS`.

    Raises `ProtocolViolation` when the size of the headers is beyond the message or `limits.MAX_HEADERS_SIZE`.
    """
    if len(message) < 2:
        raise ProtocolViolation("a message is shorter than the size of its headers")
    end = 2 + message[0] + (message[1] << 8)
    if end > len(message) or end - 2 > limits.MAX_HEADERS_SIZE:
        raise ProtocolViolation("the headers are longer than their message")
    return message[2:end], message[end:]


def decode_headers(encoded: bytes) -> dict[str, str]:
    """Return the headers; raises `ProtocolViolation` where they are not a msgpack map of strings."""
    if not encoded:
        return {}
    try:
        return _headers_decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"headers: {error}") from None
