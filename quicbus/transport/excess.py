"""What a connection sends beyond its part of a turn: its datagrams wait here, in order, while those of others are fed.

The system hands datagrams out in the order in which they came. A burst of a megabyte takes aioquic 20 ms to decrypt,
and whatever came behind it would wait as long. So, once what arrived in a turn has taken `FEED_S`, only connections
that had nothing yet in it are fed, up to `FEED_OTHERS_S`; the rest waits for turns of its own, in between those of what
arrives.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.network import Path

__all__ = ["Excess"]

T = TypeVar("T")

FEED_S: Final = 0.001
"""Of one turn for what waited, and for what arrives: 50 KB at aioquic, a megabyte at qh3."""
FEED_OTHERS_S: Final = 0.005
"""Of one turn until also those wait who had nothing yet in it: a hundred connections with a datagram each. With 2 ms a
hundred publishers had 0.9 of the throughput."""
MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes that wait in all. Beyond that datagrams are fed as they come: they are the peers', and none is dropped here."""


class Excess(Generic[T]):
    """Of the connections of one endpoint. `feed` takes a connection, datagrams, their size and their path."""

    __slots__ = ("_began", "_clock", "_feed", "_heavy", "_size", "waiting")

    def __init__(
        self, feed: Callable[[T, bytes, int, Path], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._began: float | None = None
        self._size = 0
        self._heavy: frozenset[T] = frozenset()
        """Had more than one buffer waiting when the turn before ended: what arrives of them waits at once."""
        self.waiting: dict[T, deque[tuple[bytes, int, Path]]] = {}
        """Datagrams with their size and path, of each connection that has some."""

    def arrived(self, connection: T, buffer: bytes, segment_size: int, path: Path, *, was_fed: bool) -> None:
        """Feed these datagrams now or later. `was_fed`: the connection had others in this turn."""
        if not self._waits(connection, was_fed=was_fed):
            self._feed(connection, buffer, segment_size, path)
        elif self._size + len(buffer) > MAX_SIZE:
            while connection in self.waiting:
                self._feed_next(connection)
            self._feed(connection, buffer, segment_size, path)
        else:
            self.waiting.setdefault(connection, deque()).append((buffer, segment_size, path))
            self._size += len(buffer)

    def turn_ended(self) -> None:
        """All that arrived in this turn was fed, or waits."""
        self._began = None
        if self.waiting or self._heavy:
            self._heavy = frozenset([each for each, queue in self.waiting.items() if len(queue) > 1])

    def work(self) -> None:
        """Feed what waits, a buffer of each connection in turn, for `FEED_S`."""
        end = self._clock() + FEED_S
        while self.waiting:
            self._feed_next(next(iter(self.waiting)))
            if self._clock() >= end:
                break

    def forget(self, connection: T) -> None:
        self._size -= sum(len(buffer) for buffer, _, _ in self.waiting.pop(connection, ()))

    def _waits(self, connection: T, *, was_fed: bool) -> bool:
        if connection in self.waiting:
            return True
        if self._began is None:
            self._began, took_s = self._clock(), 0.0
        else:
            took_s = self._clock() - self._began
        return took_s >= (FEED_S if was_fed else FEED_OTHERS_S) or connection in self._heavy

    def _feed_next(self, connection: T) -> None:
        queue = self.waiting.pop(connection)
        datagrams = queue.popleft()
        self._size -= len(datagrams[0])
        if queue:
            self.waiting[connection] = queue
        self._feed(connection, *datagrams)
