"""What a peer can make an engine hold with few bytes of its own."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from aioquic.quic.rangeset import RangeSet

from quicbus import limits
from quicbus.transport import engine as seam
from tests.transport.pump import Faults, Pump, Side

SPARSE_ROUNDS = 12


def send_at(side: Side, stream: int, offset: int) -> None:
    """Have an aioquic connection send one byte far into a stream, in spite of the limits it was told."""
    library: Any = side.connection._quic  # type: ignore[attr-defined]
    if stream not in library._streams:
        library.send_stream_data(stream, b"x")
    sender = library._streams[stream].sender
    sender._buffer, sender._buffer_start, sender._buffer_stop = bytearray(b"x"), offset, offset + 1
    sender._pending = RangeSet([range(offset, offset + 1)])
    sender.buffer_is_empty = False
    library._streams[stream].max_stream_data_remote = library._remote_max_data = 2**60


@pytest.mark.parametrize("listener", ["aioquic", "qh3"])
def test_bytes_far_into_a_stream_make_a_listener_hold_no_more_than_the_first_window(listener: str) -> None:
    pump = Pump("aioquic", listener).connected()
    stream = pump.dialer.connection.open_stream()
    tracemalloc.start()
    try:
        offset = limits.UNDELIVERED_BEFORE_PROOF - 1
        for _ in range(SPARSE_ROUNDS):
            if pump.accepted.end is not None:
                break
            send_at(pump.dialer, stream, offset)
            pump.run_for(0.1)
            offset = 2 * offset + 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if listener == "aioquic":
        assert pump.accepted.end is not None
        assert (pump.accepted.end.code, pump.accepted.end.is_application) == (0x3, False), "FLOW_CONTROL_ERROR"
    assert not pump.accepted.of(seam.StreamData)
    assert peak < 1_000_000


def test_the_window_of_aioquic_opens_as_fast_as_bytes_come_out() -> None:
    pump = Pump("aioquic", "aioquic", max_datagram_size=8192).connected()
    stream = pump.dialer.connection.open_stream()
    size = 40_000_000
    came = 0

    def count(side: Side, event: seam.EngineEvent) -> None:
        nonlocal came
        if isinstance(event, seam.StreamData):
            came += len(event.data)
            side.events.clear()
            side.times.clear()

    pump.accepted.on_event = count
    pump.dialer.connection.send(stream, bytes(size))
    pump.run(lambda: came == size)


def test_streams_that_are_reset_give_their_part_of_the_window_back() -> None:
    pump = Pump("aioquic", "aioquic").connected()
    for _ in range(40):
        stream = pump.dialer.connection.open_stream()
        send_at(pump.dialer, stream, limits.UNDELIVERED_BEFORE_PROOF // 4)
        pump.run_for(0.1)
        library: Any = pump.dialer.connection._quic  # type: ignore[attr-defined]
        pump.dialer.connection.reset_stream(stream, 1)
        library._streams[stream].sender._reset_error_code = 1
        pump.run_for(0.1)
    assert len(pump.accepted.of(seam.StreamReset)) == 40
    assert pump.accepted.end is None


def test_loss_does_not_keep_the_window_shut() -> None:
    pump = Pump("aioquic", "aioquic", faults=Faults(loss=0.05, reorder=0.1), seed=3).connected()
    streams = [pump.dialer.connection.open_stream() for _ in range(8)]
    for stream in streams:
        pump.dialer.connection.send(stream, bytes(100_000))
    pump.run(lambda: all(len(pump.accepted.data(stream)) == 100_000 for stream in streams), limit_s=60)
