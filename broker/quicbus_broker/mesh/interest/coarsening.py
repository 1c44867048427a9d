"""Fewer filters in the place of many: siblings become `prefix/+`, whole subtrees `prefix/#`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["coarse_filters"]

MAX_DEPTH = 32
"""Levels of a prefix that are looked at; what is deeper comes together there."""


def coarse_filters(filters: Iterable[str], target: int) -> list[str]:
    """Return filters to add so that, with what they cover left out, at most `target` are left, as far as can be.

    The longest prefixes are taken first, as they match the fewest topics that nobody asked for; of these the ones with
    the most filters below. Topics of different first levels that begin with `$` have nothing that covers both.
    """
    left = {filter: tuple(filter.split("/")) for filter in filters}
    added: dict[str, None] = {}
    depth = min(MAX_DEPTH, max((len(levels) for levels in left.values()), default=1) - 1)
    while depth >= 0 and len(left) > target:
        families: dict[tuple[str, ...], list[str]] = {}
        for filter, levels in left.items():
            if len(levels) > depth and (depth or not filter.startswith("$")):
                families.setdefault(levels[:depth], []).append(filter)
        for prefix, members in sorted(families.items(), key=lambda family: (-len(family[1]), family[0])):
            if len(members) < 2 or len(left) <= target:
                break
            is_flat = all(len(left[each]) == depth + 1 and left[each][-1] != "#" for each in members)
            levels = (*prefix, "+" if is_flat else "#")
            for each in members:
                del left[each]
                added.pop(each, None)
            coarse = "/".join(levels)
            left[coarse] = levels
            added[coarse] = None
        depth -= 1
    return list(added)
