"""`TopicTrie` (import it from `quicbus.topics`): which of many filters match a topic.

A radix tree over levels: chains of levels that no other filter leaves are one node, so that memory follows the bytes of
the filters, however many levels a hostile one has. Nothing recurses.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["TopicTrie"]

V = TypeVar("V")


class _Node(Generic[V]):
    """`label` holds the levels between the key in the parent and this node, each with a `/` in front."""

    __slots__ = ("below", "children", "exact", "is_wild", "label")

    def __init__(self, label: str) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.exact: dict[V, int] | None = None
        """Values of the filter that ends here, each with the number of its insertion."""
        self.below: dict[V, int] | None = None
        """Values of the filter that goes on with `#`."""
        self.set_label(label)

    def set_label(self, label: str) -> None:
        self.label = label
        self.is_wild = "/+" in label and "+" in label.split("/")

    @property
    def holds_values(self) -> bool:
        return self.exact is not None or self.below is not None


class TopicTrie(Generic[V]):
    """Filters with values; finds the values of all filters that match a topic.

    Filters must be valid (`check_filter`), values hashable. `match` costs at most one step per node whose levels match
    the beginning of the topic; there are fewer than two nodes per filter.
    """

    __slots__ = ("_insertions", "_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[V] = _Node("")
        self._insertions = 0
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
            values = {}
            if is_below:
                node.below = values
            else:
                node.exact = values
        elif value in values:
            return False
        self._insertions += 1
        self._size += 1
        values[value] = self._insertions
        return True

    def discard(self, filter: str, value: V) -> bool:
        """Take a value from a filter; returns `False` when it was not there."""
        path, is_below = _path_of(filter)
        trail = self._trail_to(path)
        if trail is None:
            return False
        node = trail[-1][1]
        values = node.below if is_below else node.exact
        if values is None or value not in values:
            return False
        del values[value]
        self._size -= 1
        if not values:
            if is_below:
                node.below = None
            else:
                node.exact = None
            _prune(trail)
        return True

    def match(self, topic: str) -> list[V]:
        """Return the values of all filters that match a topic, each once, in the order in which they were added."""
        found = self._find(topic)
        if not found:
            return []
        if len(found) == 1:
            return list(found[0])
        pairs = [(number, value) for values in found for value, number in values.items()]
        pairs.sort(key=_insertion)
        return list(dict.fromkeys([value for _, value in pairs]))

    def _find(self, topic: str) -> list[dict[V, int]]:
        path = "/" + topic
        size = len(path)
        root = self._root
        found: list[dict[V, int]] = []
        # MQTT 5, section 4.7.2: a leading wildcard does not match a topic that begins with "$".
        is_hidden = path.startswith("/$")
        if root.below is not None and not is_hidden:
            found.append(root.below)
        first_end = path.find("/", 1)
        level = path[1:first_end] if first_end >= 0 else path[1:]
        end = first_end if first_end >= 0 else size
        pending: list[tuple[_Node[V], int]] = []
        if (child := root.children.get(level)) is not None:
            pending.append((child, end))
        if not is_hidden and (child := root.children.get("+")) is not None:
            pending.append((child, end))
        while pending:
            node, at = pending.pop()
            if node.label and (at := _after_label(node, path, at)) < 0:
                continue
            if node.below is not None:
                found.append(node.below)
            if at == size:
                if node.exact is not None:
                    found.append(node.exact)
                continue
            children = node.children
            if not children:
                continue
            end = path.find("/", at + 1)
            if end < 0:
                end = size
            if (child := children.get(path[at + 1 : end])) is not None:
                pending.append((child, end))
            if (child := children.get("+")) is not None:
                pending.append((child, end))
        return found

    def _node_for(self, path: str) -> _Node[V]:
        """Return the node at a path; it is made, and a node on the way split, where need be."""
        node = self._root
        at = 0
        while at < len(path):
            end = _level_end(path, at)
            key = path[at + 1 : end]
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(path[end:])
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
            child = node.children.get(key)
            if child is None or _common_levels(child.label, path, end) < len(child.label):
                return None
            node = child
            trail.append((key, node))
            at = end + len(node.label)
        return trail


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


def _after_label(node: _Node[V], path: str, at: int) -> int:
    """Return where the levels of the node's label end in the path of a topic, or -1 where they do not match."""
    label = node.label
    if not node.is_wild:
        end = at + len(label)
        if path.startswith(label, at) and (end == len(path) or path[end] == "/"):
            return end
        return -1
    size = len(path)
    for level in label[1:].split("/"):
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
    upper: _Node[V] = _Node(label[:at])
    upper.children[label[at + 1 : end]] = node
    node.set_label(label[end:])
    return upper


def _prune(trail: list[tuple[str, _Node[V]]]) -> None:
    """Take the last node of a trail out when nothing is left in it, and join nodes that no longer branch."""
    key, node = trail.pop()
    if not trail or node.holds_values:
        return
    if not node.children:
        parent_key, parent = trail.pop()
        del parent.children[key]
        if not trail:
            return
        key, node = parent_key, parent
    if len(node.children) == 1 and not node.holds_values:
        _join(trail[-1][1], key, node)


def _join(parent: _Node[V], key: str, node: _Node[V]) -> None:
    """Put the only child of `node` in its place."""
    ((child_key, child),) = node.children.items()
    child.set_label(f"{node.label}/{child_key}{child.label}")
    parent.children[key] = child


def _insertion(pair: tuple[int, V]) -> int:
    return pair[0]
