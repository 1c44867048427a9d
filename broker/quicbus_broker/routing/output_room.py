"""How much may be handed over for one destination before its network has taken what was. Pure."""

from __future__ import annotations

import sys

__all__ = ["OutputRoom"]


class OutputRoom:
    """Shared by all subscriptions of a destination. While `size` is at `allowed` messages wait in their backlogs, where
    the policies of the subscriptions hold; what is under way then still goes out.

    Only credit says what a subscriber has read; this bounds what is kept for it below the streams meanwhile, however
    many subscriptions it has.
    """

    __slots__ = ("allowed", "has_waiting", "size")

    def __init__(self, allowed: int = sys.maxsize) -> None:
        self.allowed = allowed
        self.size = 0
        """Bytes handed over that were not seen to have left; at least what is kept."""
        self.has_waiting = False
        """A subscription found no room: it must be asked again when there is some."""

    @property
    def is_full(self) -> bool:
        return self.size >= self.allowed

    def wants_measure(self) -> bool:
        """Whether to find out how much is really kept: not until that could matter, since asking costs."""
        return 2 * self.size >= self.allowed

    def measured(self, size: int) -> bool:
        """So much is kept. Returns whether those who wait are to be asked again: when half is free."""
        self.size = size
        if self.has_waiting and 2 * size <= self.allowed:
            self.has_waiting = False
            return True
        return False
