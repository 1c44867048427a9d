"""Groups: each message goes to one member, the one with the least to do.

A batch is shared out in contiguous runs, so that it is cut once per member: as water fills a vessel, the members with
the least pending get the most. Those with room go before those without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.routing.subscription import Subscription

__all__ = ["Group", "Run", "water_fill"]


@dataclass(slots=True, eq=False)
class Run:
    """Messages `start` to `stop` (exclusive) of a batch for one member."""

    member: Subscription
    start: int
    stop: int


class Group:
    """The subscriptions with one (group name, filter). A group without members must not be asked to share."""

    __slots__ = ("_turn", "filter", "members", "name")

    def __init__(self, name: str, filter: str) -> None:
        self.name = name
        self.filter = filter
        self.members: list[Subscription] = []
        self._turn = 0

    def share(self, start: int, stop: int, largest: int) -> list[Run]:
        """Return which member gets which of the messages `start` to `stop` (exclusive), none over `largest` bytes."""
        members = self.members
        if len(members) == 1:
            return [Run(members[0], start, stop)]
        # Members with equally much to do take turns.
        self._turn = (self._turn + 1) % len(members)
        order = members[self._turn :] + members[: self._turn]
        count = stop - start
        levels = [member.pending for member in order]
        rooms = [_room(member, largest, count) for member in order]
        shares = water_fill(levels, rooms, count)
        rest = count - sum(shares)
        if rest:
            levels = [level + share for level, share in zip(levels, shares, strict=True)]
            further = water_fill(levels, [rest] * len(order), rest)
            shares = [share + more for share, more in zip(shares, further, strict=True)]
        runs: list[Run] = []
        for member, share in zip(order, shares, strict=True):
            if share:
                runs.append(Run(member, start, start + share))
                start += share
        return runs


def water_fill(levels: Sequence[int], rooms: Sequence[int], count: int) -> list[int]:
    """Share `count` units over vessels filled to `levels`, none beyond its room, as level as can be.

    Returns the share of each. They add up to less than `count` where there is less room in all. What cannot be shared
    evenly goes to the first.
    """
    shares = [0] * len(levels)
    open_ = [index for index, room in enumerate(rooms) if room > 0]
    if count == 1:
        if open_:
            shares[min(open_, key=levels.__getitem__)] = 1
        return shares
    while open_ and count:
        target, rest = _target([levels[index] for index in open_], count)
        tight: set[int] = set()
        for index in open_:
            share = max(0, target - levels[index])
            if rest and levels[index] <= target:
                share += 1
                rest -= 1
            if share > rooms[index]:
                tight.add(index)
            shares[index] = share
        if not tight:
            return shares
        # What does not fit them raises the level of all others, so they stay full.
        for index in open_:
            shares[index] = rooms[index] if index in tight else 0
            count -= shares[index]
        open_ = [index for index in open_ if index not in tight]
    return shares


def _target(levels: Sequence[int], count: int) -> tuple[int, int]:
    """Return the level that `count` units raise the lowest vessels to, and how many units are left above it."""
    total = filled = 0
    for level in sorted(levels):
        if level * filled - total >= count:
            break
        total += level
        filled += 1
    return divmod(count + total, filled)


def _room(member: Subscription, largest: int, count: int) -> int:
    """Return how many messages of at most `largest` bytes the member surely takes."""
    room = member.room()
    if room <= 0:
        return 0
    free = member.options.max_pending_size - member.pending_size
    if largest * min(room, count) > free:
        room = max(free // largest, 0 if member.pending else 1)
    return room
