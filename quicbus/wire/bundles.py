"""Bundles: what one node has for others, numbered and, where a third node passes it on, signed by its origin.

```
record on a lane between nodes:  u32 size | u8 kind | u8 hop limit | u32 age in ms | bundle
bundle:  origin 16 | boot u64 | number u64 | target 16 | target boot u64 | u16 count | batches | u16 size | signature
batch:   u32 size | id u64 | lane u8 | sequence u64 | first u32 | publisher u8 | group u16 | filter u16 | after u16
         publisher | group | filter | after (node 16, boot u64, number u64) ... | body
```

A target of zeros means everyone. `size` of a batch counts what follows it. Hop limit and age change on the way and are
not signed. Integers are little-endian. docs/protocol.md, "Bundles".
"""

from __future__ import annotations

import struct

import msgspec

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import MIN_BODY_SIZE

__all__ = [
    "EVERYONE",
    "KIND_BROADCAST",
    "KIND_DIRECT",
    "KIND_RELAY",
    "KIND_RETURNED",
    "MAX_AFTER",
    "Bundle",
    "BundleBatch",
    "bundle_parts",
    "decode_bundle",
    "encode_batch",
    "encode_bundle",
    "encode_record_front",
    "encode_signature",
]

KIND_BROADCAST = 0x03
"""For everyone: passed on along the tree."""
KIND_DIRECT = 0x04
"""For the node at the other end; not signed."""
KIND_RELAY = 0x05
"""For `target`, through a node that has a link to it."""
KIND_RETURNED = 0x06
"""Shares of groups that have no member here any more, back to their origin; not signed."""

EVERYONE = bytes(16)
MAX_AFTER = 64
"""Numbers of other ways that a batch names. Each takes five times its bytes of memory once it is decoded."""

_RECORD = struct.Struct("<IBBI")
_HEAD = struct.Struct("<16sQQ16sQH")
_BATCH = struct.Struct("<IQBQIBHHH")
_AFTER = struct.Struct("<16sQQ")
_SIGNATURE = struct.Struct("<H")
_MAX_AGE_MS = 0xFFFF_FFFF


class BundleBatch(msgspec.Struct, frozen=True, gc=False):
    """A batch on its way between nodes.

    `sequence` numbers the batches of `lane` towards its receivers from 1: one space for broadcasts, one for each node
    served directly. `after` names, for nodes that may have got earlier messages of this topic another way, the last
    number of that way in this lane: node, its boot and the number. `EVERYONE`, boot 0, is the space of broadcasts.
    """

    id: int
    """The `sequence` of the envelope: with origin and boot it is the batch's id."""
    lane: int
    sequence: int
    first: int
    """Index, in the batch as it was published, of the first message here."""
    publisher: str
    body: bytes
    group: str = ""
    """With `filter`: the share of one group, for one of its members at the receiver."""
    filter: str = ""
    after: tuple[tuple[bytes, int, int], ...] = ()


class Bundle(msgspec.Struct, frozen=True, gc=False):
    """`signed` are the bytes that `signature` covers; empty where the bundle was made in this process and not encoded.

    `hops`: how many further nodes may pass it on. `age_ms` sums the time in queues of nodes.
    """

    kind: int
    origin: bytes
    boot: int
    number: int
    target: bytes
    target_boot: int
    batches: tuple[BundleBatch, ...]
    hops: int = 0
    age_ms: int = 0
    signed: bytes = b""
    signature: bytes = b""

    @property
    def id(self) -> tuple[bytes, int, int]:
        return self.origin, self.boot, self.number


def encode_batch(batch: BundleBatch) -> tuple[bytes, bytes]:
    """Return what stands before the body, and the body as it is."""
    body = batch.body
    names = batch.publisher.encode()
    publisher_size = len(names)
    group_size = filter_size = 0
    if batch.group or batch.filter:
        group, filter_ = batch.group.encode(), batch.filter.encode()
        group_size, filter_size = len(group), len(filter_)
        names = b"".join((names, group, filter_))
    after = b"".join([_AFTER.pack(*each) for each in batch.after]) if batch.after else b""
    front = _BATCH.pack(
        _BATCH.size - 4 + len(names) + len(after) + len(body),
        batch.id,
        batch.lane,
        batch.sequence,
        batch.first,
        publisher_size,
        group_size,
        filter_size,
        len(batch.after),
    )
    return front + names + after, body


def bundle_parts(bundle: Bundle) -> list[bytes]:
    """Return the signed part, all but hop limit, age and signature, in parts: bodies as they are."""
    parts = [
        _HEAD.pack(bundle.origin, bundle.boot, bundle.number, bundle.target, bundle.target_boot, len(bundle.batches))
    ]
    for batch in bundle.batches:
        parts += encode_batch(batch)
    return parts


def encode_bundle(bundle: Bundle) -> bytes:
    """Return the signed part as one."""
    return b"".join(bundle_parts(bundle))


def encode_record_front(bundle: Bundle, signed_size: int, age_ms: int | None = None) -> bytes:
    """Return what stands before the signed part in a record; size and bytes of the signature follow that.

    `age_ms`: in place of the bundle's.
    """
    size = _RECORD.size - 4 + signed_size + _SIGNATURE.size + len(bundle.signature)
    return _RECORD.pack(size, bundle.kind, bundle.hops, min(bundle.age_ms if age_ms is None else age_ms, _MAX_AGE_MS))


def encode_signature(signature: bytes) -> bytes:
    """Return what ends a record."""
    return _SIGNATURE.pack(len(signature)) + signature


def decode_bundle(kind: int, payload: bytes) -> Bundle:
    """Read the payload of a record; raises `ProtocolViolation`.

    Neither signature nor bodies are checked yet, save that `peek_body` takes each of these.
    """
    try:
        hops, age_ms = struct.unpack_from("<BI", payload)
        start = 5
        origin, boot, number, target, target_boot, count = _HEAD.unpack_from(payload, start)
        offset = start + _HEAD.size
        batches: list[BundleBatch] = []
        for _ in range(count):
            batch, offset = _decode_batch(payload, offset)
            batches.append(batch)
        (signature_size,) = _SIGNATURE.unpack_from(payload, offset)
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolViolation(f"bundle: {error}") from None
    end = offset + _SIGNATURE.size
    if end + signature_size != len(payload):
        raise ProtocolViolation(f"a bundle of {len(payload)} bytes whose parts add up to {end + signature_size}")
    if not count or not number:
        raise ProtocolViolation("a bundle without batches, or with number 0")
    return Bundle(
        kind,
        origin,
        boot,
        number,
        target,
        target_boot,
        tuple(batches),
        hops,
        age_ms,
        payload[start:offset],
        payload[end:],
    )


def _decode_batch(payload: bytes, offset: int) -> tuple[BundleBatch, int]:
    fields = _BATCH.unpack_from(payload, offset)
    size, id, lane, sequence, first, publisher_size, group_size, filter_size, after_count = fields
    publisher_start = offset + _BATCH.size
    group_start = publisher_start + publisher_size
    filter_start = group_start + group_size
    after_start = filter_start + filter_size
    body_start = after_start + after_count * _AFTER.size
    end = offset + 4 + size
    if body_start > end or end > len(payload):
        raise ProtocolViolation("a batch that is longer than its bundle")
    if end - body_start < MIN_BODY_SIZE:
        # Checked here, as bundles that wait are counted when they are dropped: long after their sender can be blamed.
        raise ProtocolViolation(f"a batch with a body of {end - body_start} bytes")
    if not sequence or bool(group_size) != bool(filter_size):
        raise ProtocolViolation("a batch without a number, or with half a group")
    after: tuple[tuple[bytes, int, int], ...] = ()
    if after_count > MAX_AFTER:
        raise ProtocolViolation(f"a batch that names {after_count} numbers before it, at most {MAX_AFTER} may be")
    if after_count:
        after = tuple(_AFTER.iter_unpack(payload[after_start:body_start]))
    return (
        BundleBatch(
            id,
            lane,
            sequence,
            first,
            payload[publisher_start:group_start].decode(),
            payload[body_start:end],
            payload[group_start:filter_start].decode(),
            payload[filter_start:after_start].decode(),
            after,
        ),
        end,
    )
