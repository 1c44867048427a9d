"""Records on a lane: a size and a kind, then a batch on its way to the broker (Publish) or from it (Message).

```
u32 size (of what follows) | u8 kind | ...
Publish: body
Message: envelope | publisher | subscriptions (u32 id, u64 dropped so far) | body
```

A record of an unknown kind is skipped by its size. Kind 3 (Broadcast) is the mesh's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from mypy_extensions import mypyc_attr

from quicbus.exceptions import ProtocolViolation
from quicbus.values import make_structs
from quicbus.wire.batch import FLAG_WIDE, encode_body_front

__all__ = [
    "KIND_MESSAGE",
    "KIND_PUBLISH",
    "RECORD_OVERHEAD",
    "Delivery",
    "Envelope",
    "Oversize",
    "Record",
    "RecordParser",
    "decode_delivery",
    "encode_delivery",
    "encode_delivery_front",
    "encode_publish",
    "encode_publish_of",
    "encode_subscriptions",
]

KIND_PUBLISH: Final = 0x01
KIND_MESSAGE: Final = 0x02

_RECORD: Final = struct.Struct("<IB")
RECORD_OVERHEAD: Final = _RECORD.size
_unpack_record: Final = _RECORD.unpack_from
_OVERSIZE_HEAD: Final = 32
"""An oversize record is reported once this much of it is there: the fixed part of a body, which numbers it."""
# size and kind of the record, and the fixed part of a body
_PUBLISH: Final = struct.Struct("<IBBHHIQQ")
_pack_publish: Final = _PUBLISH.pack
_ONE_SIZE: Final = struct.Struct("<H")
_pack_size: Final = _ONE_SIZE.pack
_PUBLISH_OVERHEAD: Final = _PUBLISH.size - 4 + _ONE_SIZE.size
"""Bytes of the record of a single message, as its size counts them, without topic, reply topic and message."""
_MAX_NARROW_SIZE: Final = 0xFFFF
# hop limit, age in ms, index of the first message, origin, boot, sequence, publisher size, number of subscriptions
_ENVELOPE: Final = struct.Struct("<BIIQ16sQBH")
_ENVELOPE_SIZE: Final = _ENVELOPE.size
_unpack_envelope: Final = _ENVELOPE.unpack_from
# size and kind of the record, and the same
_DELIVERY: Final = struct.Struct("<IB" + _ENVELOPE.format[1:])
_pack_delivery: Final = _DELIVERY.pack
_DELIVERY_OVERHEAD: Final = 1 + _ENVELOPE_SIZE
"""Bytes of a Message record, as its size counts them, without publisher, subscriptions and body."""
_SUBSCRIPTION: Final = struct.Struct("<IQ")
_SUBSCRIPTION_SIZE: Final = _SUBSCRIPTION.size
_pack_subscription: Final = _SUBSCRIPTION.pack
_unpack_subscription: Final = _SUBSCRIPTION.unpack_from
_MAX_AGE_MS: Final = 0xFFFF_FFFF
_SMALL_CHUNK: Final = 256
"""Chunks below this are gathered: a `bytes` of its own costs 40 bytes beside its content."""


@final
@mypyc_attr(acyclic=True, free_list_len=1)
@dataclass(init=False, slots=True)
class Envelope:
    """What nodes write around a body. `changed` makes another one.

    `sequence` numbers the batches of one boot of the origin from 1. `first` is the index, in the batch as it was
    published, of the first message here. `age_ms` sums the time that the batch spent in queues of nodes.
    """

    origin: Final[bytes]
    boot: Final[int]
    sequence: Final[int]
    publisher: Final[str]
    first: Final[int]
    age_ms: Final[int]
    hop_limit: Final[int]

    def __init__(
        self,
        origin: bytes,
        boot: int,
        sequence: int,
        publisher: str,
        first: int = 0,
        age_ms: int = 0,
        hop_limit: int = 0,
    ) -> None:
        self.origin = origin
        self.boot = boot
        self.sequence = sequence
        self.publisher = publisher
        self.first = first
        self.age_ms = age_ms
        self.hop_limit = hop_limit

    def changed(self, first: int, age_ms: int) -> Envelope:
        """Return one for the messages from `first` on, which waited for `age_ms` in all."""
        return Envelope(self.origin, self.boot, self.sequence, self.publisher, first, age_ms, self.hop_limit)


@final
@mypyc_attr(acyclic=True, free_list_len=1)
@dataclass(init=False, slots=True)
class Delivery:
    """A decoded Message record: for which subscriptions it is, each with the drops of that subscription so far."""

    envelope: Final[Envelope]
    subscriptions: Final[tuple[tuple[int, int], ...]]
    body: Final[bytes]

    def __init__(self, envelope: Envelope, subscriptions: tuple[tuple[int, int], ...], body: bytes) -> None:
        self.envelope = envelope
        self.subscriptions = subscriptions
        self.body = body


@final
@mypyc_attr(acyclic=True, free_list_len=1)
@dataclass(init=False, slots=True)
class Record:
    """A whole one, cut out of a lane."""

    kind: Final[int]
    payload: Final[bytes]

    def __init__(self, kind: int, payload: bytes) -> None:
        self.kind = kind
        self.payload = payload


@final
@mypyc_attr(acyclic=True, free_list_len=1)
@dataclass(init=False, slots=True)
class Oversize:
    """A record that was longer than the parser takes; its bytes are skipped as they arrive.

    `head` are the first bytes of its payload: at least 32, further ones as far as they came with the chunk.
    """

    kind: Final[int]
    size: Final[int]
    head: Final[bytes]

    def __init__(self, kind: int, size: int, head: bytes) -> None:
        self.kind = kind
        self.size = size
        self.head = head


make_structs(globals(), Envelope, Delivery, Record, Oversize, frozen=True)


def encode_publish(body: bytes) -> bytes:
    """Return the Publish record of a body."""
    return _RECORD.pack(1 + len(body), KIND_PUBLISH) + body


def encode_publish_of(
    topic: bytes,
    first: bytes,
    following: Sequence[bytes] | None,
    *,
    number: int,
    flags: int,
    reply_to: bytes,
    expires_in_ms: int,
) -> bytes:
    """Return the Publish record of a batch of a message and those that follow it, if any, joined once."""
    if not following and (size := len(first)) <= _MAX_NARROW_SIZE:
        topic_size, reply_size = len(topic), len(reply_to)
        record_size = _PUBLISH_OVERHEAD + topic_size + reply_size + size
        head = _pack_publish(
            record_size, KIND_PUBLISH, flags & ~FLAG_WIDE, topic_size, reply_size, 1, number, expires_in_ms
        )
        return b"".join((head, topic, reply_to, _pack_size(size), first))
    messages = (first, *(following or ()))
    front = encode_body_front(
        topic, messages, number=number, flags=flags, reply_to=reply_to, expires_in_ms=expires_in_ms
    )
    size = 1 + len(front) + sum(map(len, messages))
    return b"".join((_RECORD.pack(size, KIND_PUBLISH), front, *messages))


def encode_delivery(envelope: Envelope, subscriptions: Sequence[tuple[int, int]], body: bytes) -> bytes:
    """Return the Message record of a body for the subscriptions (id, dropped so far) of one connection."""
    front = encode_delivery_front(envelope, len(subscriptions), len(body))
    return b"".join((front, encode_subscriptions(subscriptions), body))


def encode_delivery_front(envelope: Envelope, subscription_count: int, body_size: int) -> bytes:
    """Return what stands before the table of subscriptions: it depends on their count alone."""
    publisher = envelope.publisher.encode()
    publisher_size = len(publisher)
    age_ms = envelope.age_ms
    return (
        _pack_delivery(
            _DELIVERY_OVERHEAD + publisher_size + subscription_count * _SUBSCRIPTION_SIZE + body_size,
            KIND_MESSAGE,
            envelope.hop_limit,
            age_ms if age_ms < _MAX_AGE_MS else _MAX_AGE_MS,
            envelope.first,
            envelope.boot,
            envelope.origin,
            envelope.sequence,
            publisher_size,
            subscription_count,
        )
        + publisher
    )


def encode_subscriptions(subscriptions: Sequence[tuple[int, int]]) -> bytes:
    """Return the table of a Message record: each subscription with its drops so far."""
    if len(subscriptions) == 1:
        number, dropped = subscriptions[0]
        return _pack_subscription(number, dropped)
    return b"".join([_pack_subscription(number, dropped) for number, dropped in subscriptions])


def decode_delivery(payload: bytes) -> Delivery:
    """Read the payload of a Message record; raises `ProtocolViolation`. The body is not parsed yet."""
    try:
        fixed: tuple[int, int, int, int, bytes, int, int, int] = _unpack_envelope(payload)
        hop_limit, age_ms, first, boot, origin, sequence, publisher_size, count = fixed
        publisher_end = _ENVELOPE_SIZE + publisher_size
        body_start = publisher_end + count * _SUBSCRIPTION_SIZE
        publisher = payload[_ENVELOPE_SIZE:publisher_end].decode()
        if body_start > len(payload) or not count:
            raise ProtocolViolation(f"a Message record of {len(payload)} bytes cannot name {count} subscriptions")
        subscriptions: tuple[tuple[int, int], ...]
        if count == 1:
            only: tuple[int, int] = _unpack_subscription(payload, publisher_end)
            subscriptions = (only,)
        else:
            subscriptions = tuple(_SUBSCRIPTION.iter_unpack(payload[publisher_end:body_start]))
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolViolation(f"Message record: {error}") from None
    envelope = Envelope(origin, boot, sequence, publisher, first, age_ms, hop_limit)
    return Delivery(envelope, subscriptions, payload[body_start:])


class RecordParser:
    """Cuts a lane (after its type byte) into records, however the bytes are split.

    `max_size` bounds what is held in memory; a longer record is reported as `Oversize` and skipped as it arrives.
    Time and memory follow the number of bytes fed, however small the chunks.
    """

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._chunks: list[bytes | bytearray] = []
        self._held = 0
        self._wanted = _RECORD.size
        self._skip = 0

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their record."""
        return self._held

    def feed(self, data: bytes) -> list[Record | Oversize]:
        """Take the next bytes and return the records that are complete with them.

        Raises `ProtocolViolation`; the lane is of no use after that.
        """
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        size = len(data)
        if self._held + size < self._wanted:
            if size >= _SMALL_CHUNK:
                self._chunks.append(data)
                self._held += size
            elif size:
                self._hold_small(data)
            return []
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks.clear()
        records, rest = self._cut(data)
        self._held = len(data) - rest
        if self._held:
            self._chunks.append(data[rest:])
        return records

    def _cut(self, data: bytes) -> tuple[list[Record | Oversize], int]:
        """Return the records in `data` and where the first one that is not whole begins; sets what it waits for."""
        records: list[Record | Oversize] = []
        offset, available, max_size = 0, len(data), self.max_size
        self._wanted = RECORD_OVERHEAD
        last_start = available - RECORD_OVERHEAD
        while offset <= last_start:
            head: tuple[int, int] = _unpack_record(data, offset)
            size, kind = head
            if not size:
                raise ProtocolViolation("a record without a kind")
            start = offset + RECORD_OVERHEAD
            end = offset + 4 + size
            if size > max_size:
                head_end = min(start + _OVERSIZE_HEAD, end)
                if available < head_end:
                    self._wanted = head_end - offset
                    break
                records.append(Oversize(kind, size, data[start : min(start + 512, end)]))
                self._skip = max(0, end - available)
                offset = min(end, available)
                continue
            if end > available:
                self._wanted = end - offset
                break
            records.append(Record(kind, data[start:end]))
            offset = end
        return records, offset

    def _hold_small(self, data: bytes) -> None:
        self._held += len(data)
        if self._chunks and isinstance(last := self._chunks[-1], bytearray):
            last += data
        else:
            self._chunks.append(bytearray(data))
