"""One direction of a wide-area link, as a pure state machine: packets and the time go in, packets due come out.

Chance is drawn packet by packet from one seeded source, so the fate of the nth packet is the same in each run and for
each protocol. Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import random

__all__ = ["Link", "LinkCounters", "LinkSettings"]

NS_PER_MS = 1_000_000


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to IP packets in one direction. Rates of loss and reordering are shares, from 0 to 1."""

    delay_ms: float = 40.0
    jitter_ms: float = 0.0
    """Added to the delay, evenly spread from 0 up. It never changes the order: a packet waits for those before it."""
    loss: float = 0.0
    reorder: float = 0.0
    reorder_by_ms: float = 5.0
    """A packet that is reordered comes so much later, and those behind it pass."""
    rate_mbit: float = 100.0
    """Megabits a second of IP packets; 0: as fast as they come."""
    queue_ms: float = 100.0
    """A packet that would wait longer for its turn at this rate is dropped, as a full router's queue does."""


@dataclass(slots=True)
class LinkCounters:
    """Packets that came in, and what became of them."""

    packets: int = 0
    size: int = 0
    lost: int = 0
    overflowed: int = 0
    reordered: int = 0
    delivered: int = 0


class Link:
    """Feed with `take`, and call `due` no later than at `next_due`."""

    __slots__ = ("_free_at", "_in_order_at", "_ns_per_byte", "_rng", "_settings", "_waiting", "counters")

    def __init__(self, settings: LinkSettings, rng: random.Random) -> None:
        self.counters = LinkCounters()
        self._rng = rng
        self._waiting: list[tuple[int, int, bytes]] = []
        self._free_at = 0
        """When the last bit of what was taken so far has left at the link's rate."""
        self._in_order_at = 0
        """When the last packet that keeps its place arrives."""
        self.change(settings)

    def change(self, settings: LinkSettings) -> None:
        """Treat packets so from now on; those under way stay as they are."""
        self._settings = settings
        self._ns_per_byte = 8_000 / settings.rate_mbit if settings.rate_mbit else 0.0

    @property
    def next_due(self) -> int | None:
        return self._waiting[0][0] if self._waiting else None

    def take(self, packet: bytes, now: int) -> None:
        """A packet enters; it takes up the link's rate even where it is lost later on its way."""
        settings, counters, rng = self._settings, self.counters, self._rng
        counters.packets += 1
        counters.size += len(packet)
        starts = max(now, self._free_at)
        if starts - now > settings.queue_ms * NS_PER_MS:
            counters.overflowed += 1
            return
        self._free_at = starts + round(len(packet) * self._ns_per_byte)
        if settings.loss and rng.random() < settings.loss:
            counters.lost += 1
            return
        due = self._free_at + round(settings.delay_ms * NS_PER_MS)
        if settings.jitter_ms:
            due += round(rng.random() * settings.jitter_ms * NS_PER_MS)
        if settings.reorder and rng.random() < settings.reorder:
            counters.reordered += 1
            due += round(settings.reorder_by_ms * NS_PER_MS)
        else:
            due = self._in_order_at = max(due, self._in_order_at)
        heapq.heappush(self._waiting, (due, counters.packets, packet))

    def due(self, now: int) -> list[tuple[int, bytes]]:
        """Return packets that arrive by `now`, each with the time at which it was due, in the order of these times."""
        arrived = []
        while self._waiting and self._waiting[0][0] <= now:
            due, _, packet = heapq.heappop(self._waiting)
            arrived.append((due, packet))
        self.counters.delivered += len(arrived)
        return arrived
