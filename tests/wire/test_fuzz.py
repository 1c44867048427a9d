"""Random and mutated bytes: the only outcomes are values and `ProtocolViolation`."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import FLAG_HEADERS, decode_headers, encode_body, encode_headers
from quicbus.wire.frames import FRAME_TYPES, Frame, Ping, Subscribe, encode_frame
from quicbus.wire.records import Envelope, encode_delivery, encode_publish
from quicbus.wire.varint import encode_varint
from tests.fuzz.mutation import mutated
from tests.fuzz.targets.wire import read_frames, read_records
from tests.wire.strategies import ENVELOPES, FRAMES, bodies

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZE = 100_000
SEED = 20_240_229


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def read_control(data: bytes, chunk_size: int) -> None:
    read_frames(pieces(data, chunk_size), FRAME_TYPES, MAX_SIZE)


def read_lane(data: bytes, chunk_size: int) -> None:
    read_records(pieces(data, chunk_size), MAX_SIZE)


def survives(read: Callable[[bytes, int], None], data: bytes, chunk_size: int) -> None:
    with contextlib.suppress(ProtocolViolation):
        read(data, chunk_size)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_random_bytes_on_any_stream_are_values_or_a_violation(data: bytes, chunk_size: int) -> None:
    survives(read_control, data, chunk_size)
    survives(read_lane, data, chunk_size)


@given(st.sampled_from(sorted(FRAME_TYPES)), st.binary(max_size=200))
def test_random_bytes_in_a_frame_are_a_frame_or_a_violation(number: int, body: bytes) -> None:
    survives(read_control, encode_varint(number) + encode_varint(len(body)) + body, 64)


@given(st.lists(FRAMES, min_size=1, max_size=3), st.integers(1, 100), st.integers(0, 2**32))
def test_mutated_frames_are_frames_or_a_violation(sent: list[Frame], chunk_size: int, seed: int) -> None:
    survives(read_control, mutated(b"".join(map(encode_frame, sent)), random.Random(seed)), chunk_size)


@given(bodies(), ENVELOPES, st.integers(30, 2000), st.integers(0, 2**32))
def test_mutated_records_are_records_or_a_violation(raw: bytes, envelope: Envelope, size: int, seed: int) -> None:
    rng = random.Random(seed)
    survives(read_lane, mutated(encode_publish(raw) * 2, rng), size)
    survives(read_lane, mutated(encode_delivery(envelope, [(1, 0), (2, 5)], raw), rng), size)


@given(st.binary(max_size=100))
def test_random_headers_are_headers_or_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        headers = decode_headers(encoded)
        assert all(isinstance(text, str) for pair in headers.items() for text in pair)


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_long_run_of_seeded_mutations_only_yields_values_and_violations(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    subscribe = Subscribe(
        id=1, filter="a/#", max_pending=9, max_pending_size=99, window_messages=9, window_size=99, group="workers"
    )
    control = encode_frame(subscribe) + encode_frame(Ping(id=2**40))
    message = encode_headers({"unit": "C"}) + b"21.5"
    body = encode_body(b"sensors", [message] * 2, number=5, flags=FLAG_HEADERS)
    envelope = Envelope(origin=bytes(range(16)), boot=3, sequence=9, publisher="alice")
    lane = encode_publish(body) + encode_delivery(envelope, [(1, 0)], body)
    read_control(control, 1000)
    read_lane(lane, 1000)
    for _ in range(2000):
        survives(read_control, mutated(control, rng), rng.randint(1, 100))
        survives(read_lane, mutated(lane, rng), rng.randint(1, 300))
        survives(rng.choice([read_control, read_lane]), rng.randbytes(rng.randint(0, 64)), 16)
