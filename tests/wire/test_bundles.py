from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import MIN_BODY_SIZE, encode_body, peek_body
from quicbus.wire.bundles import (
    EVERYONE,
    KIND_BROADCAST,
    KIND_DIRECT,
    KIND_RELAY,
    KIND_RETURNED,
    MAX_AFTER,
    Bundle,
    BundleBatch,
    decode_bundle,
    encode_batch,
    encode_bundle,
    encode_record_front,
    encode_signature,
)
from quicbus.wire.records import Record, RecordParser
from tests.wire.strategies import TEXT, U64

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 20_240_405
ID = st.binary(min_size=16, max_size=16)
POSITIVE = st.integers(1, 2**64 - 1)
KINDS = [KIND_BROADCAST, KIND_DIRECT, KIND_RELAY, KIND_RETURNED]
NAME = TEXT.filter(bool)
BODY = b"body" * 10

BATCHES = st.builds(
    BundleBatch,
    id=U64,
    lane=st.integers(0, 255),
    sequence=POSITIVE,
    first=st.integers(0, 2**32 - 1),
    publisher=TEXT,
    body=st.binary(min_size=MIN_BODY_SIZE, max_size=80),
    after=st.lists(st.tuples(ID, U64, U64), max_size=3).map(tuple),
) | st.builds(
    BundleBatch,
    id=U64,
    lane=st.just(0),
    sequence=POSITIVE,
    first=st.just(0),
    publisher=TEXT,
    body=st.binary(min_size=MIN_BODY_SIZE, max_size=80),
    group=NAME,
    filter=NAME,
)
BUNDLES = st.builds(
    Bundle,
    kind=st.sampled_from(KINDS),
    origin=ID,
    boot=U64,
    number=POSITIVE,
    target=ID | st.just(EVERYONE),
    target_boot=U64,
    batches=st.lists(BATCHES, min_size=1, max_size=4).map(tuple),
    hops=st.integers(0, 255),
    age_ms=st.integers(0, 2**32 - 1),
    signature=st.binary(max_size=80),
)
BUNDLE = Bundle(
    KIND_BROADCAST, b"o" * 16, 1, 2, EVERYONE, 0, (BundleBatch(3, 4, 5, 6, "al", BODY),), 7, 8, b"", b"sign"
)


def record(bundle: Bundle) -> bytes:
    """Return a bundle as it stands on a lane."""
    signed = bundle.signed or encode_bundle(bundle)
    return encode_record_front(bundle, len(signed)) + signed + encode_signature(bundle.signature)


def payload(bundle: Bundle) -> bytes:
    (parsed,) = RecordParser(1 << 20).feed(record(bundle))
    assert isinstance(parsed, Record)
    assert parsed.kind == bundle.kind
    return parsed.payload


@given(BUNDLES)
def test_bundle_round_trips_as_a_record_of_a_lane(bundle: Bundle) -> None:
    received = decode_bundle(bundle.kind, payload(bundle))
    assert received == replace(bundle, signed=encode_bundle(bundle))
    assert received.id == (bundle.origin, bundle.boot, bundle.number)
    assert record(received) == record(bundle)


@given(BUNDLES, st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_what_changes_on_the_way_is_not_signed(bundle: Bundle, hops: int, age_ms: int) -> None:
    changed = replace(bundle, hops=hops, age_ms=age_ms)
    assert encode_bundle(changed) == encode_bundle(bundle)
    assert decode_bundle(bundle.kind, payload(changed)).signed == encode_bundle(bundle)


def test_age_beyond_its_field_stays_at_the_largest() -> None:
    assert decode_bundle(KIND_BROADCAST, payload(replace(BUNDLE, age_ms=2**40))).age_ms == 2**32 - 1


def test_layout_is_the_documented_one() -> None:
    batch = BundleBatch(3, 4, 5, 6, "al", BODY, after=((b"n" * 16, 7, 8),))
    front, body = encode_batch(batch)
    after = b"n" * 16 + (7).to_bytes(8, "little") + (8).to_bytes(8, "little")
    expected = (
        (102).to_bytes(4, "little"),
        (3).to_bytes(8, "little") + b"\x04" + (5).to_bytes(8, "little") + (6).to_bytes(4, "little"),
        b"\x02" + b"\0\0" + b"\0\0" + b"\x01\0",
        b"al" + after,
    )
    assert (front, body) == (b"".join(expected), BODY)
    assert len(front) + len(body) == 102 + 4, "the size counts what follows it"


# Offsets in a payload: hops and age 5, head 58 (its count last), batch from 63: size, 28 further bytes, the rest.
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: b"", "bundle: unpack_from requires a buffer"),
        (lambda raw: raw[:40], "bundle: unpack_from requires a buffer"),
        (lambda raw: raw[:70], "bundle: unpack_from requires a buffer"),
        (lambda raw: raw[:-6], "bundle: unpack_from requires a buffer"),
        (lambda raw: raw[:-1], "whose parts add up to"),
        (lambda raw: raw + b"\0", "whose parts add up to"),
        (lambda raw: raw[:29] + bytes(8) + raw[37:], "number 0"),
        (lambda raw: raw[:61] + bytes(2) + bytes(2), "without batches"),
        (lambda raw: raw[:61] + b"\xff\xff" + raw[63:], "longer than its bundle|bundle: unpack_from"),
        (lambda raw: raw[:63] + b"\xff\xff\xff\xff" + raw[67:], "longer than its bundle"),
        (lambda raw: raw[:63] + bytes(4) + raw[67:], "longer than its bundle"),
        (lambda raw: raw[:76] + bytes(8) + raw[84:], "a batch without a number"),
        (lambda raw: raw[:88] + b"\xff" + raw[89:], "longer than its bundle"),
        (lambda raw: raw[:89] + b"\x01\0" + raw[91:], "half a group"),
        (lambda raw: raw[:91] + b"\x01\0" + raw[93:], "half a group"),
        (lambda raw: raw[:93] + b"\xff\xff" + raw[95:], "longer than its bundle"),
        (lambda raw: raw[:95] + b"\xff\xff" + raw[97:], "bundle: 'utf-8' codec can't decode"),
    ],
)
def test_malformed_bundle_is_a_violation(change: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why):
        decode_bundle(KIND_BROADCAST, change(payload(BUNDLE)))


@pytest.mark.parametrize("size", [0, 4, MIN_BODY_SIZE - 1])
def test_batch_whose_messages_cannot_be_counted_is_a_violation(size: int) -> None:
    batch = BundleBatch(3, 4, 5, 6, "al", bytes(size))
    with pytest.raises(ProtocolViolation, match=f"a body of {size} bytes"):
        decode_bundle(KIND_RELAY, payload(replace(BUNDLE, batches=(batch,))))


def test_messages_of_whatever_is_read_can_be_counted() -> None:
    batch = BundleBatch(3, 4, 5, 6, "al", bytes(MIN_BODY_SIZE))
    (read,) = decode_bundle(KIND_RELAY, payload(replace(BUNDLE, batches=(batch,)))).batches
    assert peek_body(read.body) == (0, 0)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_bundle_or_a_violation(raw: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        decode_bundle(KIND_BROADCAST, raw)


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_mutated_bundles_are_bundles_or_a_violation(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    batches = (
        BundleBatch(3, 4, 5, 6, "alice", BODY, after=((b"n" * 16, 7, 8),)),
        BundleBatch(4, 4, 6, 0, "bob", BODY, "workers", "jobs/#"),
    )
    raw = payload(replace(BUNDLE, batches=batches))
    for _ in range(3000):
        changed = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        cut = rng.randrange(len(changed)) if rng.random() < 0.2 else len(changed)
        with contextlib.suppress(ProtocolViolation):
            read = decode_bundle(KIND_BROADCAST, bytes(changed[:cut]))
            # Whatever is read is read the same again.
            assert decode_bundle(KIND_BROADCAST, payload(read)) == read


def test_a_batch_that_names_too_many_numbers_before_it_is_a_violation() -> None:
    after = ((bytes(16), 1, 1),)
    for count in (MAX_AFTER, MAX_AFTER + 1):
        batch = BundleBatch(1, 0, 1, 0, "alice", encode_body(b"a", [b"x"], number=1), after=after * count)
        payload = bytes(5) + encode_bundle(Bundle(KIND_BROADCAST, bytes(16), 1, 1, EVERYONE, 0, (batch,))) + b"\0\0"
        if count <= MAX_AFTER:
            assert decode_bundle(KIND_BROADCAST, payload).batches == (batch,)
        else:
            with pytest.raises(ProtocolViolation, match="names 65 numbers"):
                decode_bundle(KIND_BROADCAST, payload)
