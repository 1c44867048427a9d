"""`TopicTrie` and `Matching` (import them from `quicbus.topics`): which of many filters match a topic.

A radix tree over levels: chains of levels that no other filter leaves are one node, so that memory follows the bytes of
the filters, however many levels a hostile one has. Nothing recurses, and a match can be done a piece at a time.
"""

from __future__ import annotations

import sys
from typing import Generic, TypeVar

import msgspec

__all__ = ["Matching", "TopicTrie"]

V = TypeVar("V")

_PIECE = 1024
"""Characters of a label with wildcards that are compared at once: at most 512 levels."""
_LEVELS_PER_STEP = 4
"""Comparing so many levels of such a label takes as long as visiting a node."""


class _Several(dict[V, None]):
    """More than one value of a filter, in the order in which they were added."""


class _Node(msgspec.Struct, Generic[V], gc=False, eq=False):
    """`label` holds the levels between the key in the parent and this node, each with a `/` in front.

    A node stands for the same levels from the root on as long as it lives, and longer: a match that has come to it goes
    on from there whatever is added and discarded meanwhile. Only the beginning of its label moves.
    """

    # Tens of thousands of nodes live long, and hold no cycle that does not end with their trie's last filter: the
    # collector need not visit them (gc=False).

    label: str
    is_wild: bool
    children: dict[str, _Node[V]] | None = None
    exact: V | _Several[V] | None = None
    """The value, or values, of the filter that ends here."""
    below: V | _Several[V] | None = None
    """Of the filter that goes on with `#`."""

    def set_label(self, label: str) -> None:
        self.label = label
        self.is_wild = _is_wild(label)


class TopicTrie(Generic[V]):
    """Filters with values; finds the values of all filters that match a topic.

    Filters must be valid (`check_filter`), values hashable and not `None`. `match` costs at most one step per node
    whose levels match the beginning of the topic; there are fewer than two nodes per filter. Where that may be too long
    at once, `begin` does it a piece at a time.
    """

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[V] = _Node("", False)
        self._size = 0

    def __len__(self) -> int:
        """Return the number of different pairs of filter and value."""
        return self._size

    def add(self, filter: str, value: V) -> bool:
        """Add a value to a filter; returns `False`, and changes nothing, when it is there already."""
        path, is_below = _path_of(filter)
        node = self._node_for(path)
        values = node.below if is_below else node.exact
        if values is None:
            if is_below:
                node.below = value
            else:
                node.exact = value
        elif isinstance(values, _Several):
            if value in values:
                return False
            values[value] = None
        elif values == value:
            return False
        elif is_below:
            node.below = _Several({values: None, value: None})
        else:
            node.exact = _Several({values: None, value: None})
        self._size += 1
        return True

    def discard(self, filter: str, value: V) -> bool:
        """Take a value from a filter; returns `False` when it was not there."""
        path, is_below = _path_of(filter)
        trail = self._trail_to(path)
        if trail is None:
            return False
        node = trail[-1][1]
        values = node.below if is_below else node.exact
        if isinstance(values, _Several):
            if value not in values:
                return False
            del values[value]
            if values:
                self._size -= 1
                return True
        elif values is None or values != value:
            return False
        if is_below:
            node.below = None
        else:
            node.exact = None
        self._size -= 1
        _prune(trail)
        return True

    def match(self, topic: str) -> list[V]:
        """Return the values of all filters that match a topic; one that several of these have comes as often."""
        matching = self.begin(topic)
        matching.go_on(sys.maxsize)
        return matching.take()

    def begin(self, topic: str) -> Matching[V]:
        """Begin to match a topic."""
        return Matching(self._root, topic)

    def _node_for(self, path: str) -> _Node[V]:
        """Return the node at a path; it is made, and a node on the way split, where need be."""
        node = self._root
        at = 0
        while at < len(path):
            end = _level_end(path, at)
            key = path[at + 1 : end]
            if node.children is None:
                node.children = {}
            child = node.children.get(key)
            if child is None:
                label = path[end:]
                child = node.children[key] = _Node(label, _is_wild(label))
                return child
            common = _common_levels(child.label, path, end)
            if common < len(child.label):
                child = node.children[key] = _split(child, common)
            node = child
            at = end + common
        return node

    def _trail_to(self, path: str) -> list[tuple[str, _Node[V]]] | None:
        """Return the nodes from the root to the one at a path, each with its key in the one before."""
        node = self._root
        trail = [("", node)]
        at = 0
        while at < len(path):
            end = _level_end(path, at)
            key = path[at + 1 : end]
            child = (node.children or {}).get(key)
            if child is None or _common_levels(child.label, path, end) < len(child.label):
                return None
            node = child
            trail.append((key, node))
            at = end + len(node.label)
        return trail


class Matching(Generic[V]):
    """One match, a piece at a time. Meanwhile filters may come and go: what was there all the time is found, what was
    there for a part of it may be."""

    # Pairs of a node that matches and the position in the path where its levels end. A long label with wildcards is
    # compared in pieces, so that it stands in `_labels` first: node, label, position in that, position in the path.

    __slots__ = ("_found", "_is_hidden", "_labels", "_levels", "_path", "_pending", "steps")

    def __init__(self, root: _Node[V], topic: str) -> None:
        self.steps = 0
        """Taken so far. About 0.3 µs each."""
        self._path = "/" + topic
        # MQTT 5, section 4.7.2: a leading wildcard does not match a topic that begins with "$".
        self._is_hidden = topic.startswith("$")
        self._found: list[V] = []
        self._labels: list[tuple[_Node[V], str, int, int]] | None = None
        self._levels: dict[int, tuple[str, int]] = {}
        """By the position of its `/`: a level of the path, and where it ends."""
        self._pending: list[tuple[_Node[V], int]] = [(root, 0)]

    def take(self) -> list[V]:
        """Take what was found since the last time, in an order that depends on the filters alone."""
        found, self._found = self._found, []
        return found

    def go_on(self, steps: int) -> bool:
        """Take about so many steps; returns `True` when there is nothing left to do."""
        path, pending, levels = self._path, self._pending, self._levels
        size = len(path)
        end_step = self.steps + steps
        step = self.steps
        while True:
            if not pending:
                self.steps = step
                if not self._labels:
                    return True
                if step >= end_step:
                    return False
                self._compare_further(self._labels)
                step = self.steps
                continue
            if step >= end_step:
                self.steps = step
                return False
            step += 1
            node, at = pending.pop()
            is_open = at or not self._is_hidden
            if is_open and (below := node.below) is not None:
                self._add(below)
            if at == size:
                if (exact := node.exact) is not None:
                    self._add(exact)
                continue
            if not (children := node.children):
                continue
            level = levels.get(at)
            if level is None:
                end = path.find("/", at + 1)
                if end < 0:
                    end = size
                level = levels[at] = (path[at + 1 : end], end)
            key, start = level
            for child in (children.get(key), children.get("+") if is_open else None):
                if child is None:
                    continue
                label = child.label
                if not label:
                    pending.append((child, start))
                elif child.is_wild:
                    self._enter(child, start)
                elif path.startswith(label, start):
                    end = start + len(label)
                    if end == size or path[end] == "/":
                        pending.append((child, end))

    def _add(self, values: V | _Several[V]) -> None:
        if isinstance(values, _Several):
            self._found.extend(values)
        else:
            self._found.append(values)

    def _enter(self, node: _Node[V], at: int) -> None:
        """Compare the label of a node, which has wildcards and begins at `at`."""
        label = node.label
        if len(label) > _PIECE:
            if self._labels is None:
                self._labels = []
            self._labels.append((node, label, 0, at))
            return
        at = _after_levels(label[1:].split("/"), self._path, at)
        if at >= 0:
            self._pending.append((node, at))

    def _compare_further(self, labels: list[tuple[_Node[V], str, int, int]]) -> None:
        """Compare a piece of a long label with wildcards."""
        node, label, start, at = labels.pop()
        end = _level_end(label, min(start + _PIECE, len(label)) - 1)
        levels = label[start + 1 : end].split("/")
        self.steps += 1 + len(levels) // _LEVELS_PER_STEP
        at = _after_levels(levels, self._path, at)
        if at < 0:
            return
        if end < len(label):
            labels.append((node, label, end, at))
        else:
            self._pending.append((node, at))


def _path_of(filter: str) -> tuple[str, bool]:
    """Return the levels of a filter, each with a `/` in front, and whether a `#` follows them."""
    if filter == "#":
        return "", True
    if filter.endswith("/#"):
        return "/" + filter[:-2], True
    return "/" + filter, False


def _level_end(path: str, at: int) -> int:
    end = path.find("/", at + 1)
    return len(path) if end < 0 else end


def _is_wild(label: str) -> bool:
    return "/+" in label and "+" in label.split("/")


def _after_levels(levels: list[str], path: str, at: int) -> int:
    """Return where these levels, any of which may be `+`, end in the path of a topic, or -1 where they do not match."""
    size = len(path)
    for level in levels:
        if at == size:
            return -1
        end = path.find("/", at + 1)
        if end < 0:
            end = size
        if level != "+" and level != path[at + 1 : end]:
            return -1
        at = end
    return at


def _common_levels(label: str, path: str, at: int) -> int:
    """Return how many characters of `label` agree, by whole levels, with `path` from `at` on."""
    if path.startswith(label, at):
        end = at + len(label)
        if end == len(path) or path[end] == "/":
            return len(label)
    common = 0
    while common < len(label):
        end = _level_end(label, common)
        level = label[common:end]
        path_end = at + end
        if not path.startswith(level, at + common) or (path_end < len(path) and path[path_end] != "/"):
            break
        common = end
    return common


def _split(node: _Node[V], at: int) -> _Node[V]:
    """Return a new node in the place of `node`, with the first `at` characters of its label, and `node` below it."""
    label = node.label
    end = _level_end(label, at)
    upper: _Node[V] = _Node(label[:at], _is_wild(label[:at]), {label[at + 1 : end]: node})
    node.set_label(label[end:])
    return upper


def _prune(trail: list[tuple[str, _Node[V]]]) -> None:
    """Take the last node of a trail out when nothing is left in it, and join nodes that no longer branch."""
    key, node = trail.pop()
    if not trail or node.exact is not None or node.below is not None:
        return
    if not node.children:
        parent_key, parent = trail.pop()
        assert parent.children is not None
        del parent.children[key]
        if not trail:
            return
        key, node = parent_key, parent
    if node.children and len(node.children) == 1 and node.exact is None and node.below is None:
        _join(trail[-1][1], key, node)


def _join(parent: _Node[V], key: str, node: _Node[V]) -> None:
    """Put the only child of `node` in its place. A match that has come to `node` finds the child as it is now."""
    assert node.children is not None
    assert parent.children is not None
    ((child_key, child),) = node.children.items()
    # In place: a copy that was made like this of `node` itself has the same dictionary.
    node.children[child_key] = _Node(child.label, child.is_wild, child.children, child.exact, child.below)
    child.set_label(f"{node.label}/{child_key}{child.label}")
    parent.children[key] = child
