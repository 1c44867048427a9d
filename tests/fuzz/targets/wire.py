"""Streams: control frames, records on lanes, batches, bundles."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import (
    FLAG_HEADERS,
    FLAG_REQUEST,
    MIN_BODY_SIZE,
    decode_headers,
    encode_body,
    encode_headers,
    message_with_headers,
    parse_body,
    peek_body,
    read_messages,
    slice_body,
    split_headers,
)
from quicbus.wire.bundles import (
    EVERYONE,
    KIND_BROADCAST,
    KIND_DIRECT,
    KIND_RELAY,
    KIND_RETURNED,
    Bundle,
    BundleBatch,
    bundle_parts,
    decode_bundle,
    encode_bundle,
    encode_record_front,
    encode_signature,
)
from quicbus.wire.frames import FRAME_TYPES, Frame, FrameParser, encode_frame
from quicbus.wire.node_frames import NODE_FRAME_TYPES
from quicbus.wire.records import (
    KIND_MESSAGE,
    Envelope,
    Oversize,
    Record,
    RecordParser,
    decode_delivery,
    encode_delivery,
    encode_publish,
)
from tests.fuzz import samples
from tests.fuzz.target import Target, chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["TARGETS", "read_frames", "read_records", "record"]

MAX_SIZE = 1500
"""Of frames and records: small, so that an oversize one is within reach."""
_HEADER_MAX = 16


# --- frames -----------------------------------------------------------------------------------------------------------


def client_frames(data: bytes) -> None:
    read_frames(chunks(data), FRAME_TYPES)


def node_frames(data: bytes) -> None:
    read_frames(chunks(data), NODE_FRAME_TYPES)


def read_frames(stream: Iterable[bytes], types: Mapping[int, type[Frame]], max_size: int = MAX_SIZE) -> None:
    parser = FrameParser(max_size, types)
    for chunk in stream:
        for frame in parser.feed(chunk):
            assert FrameParser(1 << 20, types).feed(encode_frame(frame)) == [frame]
        assert len(parser._buffer) <= max_size + _HEADER_MAX


def _client_frame_seeds() -> Iterable[bytes]:
    for frame in samples.client_frames():
        yield b"\xff" + encode_frame(frame)
    yield b"\x02" + b"".join(map(encode_frame, samples.client_frames()[:3]))
    yield b"\x08\x40\x7f\x03abc" + encode_frame(samples.client_frames()[0])


def _node_frame_seeds() -> Iterable[bytes]:
    for frame in samples.node_frames():
        yield b"\xff" + encode_frame(frame)


# --- records and batches ----------------------------------------------------------------------------------------------


def records(data: bytes) -> None:
    read_records(chunks(data))


def read_records(stream: Iterable[bytes], max_size: int = MAX_SIZE) -> None:
    parser = RecordParser(max_size)
    for chunk in stream:
        for record in parser.feed(chunk):
            _read_record(record, max_size)
        assert parser.held <= max_size + 4


def _read_record(record: Record | Oversize, max_size: int) -> None:
    if isinstance(record, Oversize):
        assert record.size > max_size
        with contextlib.suppress(ProtocolViolation):
            peek_body(record.head)
    elif record.kind == KIND_MESSAGE:
        delivery = decode_delivery(record.payload)
        assert encode_delivery(delivery.envelope, delivery.subscriptions, delivery.body)[5:] == record.payload
        bodies(delivery.body)
    else:
        bodies(record.payload)


def bodies(data: bytes) -> None:
    body = parse_body(data)
    messages = read_messages(body)
    assert [len(message) for message in messages] == list(body.sizes)
    assert sum(map(len, messages)) == body.total <= len(data)
    assert max(map(len, messages)) == body.largest
    middle = body.count // 2
    assert read_messages(parse_body(slice_body(body, middle, body.count).raw)) == messages[middle:]
    if body.flags & FLAG_HEADERS:
        for message in messages:
            encoded, _ = split_headers(message)
            found = decode_headers(encoded)
            assert all(isinstance(text, str) for pair in found.items() for text in pair)


def _body_seeds() -> Iterable[bytes]:
    headers = encode_headers({"unit": "C", "": "\u00e9"})
    yield encode_body(b"a/b", [b"21.5", b"hi"], number=1)
    yield encode_body(b"a/b", [b"same"] * 5, number=2**64 - 1, expires_in_ms=1500)
    yield encode_body(b"a", [message_with_headers(headers, b"x"), b"\x00\x00"], number=3, flags=FLAG_HEADERS)
    yield encode_body(b"a", [b""], number=4, flags=FLAG_REQUEST, reply_to=b"$quicbus/reply/a/b/1")
    yield b"\x01" + encode_body(b"a", [b""], number=4)[1:] + b"\x00\x00"


def _record_seeds() -> Iterable[bytes]:
    for body in _body_seeds():
        yield b"\xff" + encode_publish(body)
    envelope = Envelope(origin=bytes(range(16)), boot=3, sequence=9, publisher="alice", first=1, age_ms=2, hop_limit=3)
    body = next(iter(_body_seeds()))
    yield b"\x20" + encode_delivery(envelope, [(1, 0)], body)
    yield b"\x20" + encode_delivery(envelope, [(1, 0), (2, 5)], body) + encode_publish(body)
    yield b"\x40" + encode_publish(bytes(MAX_SIZE)) + encode_publish(body)


# --- bundles ----------------------------------------------------------------------------------------------------------


def bundles(data: bytes) -> None:
    """Kind and payload of a record."""
    if not data:
        return
    bundle = decode_bundle(data[0], data[1:])
    assert encode_bundle(bundle) == bundle.signed
    again = record(bundle)
    assert again[4:] == data
    for batch in bundle.batches:
        assert len(batch.body) >= MIN_BODY_SIZE
        peek_body(batch.body)


def record(bundle: Bundle) -> bytes:
    """Return a bundle as it stands on a lane."""
    front = encode_record_front(bundle, len(bundle.signed or encode_bundle(bundle)))
    return b"".join((front, *bundle_parts(bundle), encode_signature(bundle.signature)))


def _bundle_seeds() -> Iterable[bytes]:
    body = next(iter(_body_seeds()))
    plain = BundleBatch(5, 4, 4, 0, "alice", body, after=((bytes(16), 2, 7),))
    share = BundleBatch(6, 4, 5, 1, "al\u00edce", body, "workers", "a/+")
    node, other = bytes(range(16)), bytes(range(16, 32))
    for kind, target in ((KIND_BROADCAST, EVERYONE), (KIND_DIRECT, other), (KIND_RELAY, other), (KIND_RETURNED, other)):
        for batches in ((plain,), (plain, share)):
            bundle = Bundle(kind, node, 1, 9, target, 2, batches, 31, 3, b"", b"\xaa" * 8)
            yield record(bundle)[4:]


TARGETS = (
    Target("client_frames", client_frames, _client_frame_seeds, (ProtocolViolation,)),
    Target("node_frames", node_frames, _node_frame_seeds, (ProtocolViolation,)),
    Target("records", records, _record_seeds, (ProtocolViolation,), max_size=4096),
    Target("bodies", bodies, _body_seeds, (ProtocolViolation,)),
    Target("bundles", bundles, _bundle_seeds, (ProtocolViolation,)),
)
