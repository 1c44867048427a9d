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

    def share(self, sizes: Sequence[int], start: int, stop: int) -> list[Run]:
        """Return which member gets which of the messages `start` to `stop`; `sizes` are those of the whole batch."""
        members = self.members
        if len(members) == 1:
            return [Run(members[0], start, stop)]
        # Members with equally much to do take turns.
        self._turn = (self._turn + 1) % len(members)
        order = members[self._turn :] + members[: self._turn]
        levels = [member.pending for member in order]
        rooms = [_room(member, sizes, start, stop) for member in order]
        count = stop - start
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
    rooms = [max(0, room) for room in rooms]
    if count == 1:
        best = min((index for index, room in enumerate(rooms) if room), key=levels.__getitem__, default=None)
        return [int(index == best) for index in range(len(rooms))]
    if sum(rooms) <= count:
        return rooms
    low, high = min(levels), max(levels) + count
    while low < high:  # the highest level that takes no more than there is
        middle = (low + high + 1) // 2
        if sum(_share(level, room, middle) for level, room in zip(levels, rooms, strict=True)) <= count:
            low = middle
        else:
            high = middle - 1
    shares = [_share(level, room, low) for level, room in zip(levels, rooms, strict=True)]
    rest = count - sum(shares)
    for index, share in enumerate(shares):
        if not rest:
            break
        if share < rooms[index] and levels[index] + share == low:
            shares[index] += 1
            rest -= 1
    return shares


def _share(level: int, room: int, target: int) -> int:
    return min(room, max(0, target - level))


def _room(member: Subscription, sizes: Sequence[int], start: int, stop: int) -> int:
    """Return how many of the messages surely fit the member, whichever they are."""
    room = member.room()
    if room <= 0:
        return 0
    free = member.options.max_pending_size - member.pending_size
    largest = max(sizes[start:stop])
    if largest * min(room, stop - start) > free:
        room = max(free // largest, 0 if member.pending else 1)
    return room
