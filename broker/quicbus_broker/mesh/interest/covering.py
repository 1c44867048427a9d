"""Which filters cover which: every topic that the covered one matches, the covering one matches too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CoverTree", "has_wildcards"]

MAX_LEVELS = 64
"""Filters with more levels neither cover nor are covered: a node of the tree costs more than a level's bytes."""


class _Node(msgspec.Struct, gc=False, eq=False):
    """Of a tree, with nothing but texts in it: the collector need not visit tens of thousands of them (gc=False)."""

    children: dict[str, _Node] | None = None
    filter: str | None = None
    """The filter that ends here."""

    @property
    def holds_something(self) -> bool:
        return self.filter is not None or bool(self.children)


class CoverTree:
    """A set of valid filters, by their levels. Nothing recurses."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, filter: str) -> None:
        levels = filter.split("/")
        if len(levels) > MAX_LEVELS:
            return
        node = self._root
        for level in levels:
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.filter = filter

    def discard(self, filter: str) -> None:
        """Take a filter out; nothing happens where it is not in."""
        trail: list[tuple[_Node, str]] = []
        node = self._root
        for level in filter.split("/"):
            child = (node.children or {}).get(level)
            if child is None:
                return
            trail.append((node, level))
            node = child
        node.filter = None
        while trail and not node.holds_something:
            node, level = trail.pop()
            assert node.children is not None
            del node.children[level]

    def covering(self, filter: str) -> Iterator[str]:
        """Find the filters in here that cover this one, itself left out, one after the other: often one will do."""
        levels = filter.split("/")
        if len(levels) > MAX_LEVELS:
            return
        pending = [(self._root, 0)]
        while pending:
            node, at = pending.pop()
            children = node.children or {}
            # MQTT 5, section 4.7.2: a leading wildcard does not match a topic that begins with "$".
            allows_wild = at > 0 or not filter.startswith("$")
            if allows_wild and (below := children.get("#")) is not None and below.filter not in (None, filter):
                yield below.filter
            if at == len(levels):
                if node.filter not in (None, filter):
                    yield node.filter
                continue
            level = levels[at]
            if level == "#":
                continue
            if (child := children.get(level)) is not None:
                pending.append((child, at + 1))
            if allows_wild and level != "+" and (child := children.get("+")) is not None:
                pending.append((child, at + 1))

    def walk_below(self, filter: str) -> Iterator[str | None]:
        """Find the filters in here that this one covers, itself left out; `None` is a step without one.

        Between steps filters may come and go: those that come may be left out.
        """
        levels = filter.split("/")
        if len(levels) > MAX_LEVELS:
            return
        pending = [(self._root, 0)]
        while pending:
            node, at = pending.pop()
            is_over = at >= len(levels)
            level = "" if is_over else levels[at]
            # A `#` stands for the levels above it, too, and for any number of further ones.
            found = node.filter if is_over or level == "#" else None
            yield found if found != filter else None
            children = node.children
            if not children or is_over:
                continue
            if level == "#" or level == "+":
                next_at = at if level == "#" else at + 1
                for key, child in children.items():
                    if (level == "#" or key != "#") and (at or node is not self._root or not key.startswith("$")):
                        pending.append((child, next_at))
            elif (next_node := children.get(level)) is not None:
                pending.append((next_node, at + 1))


def has_wildcards(filter: str) -> bool:
    return "+" in filter or "#" in filter
