"""Fewer filters in the place of many: siblings become `prefix/+`, whole subtrees `prefix/#`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["coarse_filters"]

MAX_DEPTH = 32
"""Levels of a prefix that are looked at; what is deeper comes together there."""
FILTERS_PER_STEP = 8


def coarse_filters(filters: Iterable[str], target: int) -> Generator[None, None, list[str]]:
    """Find filters to add so that, with what they cover left out, at most `target` are left, as far as can be.

    A generator, as that may take long; what it yields is a step each.

    The longest prefixes are taken first, as they match the fewest topics that nobody asked for; of these the ones with
    the most filters below. Topics of different first levels that begin with `$` have nothing that covers both.
    """
    left: dict[str, tuple[str, ...]] = {}
    added: dict[str, None] = {}
    deepest = 1
    for at, filter in enumerate(filters):
        if at % FILTERS_PER_STEP == 0:
            yield
        left[filter] = levels = tuple(filter.split("/"))
        deepest = max(deepest, len(levels))
    depth = min(MAX_DEPTH, deepest - 1)
    while depth >= 0 and len(left) > target:
        families: dict[tuple[str, ...], list[str]] = {}
        for at, (filter, levels) in enumerate(left.items()):
            if at % FILTERS_PER_STEP == 0:
                yield
            if len(levels) > depth and (depth or not filter.startswith("$")):
                families.setdefault(levels[:depth], []).append(filter)
        several = [family for family in families.items() if len(family[1]) > 1]
        for prefix, members in sorted(several, key=lambda family: (-len(family[1]), family[0])):
            if len(left) <= target:
                break
            is_flat = all(len(left[each]) == depth + 1 and left[each][-1] != "#" for each in members)
            levels = (*prefix, "+" if is_flat else "#")
            for at, each in enumerate(members):
                if at % FILTERS_PER_STEP == 0:
                    yield
                del left[each]
                added.pop(each, None)
            coarse = "/".join(levels)
            left[coarse] = levels
            added[coarse] = None
        depth -= 1
    return list(added)
