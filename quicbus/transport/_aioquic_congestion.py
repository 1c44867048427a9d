"""Congestion control of the aioquic engine: CUBIC that does not take every lost packet for a full queue.

On mobile and long paths packets are lost one by one while no queue is full. A controller that answers each with a
smaller window is soon held to a few packets a round trip: aioquic's CUBIC settles at 4 KB where 3 % are lost. Here a
loss is congestion only if the round trip has grown, as it does when a queue fills, or if more is lost than paths lose
by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioquic.quic.packet_builder import QuicSentPacket

__all__ = ["CONGESTION_CONTROL", "LossTolerantCubic"]

CONGESTION_CONTROL = "quicbus-loss-tolerant"

TOLERATED_LOSS = 0.1
"""Share of packets. Over it every loss counts as congestion: a queue too short to be seen in the round trips, or a
policer. BBR's first version takes 0.2."""
LOSS_WEIGHT = 1 / 256
"""Of one packet in the share. Where 5 % are lost at random the share stays below 10 % for five standard deviations."""
QUEUE_SHARE = 1 / 8
QUEUE_MIN_S = 0.004
"""A queue is seen where round trips take longer than the shortest one by this share of it, and at least by so much."""
RECENT_SAMPLES = 8
"""Their smallest is compared: a standing queue delays all, a busy host only some."""
SHORTEST_FOR_S = 10.0
"""How long the shortest round trip counts; the route may have become longer."""


class LossTolerantCubic(CubicCongestionControl):
    """See above. The window does not grow while less than half of it is used (RFC 9002 section 7.8)."""

    def __init__(self, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._loss_share = 0.0
        self._recent = [0.0] * RECENT_SAMPLES
        self._samples = 0
        self._shortest = self._shortest_before = float("inf")
        self._shortest_since = 0.0
        self._used_at = 0.0
        """When half of the window was last in use."""

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self._loss_share -= self._loss_share * LOSS_WEIGHT
        sent_time = packet.sent_time or 0.0
        if sent_time > self._used_at:
            self.bytes_in_flight -= packet.sent_bytes
            self.last_ack = sent_time
        else:
            super().on_packet_acked(now=now, packet=packet)

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        super().on_packet_sent(packet=packet)
        if self.bytes_in_flight * 2 >= self.congestion_window:
            self._used_at = packet.sent_time or 0.0

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        lost = list(packets)
        for _ in lost:
            self._loss_share += (1 - self._loss_share) * LOSS_WEIGHT
        if self._loss_share > TOLERATED_LOSS or self._sees_queue():
            super().on_packets_lost(now=now, packets=lost)
            return
        self.on_packets_expired(packets=lost)
        if self.ssthresh is None:  # no longer doubling: the path is not known well enough to tell the two apart
            self.ssthresh = self.congestion_window

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        super().on_rtt_measurement(now=now, rtt=rtt)
        self._recent[self._samples % RECENT_SAMPLES] = rtt
        self._samples += 1
        if now - self._shortest_since > SHORTEST_FOR_S:
            self._shortest_before, self._shortest, self._shortest_since = self._shortest, rtt, now
        self._shortest = min(self._shortest, rtt)

    def _sees_queue(self) -> bool:
        if self._samples < RECENT_SAMPLES:
            return False
        shortest = min(self._shortest, self._shortest_before)
        return min(self._recent) - shortest > max(QUEUE_MIN_S, shortest * QUEUE_SHARE)


register_congestion_control(CONGESTION_CONTROL, LossTolerantCubic)
