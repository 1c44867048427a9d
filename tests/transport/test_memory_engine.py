"""What is special to the memory engine: its packets, its bookkeeping, and that a seed decides everything."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.transport import _memory_packets as packets
from quicbus.transport import engine as seam
from quicbus.transport._memory_streams import RANGES_MAX, IncomingStreams, OutgoingStreams, ReceivedNumbers
from quicbus.transport.memory import DATAGRAM_SIZE, MemoryEngine
from tests.transport.pump import Faults, Pump, dialing

NUMBERS = st.integers(0, 2**63)
SHORT_NUMBERS = st.integers(0, 2**32 - 1)
FRAMES = st.one_of(
    st.just(packets.Ping()),
    st.builds(packets.Ack, st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5).map(tuple)),
    st.builds(packets.Stream, SHORT_NUMBERS, NUMBERS, st.binary(max_size=50), st.booleans()),
    st.builds(packets.Reset, SHORT_NUMBERS, NUMBERS),
    st.builds(packets.Stop, SHORT_NUMBERS, NUMBERS),
    st.builds(packets.Close, NUMBERS, st.booleans(), st.text(max_size=50)),
    st.builds(packets.Hello, st.binary(min_size=32, max_size=32), SHORT_NUMBERS, st.just("quicbus/1")),
    st.builds(
        packets.HelloReply,
        st.binary(min_size=32, max_size=32),
        SHORT_NUMBERS,
        st.just("quicbus/1"),
        st.binary(max_size=20),
        st.binary(max_size=20),
    ),
)


@given(st.lists(FRAMES, max_size=6), st.sampled_from([packets.INITIAL, packets.HANDSHAKE, packets.SHORT]), NUMBERS)
def test_a_packet_comes_out_as_it_went_in(frames: list[packets.Frame], first: int, number: int) -> None:
    encoded = b"".join(map(packets.encode_frame, frames))
    long_parts = {} if first == packets.SHORT else {"source": b"from her"}
    datagram = packets.encode_packet(first, b"to there", number, encoded, **long_parts)
    opened = packets.open_packet(datagram)
    assert opened is not None
    assert (opened.first, opened.destination, opened.number) == (first, b"to there", number)
    assert packets.decode_frames(opened.payload) == frames


@given(st.binary(max_size=100))
def test_bytes_are_frames_or_malformed(payload: bytes) -> None:
    try:
        packets.decode_frames(payload)
    except packets.MalformedPacket:
        pass


@given(st.binary(max_size=60))
def test_a_datagram_is_a_packet_or_nothing(datagram: bytes) -> None:
    packets.open_packet(datagram)
    checksum = zlib.crc32(datagram).to_bytes(4, "big")
    packets.open_packet(datagram + checksum)


@given(st.lists(st.integers(0, 40)))
def test_numbers_are_kept_in_runs(numbers: list[int]) -> None:
    received = ReceivedNumbers()
    seen: set[int] = set()
    for number in numbers:
        assert received.add(number) == (number not in seen)
        seen.add(number)
    assert [n for first, last in received.ranges() for n in range(first, last + 1)] == sorted(seen)
    assert all(a[1] + 1 < b[0] for a, b in zip(received.ranges(), received.ranges()[1:], strict=False))


def test_runs_are_bounded() -> None:
    received = ReceivedNumbers()
    for number in range(0, 1000, 2):
        received.add(number)
    assert len(received.ranges()) == RANGES_MAX
    assert received.ranges()[-1] == (998, 998)


def test_streams_take_turns() -> None:
    streams = OutgoingStreams()
    for stream in (2, 6):
        streams.open(stream)
        streams.write(stream, bytes(250), end=False)
    order = []
    while (frame := streams.next_frame(100)) is not None:
        order.append(frame.stream_id)
    assert order == [2, 6, 2, 6, 2, 6]


def test_a_stream_is_freed_once_its_end_is_acknowledged() -> None:
    streams = OutgoingStreams()
    streams.open(2)
    streams.write(2, bytes(150), end=True)
    first, second = streams.next_frame(100), streams.next_frame(100)
    assert first is not None
    assert second is not None
    assert (first.ended, second.ended) == (False, True)
    streams.acknowledged(second)
    streams.lost(first)
    assert streams.next_frame(100) == first
    streams.acknowledged(first)
    assert len(streams) == 0


def test_a_stream_of_the_wrong_kind_or_too_many_are_malformed() -> None:
    streams = IncomingStreams(3)
    for wrong in (0, 1, 2):
        with pytest.raises(packets.MalformedPacket):
            streams.take(packets.Stream(wrong, 0, b"x", False))
    for number in range(128):
        streams.take(packets.Stream(3 + 4 * number, 0, b"x", False))
    with pytest.raises(packets.MalformedPacket):
        streams.take(packets.Stream(3 + 4 * 128, 0, b"x", False))


def test_malformed_frames_with_a_right_checksum_close_the_connection() -> None:
    pump = Pump("memory", "memory").connected()
    (own,) = pump.dialer.connection.connection_ids
    pump.inject(pump.dialer, packets.encode_packet(packets.SHORT, own, 1000, b"\xee"))
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None)
    assert pump.accepted.end is not None
    assert (pump.accepted.end.code, pump.accepted.end.is_application) == (0xA, False)


def test_the_same_seed_gives_the_same_bytes() -> None:
    def first_flight(seed: int) -> list[bytes]:
        connection = MemoryEngine(random.Random(seed)).dial(dialing())
        connection.connect(1.0)
        return connection.datagrams_to_send(1.0)

    assert first_flight(1) == first_flight(1) != first_flight(2)


def test_large_datagrams_carry_a_large_transfer_through_loss() -> None:
    pump = Pump("memory", "memory", max_datagram_size=DATAGRAM_SIZE, faults=Faults(loss=0.02, reorder=0.05)).connected()
    content = random.Random(3).randbytes(5_000_000)
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, content)
    pump.run(lambda: len(pump.accepted.data(stream)) == len(content))
    assert pump.accepted.data(stream) == content
    assert pump.dialer.datagrams_sent < 250


def test_more_than_may_be_in_flight_arrives_too() -> None:
    pump = Pump("memory", "memory", max_datagram_size=DATAGRAM_SIZE).connected()
    stream = pump.dialer.connection.open_stream()
    size = 20_000_000
    pump.dialer.connection.send(stream, bytes(size))
    pump.run(lambda: sum(len(event.data) for event in pump.accepted.of(seam.StreamData)) == size)


def test_who_is_busy_for_longer_than_the_probe_time_out_does_not_send_everything_again() -> None:
    pump = Pump("memory", "memory", max_datagram_size=DATAGRAM_SIZE).connected()
    dialer = pump.dialer.connection
    dialer.send(dialer.open_stream(), bytes(4_000_000))
    first = dialer.datagrams_to_send(pump.now)
    probe_at = dialer.timer()
    assert probe_at is not None

    dialer.handle_timer(probe_at)
    again = dialer.datagrams_to_send(probe_at)

    assert len(first) > 100
    assert len(again) <= 2
