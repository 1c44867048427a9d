"""What the codec costs: `make bench`, or `pytest benchmarks/test_codec.py --benchmark-enable`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from quicbus.wire import batch, frames, records

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

_rng = random.Random(20_240_229)
TOPIC = b"sensors/kitchen/temperature"

BATCHES = {
    "1x128": [bytes(128)],
    "375x128": [bytes(128)] * 375,
    "375_mixed": [bytes(_rng.randrange(20, 250)) for _ in range(375)],
    "48_wide": [bytes(_rng.randrange(300, 2000)) for _ in range(47)] + [bytes(70_000)],
    "1x64Ki": [bytes(65_536)],
}
PARAMETERS = pytest.mark.parametrize("name", BATCHES)
HEADERS = {"unit": "C", "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
ENVELOPE = records.Envelope(origin=bytes(16), boot=1, sequence=1, publisher="alice")


def body_of(name: str) -> bytes:
    return batch.encode_body(TOPIC, BATCHES[name], number=1)


@PARAMETERS
def test_encode_body(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark(batch.encode_body, TOPIC, BATCHES[name], number=1)


@PARAMETERS
def test_parse_body(benchmark: BenchmarkFixture, name: str) -> None:
    body = benchmark(batch.parse_body, body_of(name))
    assert body.count == len(BATCHES[name])


@PARAMETERS
def test_read_messages(benchmark: BenchmarkFixture, name: str) -> None:
    messages = benchmark(batch.read_messages, batch.parse_body(body_of(name)))
    assert messages == BATCHES[name]


def test_slice_body(benchmark: BenchmarkFixture) -> None:
    body = batch.parse_body(body_of("375_mixed"))
    part = benchmark(batch.slice_body, body, 100, 200)
    assert part.count == 100


def test_encode_and_decode_headers(benchmark: BenchmarkFixture) -> None:
    def round_trip() -> dict[str, str]:
        message = batch.message_with_headers(batch.encode_headers(HEADERS), b"21.5")
        return batch.decode_headers(batch.split_headers(message)[0])

    assert benchmark(round_trip) == HEADERS


@pytest.mark.parametrize("chunk_size", [1_440, 8_192, 65_536])
def test_cut_a_lane_into_records(benchmark: BenchmarkFixture, chunk_size: int) -> None:
    stream = records.encode_publish(body_of("375x128")) * 20
    chunks = [stream[at : at + chunk_size] for at in range(0, len(stream), chunk_size)]

    def feed() -> int:
        parser = records.RecordParser(1 << 21)
        return sum(len(parser.feed(chunk)) for chunk in chunks)

    assert benchmark(feed) == 20


def test_encode_delivery(benchmark: BenchmarkFixture) -> None:
    benchmark(records.encode_delivery, ENVELOPE, [(1, 0)], body_of("1x128"))


def test_decode_delivery(benchmark: BenchmarkFixture) -> None:
    payload = records.encode_delivery(ENVELOPE, [(1, 0)], body_of("1x128"))[records.RECORD_OVERHEAD :]
    assert benchmark(records.decode_delivery, payload).envelope == ENVELOPE


def test_control_frames_both_ways(benchmark: BenchmarkFixture) -> None:
    frame = frames.SubscriptionCredit(id=7, messages=4_000, size=512_000)
    parser = frames.FrameParser()

    def round_trip() -> list[frames.Frame]:
        return parser.feed(frames.encode_frame(frame))

    assert benchmark(round_trip) == [frame]
