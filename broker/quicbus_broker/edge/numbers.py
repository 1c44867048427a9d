"""Which batches of a session were dealt with: numbers from 1, which come out of order over several lanes."""

from __future__ import annotations

from quicbus.exceptions import ProtocolViolation

__all__ = ["BatchNumbers"]


class BatchNumbers:
    """`all_up_to`: every batch up to this number was dealt with. Numbers beyond a gap are kept, at most `max_ahead`."""

    __slots__ = ("_ahead", "all_up_to", "max_ahead")

    def __init__(self, max_ahead: int) -> None:
        self.max_ahead = max_ahead
        self.all_up_to = 0
        self._ahead: set[int] = set()

    def add(self, number: int) -> None:
        """A batch was dealt with. Raises `ProtocolViolation` for a number that was there and for endless gaps."""
        if number == self.all_up_to + 1:
            self.all_up_to = number
            if self._ahead:
                self._close_gap()
            return
        if number <= self.all_up_to or number in self._ahead:
            raise ProtocolViolation(f"batch number {number} was sent twice")
        if len(self._ahead) >= self.max_ahead:
            raise ProtocolViolation(f"batch {self.all_up_to + 1} is missing, {len(self._ahead)} later ones came")
        self._ahead.add(number)

    def _close_gap(self) -> None:
        ahead = self._ahead
        while self.all_up_to + 1 in ahead:
            self.all_up_to += 1
            ahead.remove(self.all_up_to)
