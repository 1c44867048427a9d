"""Topic names and filters after MQTT 5, section 4.7: checking, matching, and the trie that finds matching filters.

Levels are separated by `/`; an empty level is a level. In a filter `+` stands for one whole level and `#`, last only,
for any number of levels, none included: `sport/#` matches `sport`. Topics that begin with `$` are not matched by a
filter that begins with a wildcard. Nothing is normalised: topics are compared character by character.
"""

from __future__ import annotations

import re

from quicbus import limits
from quicbus.exceptions import InvalidTopic
from quicbus.trie import Matching, TopicTrie

__all__ = [
    "REPLY_PREFIX",
    "Matching",
    "SplitFilter",
    "TopicTrie",
    "check_filter",
    "check_group",
    "check_topic",
    "covers",
    "filter_size",
    "matches",
    "overlaps",
    "parse_filter",
]

REPLY_PREFIX = "$quicbus/reply/"
"""A reply topic is this, then `<node id in hex>/<session in hex>/<n>`."""

_SHARE_PREFIX = "$share/"

# MQTT 5, section 1.5.4: neither U+0000 nor a surrogate may stand in a string.
_BAD_IN_ANY = r"\x00\ud800-\udfff"
_BAD_IN_TOPIC = re.compile(f"[{_BAD_IN_ANY}+#]")
_BAD_IN_FILTER = re.compile(rf"[{_BAD_IN_ANY}]|(?<=[^/])[+#]|\+(?=[^/])|#(?!\Z)")
_BAD_IN_GROUP = re.compile(f"[{_BAD_IN_ANY}/+#]")


def check_topic(topic: str) -> bytes:
    """Return the UTF-8 bytes of a topic to publish to; raises `InvalidTopic` with the first offence."""
    offence = _BAD_IN_TOPIC.search(topic)
    if offence is not None:
        position = offence.start()
        why = _bad_character(topic[position]) or f"{topic[position]!r} is a wildcard, which only filters may hold,"
        raise InvalidTopic(topic, why, position)
    return _encode(topic, "topic", topic)


def check_filter(filter: str) -> bytes:
    """Return the UTF-8 bytes of a filter to subscribe to; raises `InvalidTopic` with the first offence.

    A shared subscription (`$share/...`) is an ordinary filter here: `parse_filter` takes it apart.
    """
    return _check_filter(filter, filter, 0)


def parse_filter(filter: str) -> tuple[str, str | None]:
    """Return the filter and its group: `$share/workers/orders/#` is `("orders/#", "workers")`; both are checked.

    Raises `InvalidTopic`; its position counts in `filter` as it was given.
    """
    if not filter.startswith(_SHARE_PREFIX):
        check_filter(filter)
        return filter, None
    group_start = len(_SHARE_PREFIX)
    group_end = filter.find("/", group_start)
    if group_end < 0:
        _check_group(filter, filter[group_start:], group_start)
        raise InvalidTopic(filter, "a '/' and a filter must follow the group", len(filter))
    group = filter[group_start:group_end]
    _check_group(filter, group, group_start)
    _check_filter(filter, filter[group_end + 1 :], group_end + 1)
    _encode(filter, "filter", filter)
    return filter[group_end + 1 :], group


def check_group(group: str) -> None:
    """Check the name of a group: at least one character, no `/`, `+`, `#` or NUL; raises `InvalidTopic`."""
    _check_group(group, group, 0)
    _encode(group, "group", group)


def filter_size(filter: str, group: str | None) -> int:
    """Return the bytes of UTF-8 that a subscription to a valid filter counts for."""
    return len(filter.encode()) + len((group or "").encode())


def matches(filter: str, topic: str) -> bool:
    """Tell whether a filter matches a topic. Both must be valid; neither is checked here."""
    if topic.startswith("$") and filter.startswith(("+", "#")):
        return False
    wanted = filter.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(wanted) > len(levels):
            return False
    elif len(wanted) != len(levels):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


def covers(filter: str, other: str) -> bool:
    """Tell whether a filter matches every topic that another filter matches. Both must be valid."""
    return SplitFilter(filter).covers(SplitFilter(other))


def overlaps(filter: str, other: str) -> bool:
    """Tell whether there is a topic that both filters match. Both must be valid."""
    return SplitFilter(filter).overlaps(SplitFilter(other))


class SplitFilter:
    """A valid filter, or a topic, taken apart once to be compared with many. A topic is covered by what matches it.

    Comparing costs a step per level of the shorter one, however many levels a hostile other has.
    """

    __slots__ = ("_first", "_is_open", "_levels")

    def __init__(self, filter: str) -> None:
        levels = filter.split("/")
        self._first = filter[0]
        self._is_open = levels[-1] == "#"
        """Any levels may follow."""
        # `#` alone is `+/#`: every topic has a level.
        self._levels = (levels[:-1] or ["+"]) if self._is_open else levels

    def covers(self, other: SplitFilter) -> bool:
        if other._first == "$" and self._first in ("+", "#"):
            return False
        missing = len(other._levels) - len(self._levels)
        if missing < 0 or (not self._is_open and (missing or other._is_open)):
            return False
        # Loops, not all(...): a generator costs half of the comparison.
        for mine, theirs in zip(self._levels, other._levels, strict=False):
            if mine != theirs and mine != "+":
                return False
        return True

    def overlaps(self, other: SplitFilter) -> bool:
        if {self._first, other._first} in ({"$", "+"}, {"$", "#"}):
            return False
        missing = len(other._levels) - len(self._levels)
        if (missing > 0 and not self._is_open) or (missing < 0 and not other._is_open):
            return False
        for mine, theirs in zip(self._levels, other._levels, strict=False):
            if mine != theirs and mine != "+" and theirs != "+":
                return False
        return True


def _check_filter(whole: str, filter: str, offset: int) -> bytes:
    offence = _BAD_IN_FILTER.search(filter)
    if offence is not None:
        position = offence.start()
        character = filter[position]
        if bad := _bad_character(character):
            why = bad
        elif character == "#" and (position == 0 or filter[position - 1] == "/"):
            why = "'#' must be the last character"
        else:
            why = f"{character!r} must stand alone between '/'"
        raise InvalidTopic(whole, why, offset + position)
    if not filter and offset:
        raise InvalidTopic(whole, "a filter must follow the group", offset)
    return _encode(filter, "filter", whole)


def _check_group(whole: str, group: str, offset: int) -> None:
    if not group:
        raise InvalidTopic(whole, "a group has at least one character", offset if offset else None)
    offence = _BAD_IN_GROUP.search(group)
    if offence is not None:
        position = offence.start()
        why = _bad_character(group[position]) or f"a group may not hold {group[position]!r}"
        raise InvalidTopic(whole, why, offset + position)


def _bad_character(character: str) -> str:
    if character == "\0":
        return "NUL is not allowed"
    if 0xD800 <= ord(character) <= 0xDFFF:
        return f"a lone surrogate (U+{ord(character):04X}) has no UTF-8 form"
    return ""


def _encode(text: str, what: str, whole: str) -> bytes:
    if not text:
        raise InvalidTopic(whole, f"a {what} has at least one character")
    encoded = text.encode()
    if len(encoded) > limits.MAX_TOPIC_SIZE:
        raise InvalidTopic(whole, f"a {what} has at most {limits.MAX_TOPIC_SIZE} bytes of UTF-8, not {len(encoded)}")
    return encoded
