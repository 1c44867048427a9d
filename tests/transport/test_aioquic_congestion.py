"""aioquic's congestion control: which losses shrink the window."""

from __future__ import annotations

import itertools
import random

import pytest
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from quicbus.transport._aioquic_congestion import CONGESTION_CONTROL, SHORTEST_FOR_S

SIZE = 1200
ROUND_TRIP_S = 0.08
ACKNOWLEDGED_AT_ONCE = 10


class Path:
    """Sends a window, or less of it, a round trip; some of it is lost."""

    def __init__(self, *, packet_size: int = SIZE, seed: int = 1) -> None:
        self.control = create_congestion_control(CONGESTION_CONTROL, max_datagram_size=SIZE)
        self.now = 1.0
        self._packet_size = packet_size
        self._rng = random.Random(seed)
        self._numbers = itertools.count()

    @property
    def window(self) -> int:
        return self.control.congestion_window

    def round_trips(self, count: int, *, loss: float = 0.0, queue_s: float = 0.0, share: float = 1.0) -> None:
        for _ in range(count):
            begin = self.now
            packets = [self._send() for _ in range(max(1, int(self.window * share) // self._packet_size))]
            self.now = begin + ROUND_TRIP_S + queue_s
            for at in range(0, len(packets), ACKNOWLEDGED_AT_ONCE):
                self._answer(packets[at : at + ACKNOWLEDGED_AT_ONCE], loss)
                self.control.on_rtt_measurement(now=self.now, rtt=self.now - begin)
            assert self.control.bytes_in_flight == 0

    def lose_one(self) -> None:
        self.control.on_packets_lost(now=self.now, packets=[self._send()])

    def _answer(self, packets: list[QuicSentPacket], loss: float) -> None:
        lost = []
        for packet in packets:
            if self._rng.random() < loss:
                lost.append(packet)
            else:
                self.control.on_packet_acked(now=self.now, packet=packet)
        if lost:
            self.control.on_packets_lost(now=self.now, packets=lost)

    def _send(self) -> QuicSentPacket:
        number = next(self._numbers)
        packet = QuicSentPacket(Epoch.ONE_RTT, True, True, False, number, QuicPacketType.ONE_RTT)
        packet.sent_time, packet.sent_bytes = self.now, self._packet_size
        self.control.on_packet_sent(packet=packet)
        return packet


@pytest.mark.parametrize("loss", [0.01, 0.03, 0.05])
def test_random_loss_leaves_the_window_as_it_is(loss: float) -> None:
    path = Path(packet_size=240)
    path.round_trips(2)
    before = path.window
    path.round_trips(50, loss=loss)
    assert path.window >= before


def test_loss_with_longer_round_trips_shrinks_the_window() -> None:
    path = Path()
    path.round_trips(4)
    path.round_trips(2, queue_s=0.03, share=0.9)
    before = path.window
    path.round_trips(2, loss=0.03, queue_s=0.03, share=0.9)
    assert path.window < before


def test_a_few_longer_round_trips_are_no_queue() -> None:
    path = Path()
    path.round_trips(4)
    for longer_by_s in (0.03, 0.03, 0.03, 0.0, 0.03, 0.03, 0.03):
        path.control.on_rtt_measurement(now=path.now, rtt=ROUND_TRIP_S + longer_by_s)
    before = path.window
    path.lose_one()
    assert path.window == before


def test_more_loss_than_paths_have_by_themselves_shrinks_the_window() -> None:
    path = Path()
    path.round_trips(4)
    before = path.window
    path.round_trips(20, loss=0.2)
    assert path.window < before / 2


def test_route_that_became_longer_is_a_queue_only_for_a_while() -> None:
    path = Path()
    path.round_trips(4)
    path.round_trips(int(2 * SHORTEST_FOR_S / ROUND_TRIP_S) + 10, queue_s=0.08, share=0.1)
    before = path.window
    path.round_trips(3, loss=0.03, queue_s=0.08)
    assert path.window >= before


def test_window_of_which_little_is_used_does_not_grow() -> None:
    path = Path()
    path.round_trips(3)
    before = path.window
    path.round_trips(50, share=0.3)
    assert path.window == before


def test_first_loss_ends_the_doubling() -> None:
    path = Path()
    path.round_trips(2)
    assert path.control.ssthresh is None
    path.round_trips(1, loss=0.5)
    assert path.control.ssthresh is not None
