"""Which bundles of an origin have been seen: a window over its numbers, in place of a set of ids."""

from __future__ import annotations

__all__ = ["MAX_SEEN_ABOVE", "SeenWindow"]

MAX_SEEN_ABOVE = 1024
"""Numbers above the first missing one that are remembered; beyond it the lowest missing ones count as seen."""


class SeenWindow:
    """The numbers seen of one boot of an origin. All up to `contiguous` are, and some above it."""

    __slots__ = ("_above", "boot", "contiguous", "since")

    def __init__(self, boot: int, contiguous: int, since: float | None) -> None:
        self.boot = boot
        self.contiguous = contiguous
        self.since = since
        """When this boot was first heard of; `None`: not known."""
        self._above: dict[int, None] | None = None

    @property
    def highest(self) -> int:
        return max(self._above) if self._above else self.contiguous

    def __contains__(self, number: int) -> bool:
        return number <= self.contiguous or (self._above is not None and number in self._above)

    def add(self, number: int) -> None:
        """Count a number as seen. Costs the same whatever the distance to the others."""
        if number == self.contiguous + 1:
            self.contiguous = number
            if self._above:
                self._absorb()
        elif number > self.contiguous:
            if self._above is None:
                self._above = {}
            self._above[number] = None
            if len(self._above) > MAX_SEEN_ABOVE:
                self.raise_to(min(self._above))

    def raise_to(self, number: int) -> None:
        """Count all up to `number` as seen."""
        if number <= self.contiguous:
            return
        self.contiguous = number
        if self._above:
            self._above = {each: None for each in self._above if each > number}
            self._absorb()

    def _absorb(self) -> None:
        above = self._above
        assert above is not None
        while self.contiguous + 1 in above:
            self.contiguous += 1
            del above[self.contiguous]
        if not above:
            self._above = None
