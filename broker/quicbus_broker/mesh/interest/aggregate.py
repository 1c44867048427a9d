"""Plain filters without those that others cover.

One filter may cover ten thousand, and stop to: what follows from a change is done a piece at a time. Meanwhile more is
wanted than need be, never less.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from quicbus_broker.mesh.interest.covering import CoverTree, has_wildcards
from quicbus_broker.mesh.interest.tracked import TrackedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Aggregate"]

AT_ONCE_STEPS = 32
"""What a change may take at once: most cover nothing, or a few others. A step takes 2 to 10 us."""


class Aggregate:
    """`wanted`: what is left, each with whether it blocks. A filter that blocks is covered only by one that does."""

    # What covers may itself be covered. Works go in the order in which they began: until the filters that were below a
    # filter have found another place, what covered it stays wanted.

    def __init__(self) -> None:
        self.wanted: dict[str, bool] = {}
        self._changed: dict[str, None] = {}
        self._tree = CoverTree()
        """What is wanted and not leaving."""
        self._covered: dict[str, tuple[str, bool]] = TrackedDict()
        self._below: dict[str, dict[str, None]] = {}
        self._childless: dict[str, None] = {}
        self._leaving: dict[str, bool | None] = {}
        """Filters that cover others no longer. Each is set to this once these have found another place."""
        self._works: deque[Iterator[None]] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether `work` has something to do."""
        return bool(self._works)

    def set(self, filter: str, blocks: bool | None) -> None:
        """Add, change or, with `None`, take out a filter."""
        if filter in self._leaving:
            self._leaving[filter] = blocks
            if blocks is not None:
                self._want(filter, self.wanted.get(filter, False) or blocks)
            return
        covered, wanted = self._covered.get(filter), self.wanted.get(filter)
        before = wanted if covered is None else covered[1]
        if before == blocks:
            return
        is_weaker = before is not None and not blocks
        if covered is not None:
            self._uncover(filter, covered[0])
        if is_weaker and (filter in self._below or self._leaving):
            self._tree.discard(filter)
            self._leaving[filter] = blocks
            self._begin(self._leave(filter), may_overtake=False)
            return
        if covered is None and wanted is not None:
            self._forget(filter)
        if blocks is not None:
            self._put(filter, blocks)

    def begin(self, work: Iterator[None]) -> None:
        """Have `work` do this, too: what it yields is a step each."""
        self._works.append(work)

    def work(self, steps: int) -> None:
        """Do so many steps of what is left to do."""
        works = self._works
        while works and steps > 0:
            done = sum(1 for _ in islice(works[0], steps))
            if done < steps:
                works.popleft()
            steps -= max(1, done)

    def take_changed(self) -> list[str]:
        """Return the filters of which `wanted` may have changed since the last time."""
        changed, self._changed = list(self._changed), {}
        return changed

    def take_childless(self) -> list[str]:
        """Return filters that have come to cover nothing since the last time."""
        if self._works or not self._childless:
            return []
        childless, self._childless = self._childless, {}
        return [filter for filter in childless if filter in self.wanted and filter not in self._below]

    def walk_below(self, filter: str) -> Iterator[str | None]:
        """Find the wanted filters that this one covers; `None` is a step without one."""
        return self._tree.walk_below(filter)

    def _put(self, filter: str, blocks: bool) -> None:
        for coverer in self._tree.covering(filter):
            if self.wanted[coverer] or not blocks:
                self._covered[filter] = (coverer, blocks)
                self._below.setdefault(coverer, {})[filter] = None
                return
        self._want(filter, blocks)
        self._tree.add(filter)
        if has_wildcards(filter):
            self._begin(self._cover(filter))

    def _want(self, filter: str, blocks: bool) -> None:
        self.wanted[filter] = blocks
        self._changed[filter] = None

    def _forget(self, filter: str) -> None:
        self._tree.discard(filter)
        if self.wanted.pop(filter, None) is not None:
            self._changed[filter] = None

    def _uncover(self, filter: str, coverer: str) -> None:
        del self._covered[filter]
        below = self._below[coverer]
        del below[filter]
        if not below:
            del self._below[coverer]
            self._childless[coverer] = None

    def _begin(self, work: Iterator[None], *, may_overtake: bool = True) -> None:
        """Do a piece of it now, where it need not wait for what began earlier."""
        if (may_overtake or not self._works) and sum(1 for _ in islice(work, AT_ONCE_STEPS)) < AT_ONCE_STEPS:
            return
        self._works.append(work)

    def _cover(self, coverer: str) -> Iterator[None]:
        """Take out of what is wanted all that this filter covers."""
        for each in self._tree.walk_below(coverer):
            yield
            if coverer not in self.wanted or coverer in self._leaving:
                return
            blocks = None if each is None else self.wanted.get(each)
            if each is None or blocks is None or each in self._leaving or (blocks and not self.wanted[coverer]):
                continue
            self._forget(each)
            self._covered[each] = (coverer, blocks)
            self._below.setdefault(coverer, {})[each] = None

    def _leave(self, filter: str) -> Iterator[None]:
        """Find another place for all that this filter covers."""
        while below := self._below.get(filter):
            each, _ = below.popitem()  # the first is behind the gaps of all taken out before
            if not below:
                del self._below[filter]
            self._put(each, self._covered.pop(each)[1])
            yield
        self._forget(filter)
        if (now := self._leaving.pop(filter)) is not None:
            self._put(filter, now)
