"""What the memory engine has sent and not heard of: acknowledgement, loss, probes (RFC 9002, much shortened)."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from quicbus.transport._memory_packets import Frame

__all__ = ["InFlight"]

PACKET_THRESHOLD = 3
"""A packet is lost once one sent that many later was acknowledged (RFC 9002 section 6.1.1)."""
INITIAL_PROBE_TIMEOUT_S = 0.3
PROBE_TIMEOUT_MIN_S = 0.02
PROBE_PACKETS = 2
"""RFC 9002 section 6.2.4: what answers them tells what else was lost. A loop that was busy for longer than the time-out
has lost nothing, and the peer counts what comes again as bytes that it has to hold."""
_BACKOFF_MAX = 6


class _Sent(NamedTuple):
    frames: list[Frame]
    size: int
    time: float


class InFlight:
    """Packets that are not acknowledged, by number, lowest first."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of datagrams."""
        self._packets: dict[int, _Sent] = {}
        self._rtt_s: float | None = None
        self._probes = 0

    def clear(self) -> None:
        self._packets.clear()
        self.size = 0

    def sent(self, number: int, frames: list[Frame], size: int, now: float) -> None:
        self._packets[number] = _Sent(frames, size, now)
        self.size += size

    def acknowledged(self, ranges: tuple[tuple[int, int], ...], now: float) -> tuple[list[Frame], list[Frame]]:
        """Return the frames that arrived and those that count as lost."""
        arrived: list[Frame] = []
        if not self._packets:
            return arrived, []
        lowest, highest = next(iter(self._packets)), next(reversed(self._packets))
        largest, sent = -1, None
        for first, last in ranges:
            for number in range(max(first, lowest), min(last, highest) + 1):
                if number in self._packets:
                    largest, sent = number, self._remove(number)
                    arrived += sent.frames
        if sent is None:
            return arrived, []
        sample = now - sent.time
        self._rtt_s = sample if self._rtt_s is None else 0.875 * self._rtt_s + 0.125 * sample
        self._probes = 0
        late = takewhile(lambda number: number <= largest - PACKET_THRESHOLD, self._packets)
        return arrived, [frame for number in list(late) for frame in self._remove(number).frames]

    def probe_at(self) -> float | None:
        """Return when the peer is asked for a sign, if nothing is heard until then."""
        if not self._packets:
            return None
        timeout_s = INITIAL_PROBE_TIMEOUT_S if self._rtt_s is None else max(3 * self._rtt_s, PROBE_TIMEOUT_MIN_S)
        latest = next(reversed(self._packets.values())).time
        return latest + timeout_s * (1 << min(self._probes, _BACKOFF_MAX))

    def probe(self) -> list[Frame]:
        """Give up the oldest packets in flight and return their frames."""
        self._probes += 1
        oldest = list(islice(self._packets, PROBE_PACKETS))
        return [frame for number in oldest for frame in self._remove(number).frames]

    def _remove(self, number: int) -> _Sent:
        sent = self._packets.pop(number)
        self.size -= sent.size
        return sent
