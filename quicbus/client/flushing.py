"""Flushes under way: each waits until all that was published before it is taken, refused or lost. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.frames import Flush

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.client.publishing import Publisher

__all__ = ["Flushes"]


class _Waiting:
    __slots__ = ("done", "is_sent", "mark")

    def __init__(self, mark: int, done: Callable[[], None]) -> None:
        self.mark = mark
        self.done = done
        self.is_sent = False


class Flushes:
    """Outlives sessions: what a lost session did not answer is asked again in the next one."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0

    def add(self, publisher: Publisher, done: Callable[[], None]) -> int:
        """Begin a flush of all that was published so far; `done` is called once it is over."""
        self._last_id += 1
        self._waiting[self._last_id] = _Waiting(publisher.mark(), done)
        return self._last_id

    def discard(self, id: int) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(id, None)

    def frames(self, publisher: Publisher) -> list[Flush]:
        """Return the frames to send now that the batches before them are on their lanes."""
        if not self._waiting:
            return []
        self.settle(publisher)
        frames: list[Flush] = []
        for id, waiting in self._waiting.items():
            if not waiting.is_sent and publisher.is_sealed(waiting.mark):
                waiting.is_sent = True
                frames.append(Flush(id=id, batches=publisher.batches_sent))
        return frames

    def settle(self, publisher: Publisher) -> None:
        """End those of which nothing is buffered or in flight: no need to ask."""
        if publisher.in_flight:
            return
        for id in [id for id, waiting in self._waiting.items() if publisher.is_sealed(waiting.mark)]:
            self.answered(id)

    def answered(self, id: int) -> None:
        waiting = self._waiting.pop(id, None)
        if waiting is not None:
            waiting.done()

    def disconnected(self, publisher: Publisher) -> None:
        for waiting in self._waiting.values():
            waiting.is_sent = False
        self.settle(publisher)
