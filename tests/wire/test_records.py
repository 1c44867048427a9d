from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import encode_body
from quicbus.wire.records import (
    KIND_MESSAGE,
    KIND_PUBLISH,
    RECORD_OVERHEAD,
    Envelope,
    Oversize,
    Record,
    RecordParser,
    decode_delivery,
    encode_delivery,
    encode_delivery_front,
    encode_publish,
    encode_publish_of,
    encode_subscriptions,
)
from tests.wire.strategies import ENVELOPES, U64, split

if TYPE_CHECKING:
    from collections.abc import Callable

SUBSCRIPTIONS = st.lists(st.tuples(st.integers(0, 2**32 - 1), U64), min_size=1, max_size=5)
ENVELOPE = Envelope(origin=bytes(16), boot=1, sequence=2, publisher="alice")


def record(kind: int, payload: bytes) -> bytes:
    return struct.pack("<IB", 1 + len(payload), kind) + payload


@given(ENVELOPES, SUBSCRIPTIONS, st.binary(max_size=50))
def test_message_record_round_trips(envelope: Envelope, subscriptions: list[tuple[int, int]], body: bytes) -> None:
    encoded = encode_delivery(envelope, subscriptions, body)
    (received,) = RecordParser(1 << 20).feed(encoded)
    assert isinstance(received, Record)
    assert received.kind == KIND_MESSAGE
    delivery = decode_delivery(received.payload)
    assert (delivery.envelope, delivery.subscriptions, delivery.body) == (envelope, tuple(subscriptions), body)
    front = encode_delivery_front(envelope, len(subscriptions), len(body))
    assert front + encode_subscriptions(subscriptions) + body == encoded


def test_age_beyond_its_field_stays_at_the_largest() -> None:
    old = Envelope(origin=bytes(16), boot=1, sequence=2, publisher="", age_ms=2**40)
    (received,) = RecordParser(1 << 20).feed(encode_delivery(old, [(1, 0)], b""))
    assert isinstance(received, Record)
    assert decode_delivery(received.payload).envelope.age_ms == 2**32 - 1


@pytest.mark.parametrize("sizes", [[0], [5], [0xFFFF], [0x10000], [1, 2], [1, 0x10000]])
def test_publish_record_made_at_once_is_that_of_its_body(sizes: list[int]) -> None:
    messages = [bytes(size) for size in sizes]
    record = encode_publish_of(b"a/b", messages[0], messages[1:], number=7, flags=2, reply_to=b"r", expires_in_ms=9)
    assert record == encode_publish(encode_body(b"a/b", messages, number=7, flags=2, reply_to=b"r", expires_in_ms=9))


def test_publish_record_is_size_kind_and_body() -> None:
    encoded = encode_publish(b"body")
    assert encoded == b"\x05\0\0\0\x01body"
    assert len(encoded) == RECORD_OVERHEAD + len(b"body")
    assert RecordParser(100).feed(encoded) == [Record(KIND_PUBLISH, b"body")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda payload: payload[:20], "Message record: unpack_from requires a buffer"),
        (lambda payload: payload[:46], r"cannot name 1 subscriptions"),
        (lambda payload: payload[:42] + b"\0\0" + payload[44:], "cannot name 0 subscriptions"),
        (lambda payload: payload[:42] + b"\xff\xff" + payload[44:], "cannot name 65535 subscriptions"),
        (lambda payload: payload[:41] + b"\xff" + payload[42:], "cannot name 1 subscriptions"),
        (lambda payload: payload[:44] + b"\xff" + payload[45:], "Message record: 'utf-8' codec can't decode"),
        (lambda payload: b"", "Message record: "),
    ],
)
def test_malformed_message_record_is_a_violation(change: Callable[[bytes], bytes], why: str) -> None:
    payload = encode_delivery(ENVELOPE, [(1, 0)], b"body")[RECORD_OVERHEAD:]
    with pytest.raises(ProtocolViolation, match=why):
        decode_delivery(change(payload))


@given(st.data(), st.lists(st.tuples(st.integers(0, 255), st.integers(0, 120)), max_size=8))
def test_records_come_whole_and_oversize_ones_are_skipped_however_the_stream_is_split(
    data: st.DataObject, shapes: list[tuple[int, int]]
) -> None:
    payloads = [(kind, bytes([index % 256]) * size) for index, (kind, size) in enumerate(shapes)]
    stream = b"".join(record(kind, payload) for kind, payload in payloads)
    max_size = 60
    parser = RecordParser(max_size)
    received: list[Record | Oversize] = []
    for chunk in data.draw(split(stream)):
        received += parser.feed(chunk)
        assert parser.held <= max_size + 4
    assert len(received) == len(payloads)
    for got, (kind, payload) in zip(received, payloads, strict=True):
        if 1 + len(payload) <= max_size:
            assert got == Record(kind, payload)
        else:
            assert isinstance(got, Oversize)
            assert (got.kind, got.size) == (kind, 1 + len(payload))
            assert len(got.head) >= 32
            assert payload.startswith(got.head)
    assert parser.held == 0


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 500])
def test_oversize_record_is_reported_once_and_never_held(chunk_size: int) -> None:
    parser = RecordParser(max_size=1000)
    stream = record(KIND_PUBLISH, bytes(range(250)) * 40) + record(KIND_PUBLISH, b"next")
    received: list[Record | Oversize] = []
    for at in range(0, len(stream), chunk_size):
        received += parser.feed(stream[at : at + chunk_size])
        assert parser.held < RECORD_OVERHEAD + 32 + chunk_size
    oversize, after = received
    assert isinstance(oversize, Oversize)
    assert oversize.size == 10_001
    assert oversize.head[:32] == bytes(range(32))
    assert after == Record(KIND_PUBLISH, b"next")


def test_head_of_an_oversize_record_ends_where_the_record_ends() -> None:
    parser = RecordParser(max_size=5)
    assert parser.feed(record(9, b"oversize") + record(1, b"ok")) == [Oversize(9, 9, b"oversize"), Record(1, b"ok")]


def test_largest_record_that_can_be_named_is_skipped_without_memory() -> None:
    parser = RecordParser(max_size=1 << 20)
    parser.feed(struct.pack("<IB", 2**32 - 1, KIND_PUBLISH) + bytes(32))
    for _ in range(50):
        assert parser.feed(bytes(65_536)) == []
        assert parser.held == 0


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 100, 300])
def test_memory_of_a_record_in_small_chunks_stays_near_its_size(chunk_size: int) -> None:
    parser = RecordParser(max_size=1 << 20)
    stream = record(KIND_PUBLISH, bytes(200_000))
    for at in range(0, len(stream) - chunk_size, chunk_size):
        assert parser.feed(stream[at : at + chunk_size]) == []
    taken = sys.getsizeof(parser._chunks) + sum(map(sys.getsizeof, parser._chunks))
    assert taken < 1.3 * parser.held + 1000


def test_chunks_of_all_sizes_in_turn_are_joined_in_order() -> None:
    payload = bytes(index * 7 % 251 for index in range(30_000))
    stream = record(KIND_PUBLISH, payload)
    parser = RecordParser(max_size=1 << 20)
    received: list[Record | Oversize] = []
    at = 0
    for size in [1, 300, 2, 255, 256, 257, 5, 5, 1000] * 100:
        received += parser.feed(stream[at : at + size])
        at += size
    assert received == [Record(KIND_PUBLISH, payload)]


def test_record_without_a_kind_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="a record without a kind"):
        RecordParser(100).feed(bytes(5))
