from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quicbus.exceptions import InvalidTopic
from quicbus.topics import TopicTrie, check_filter, check_group, check_topic, matches, parse_filter

if TYPE_CHECKING:
    from quicbus.trie import _Node

# MQTT 5, section 4.7: every example of its non-normative comments.
SPECIFIED = [
    # 4.7.1.2 multi-level wildcard
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "sport", True),
    ("#", "/finance", True),
    ("sport/tennis/#", "sport/tennis/player1", True),
    # 4.7.1.3 single-level wildcard
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player2", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+", "sport", True),
    ("+/tennis/#", "sport/tennis/player1", True),
    ("sport/+/player1", "sport/tennis/player1", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    # 4.7.2 topics beginning with $
    ("#", "$SYS/monitor/Clients", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("$SYS/#", "$SYS/monitor/Clients", True),
    ("$SYS/#", "$SYS", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    # 4.7.3 topic semantics
    ("ACCOUNTS", "Accounts", False),
    ("Accounts payable", "Accounts payable", True),
    ("/finance", "finance", False),
    ("finance", "/finance", False),
    # 4.7.1.1 and 4.7.4: empty levels are levels, nothing is normalised
    ("a//b", "a/b", False),
    ("a/+/b", "a//b", True),
    ("/", "/", True),
    ("+/+", "/", True),
    ("a/b/", "a/b", False),
    ("caf\u00e9", "cafe\u0301", False),
    ("sport/#", "sports", False),
    ("a/+/$x", "a/b/$x", True),
    ("a/#", "a/$x", True),
]

BAD_TOPICS = [
    ("", "a topic has at least one character", None),
    ("a/+/b", "'+' is a wildcard", 2),
    ("sport/tennis/#", "'#' is a wildcard", 13),
    ("a\0b#", "NUL is not allowed", 1),
    ("a/\ud800", "a lone surrogate (U+D800)", 2),
    ("\udfff", "a lone surrogate (U+DFFF)", 0),
    ("x" * 65_536, "at most 65535 bytes of UTF-8, not 65536", None),
    ("\u20ac" * 21_846, "at most 65535 bytes of UTF-8, not 65538", None),
]

BAD_FILTERS = [
    ("", "a filter has at least one character", None),
    # MQTT 5, section 4.7.1.2 and 4.7.1.3: the examples called not valid
    ("sport/tennis#", "'#' must stand alone between '/'", 12),
    ("sport/tennis/#/ranking", "'#' must be the last character", 13),
    ("sport+", "'+' must stand alone between '/'", 5),
    ("+sport", "'+' must stand alone between '/'", 0),
    ("a/+b/#", "'+' must stand alone between '/'", 2),
    ("++", "'+' must stand alone between '/'", 0),
    ("##", "'#' must be the last character", 0),
    ("#/", "'#' must be the last character", 0),
    ("+/a\0", "NUL is not allowed", 3),
    ("a/\udc80/#", "a lone surrogate (U+DC80)", 2),
    ("+/" * 32_768, "at most 65535 bytes of UTF-8, not 65536", None),
]

BAD_SHARED = [
    ("$share/", "a group has at least one character", 7),
    ("$share//orders", "a group has at least one character", 7),
    ("$share/workers", "a '/' and a filter must follow the group", 14),
    ("$share/workers/", "a filter must follow the group", 15),
    ("$share/+/orders", "a group may not hold '+'", 7),
    ("$share/wo#kers/orders", "a group may not hold '#'", 9),
    ("$share/a\0/orders", "NUL is not allowed", 8),
    ("$share/workers/orders+", "'+' must stand alone between '/'", 21),
    ("$share/workers/#/a", "'#' must be the last character", 15),
    ("$share/workers/" + "x" * 65_530, "at most 65535 bytes", None),
]

BAD_GROUPS = [
    ("", "a group has at least one character", None),
    ("a/b", "a group may not hold '/'", 1),
    ("+", "a group may not hold '+'", 0),
    ("ab#", "a group may not hold '#'", 2),
    ("a\0", "NUL is not allowed", 1),
    ("\ud9ff", "a lone surrogate (U+D9FF)", 0),
    ("x" * 65_536, "at most 65535 bytes", None),
]

LEVELS = st.sampled_from(["", "a", "b", "ab", "$s", "é"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=6).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.one_of(LEVELS, st.just("+")), max_size=6),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def matches_plainly(filter: list[str], topic: list[str]) -> bool:
    if not filter:
        return not topic
    if filter[0] == "#":
        return True
    return bool(topic) and filter[0] in ("+", topic[0]) and matches_plainly(filter[1:], topic[1:])


def reference(filter: str, topic: str) -> bool:
    if topic[0] == "$" and filter[0] in "+#":
        return False
    return matches_plainly(filter.split("/"), topic.split("/"))


def count_nodes(trie: TopicTrie[Any]) -> int:
    pending: list[_Node[Any]] = [trie._root]
    count = 0
    while pending:
        pending.extend((pending.pop().children or {}).values())
        count += 1
    return count - 1


@pytest.mark.parametrize(("filter", "topic", "expected"), SPECIFIED)
def test_examples_of_the_mqtt_specification_match_as_it_says(filter: str, topic: str, expected: bool) -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add(filter, "value")
    assert check_filter(filter) == filter.encode()
    assert check_topic(topic) == topic.encode()
    assert matches(filter, topic) is expected
    assert trie.match(topic) == ["value"] * expected


def test_both_subscriptions_are_needed_for_all_topics_and_those_of_the_system() -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add("#", "all")
    trie.add("$SYS/#", "system")
    assert [trie.match(topic) for topic in ("a", "$SYS/a")] == [["all"], ["system"]]


@pytest.mark.parametrize(("topic", "why", "position"), BAD_TOPICS)
def test_bad_topic_is_refused_with_the_position(topic: str, why: str, position: int | None) -> None:
    with pytest.raises(InvalidTopic) as caught:
        check_topic(topic)
    assert why in str(caught.value)
    assert (caught.value.topic, caught.value.position) == (topic, position)


@pytest.mark.parametrize(("filter", "why", "position"), BAD_FILTERS)
def test_bad_filter_is_refused_with_the_position(filter: str, why: str, position: int | None) -> None:
    for check in (check_filter, parse_filter):
        with pytest.raises(InvalidTopic) as caught:
            check(filter)
        assert why in str(caught.value)
        assert (caught.value.topic, caught.value.position) == (filter, position)


@pytest.mark.parametrize(("filter", "why", "position"), BAD_SHARED)
def test_bad_shared_subscription_is_refused_with_the_position_in_the_whole(
    filter: str, why: str, position: int | None
) -> None:
    with pytest.raises(InvalidTopic) as caught:
        parse_filter(filter)
    assert why in str(caught.value)
    assert (caught.value.topic, caught.value.position) == (filter, position)


@pytest.mark.parametrize(("group", "why", "position"), BAD_GROUPS)
def test_bad_group_is_refused_with_the_position(group: str, why: str, position: int | None) -> None:
    with pytest.raises(InvalidTopic) as caught:
        check_group(group)
    assert why in str(caught.value)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("$share/workers/orders/#", ("orders/#", "workers")),
        ("$share/g/+", ("+", "g")),
        ("$share/g//a", ("/a", "g")),
        ("orders/#", ("orders/#", None)),
        ("$share", ("$share", None)),
        ("$shared/g/a", ("$shared/g/a", None)),
    ],
)
def test_shared_subscription_is_taken_apart(filter: str, expected: tuple[str, str | None]) -> None:
    assert parse_filter(filter) == expected


def test_longest_topic_and_filter_are_taken() -> None:
    assert len(check_topic("x" * 65_535)) == 65_535
    assert len(check_filter("+/" * 32_767 + "#")) == 65_535


@given(FILTERS, TOPICS)
@example("+", "/")
@example("#", "$s")
def test_matching_agrees_with_a_plain_matcher(filter: str, topic: str) -> None:
    check_filter(filter)
    assert matches(filter, topic) is reference(filter, topic)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "discard"]), FILTERS, st.integers(0, 3)), max_size=40),
    st.lists(TOPICS, min_size=1, max_size=8),
)
def test_trie_agrees_with_a_list_of_filters_through_adding_and_discarding(
    steps: list[tuple[str, str, int]], topics: list[str]
) -> None:
    trie: TopicTrie[int] = TopicTrie()
    held: dict[tuple[str, int], None] = {}
    for action, filter, value in steps:
        pair = (filter, value)
        if action == "add":
            assert trie.add(filter, value) is (pair not in held)
            held.setdefault(pair)
        else:
            assert trie.discard(filter, value) is (pair in held)
            held.pop(pair, None)
        assert len(trie) == len(held)
    for topic in topics:
        assert sorted(trie.match(topic)) == sorted(value for filter, value in held if reference(filter, topic))


@given(st.lists(FILTERS, unique=True, max_size=30))
def test_trie_is_as_small_as_its_filters_and_empty_once_they_are_gone(filters: list[str]) -> None:
    trie: TopicTrie[str] = TopicTrie()
    for filter in filters:
        trie.add(filter, filter)
    for left in range(len(filters), 0, -1):
        assert count_nodes(trie) < 2 * left
        trie.discard(filters[left - 1], filters[left - 1])
    assert count_nodes(trie) == 0
    assert len(trie) == 0


def test_the_values_of_a_filter_come_in_the_order_of_insertion_and_each_once() -> None:
    trie: TopicTrie[str] = TopicTrie()
    for filter, value in [("a/b", "3"), ("a/+", "2"), ("a/b", "0"), ("a/b", "3"), ("a/b", "1")]:
        trie.add(filter, value)
    assert trie.match("a/b") == ["2", "3", "0", "1"]
    trie.discard("a/b", "3")
    assert trie.match("a/b") == ["2", "0", "1"]
    trie.add("a/b", "3")
    assert trie.match("a/b") == ["2", "0", "1", "3"]


def test_thousands_of_levels_neither_recurse_nor_take_a_node_each() -> None:
    deep = "a/" * 32_767 + "a"
    wild = "+/" * 32_767 + "+"
    filters = {
        "deep": deep,
        "wild": wild,
        "end": deep[:-1] + "+",
        "below": wild[:-1] + "#",
        "half": "a/" * 16_000 + "#",
    }
    trie: TopicTrie[str] = TopicTrie()
    for name, filter in filters.items():
        trie.add(filter, name)
    assert count_nodes(trie) < 2 * len(filters)
    assert sorted(trie.match(deep)) == ["below", "deep", "end", "half", "wild"]
    assert sorted(trie.match(deep[:-1] + "b")) == ["below", "end", "half", "wild"]
    assert sorted(trie.match(deep[:-2])) == ["below", "half"]
    assert all(matches(filter, deep) for filter in filters.values())
    for name, filter in filters.items():
        assert trie.discard(filter, name)
    assert count_nodes(trie) == 0


def test_filters_full_of_wildcards_cost_no_more_than_the_nodes_there_are() -> None:
    depth = 10
    trie: TopicTrie[int] = TopicTrie()
    for number in range(2**depth):
        trie.add("/".join("a+"[number >> level & 1] for level in range(depth)), number)
    for topic, found in [("a" * depth, 2**depth), ("b" * depth, 1), ("a" * (depth + 1), 0)]:
        matching = trie.begin("/".join(topic))
        assert matching.go_on(sys.maxsize)
        assert len(matching.take()) == found
        assert matching.steps <= count_nodes(trie) + 1


@pytest.mark.parametrize("seed", range(20))
def test_a_match_is_right_whatever_comes_and_goes_between_its_pieces(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(50):
        # Few levels and many wildcards: filters share beginnings, and many match.
        crowd = ["/".join(chance.choices("ab++", k=chance.randint(1, 6))) for _ in range(chance.randint(1, 25))]
        crowd = list(dict.fromkeys(filter + chance.choice(["", "", "/#"]) for filter in crowd))
        topic = "/".join(chance.choices("ab", k=chance.randint(2, 6)))
        trie: TopicTrie[str] = TopicTrie()
        held = set(crowd[: chance.randint(0, len(crowd))])
        for filter in crowd:
            if filter in held:
                trie.add(filter, filter)
        always, ever = set(held), set(held)
        matching = trie.begin(topic)
        while not matching.go_on(1):
            for filter in chance.sample(crowd, chance.randint(0, len(crowd))):
                if filter in held:
                    assert trie.discard(filter, filter)
                    held.discard(filter)
                    always.discard(filter)
                elif chance.random() < 0.3:
                    assert trie.add(filter, filter)
                    held.add(filter)
                    ever.add(filter)
        found = matching.take()
        assert len(set(found)) == len(found)
        assert {each for each in always if reference(each, topic)} <= set(found)
        assert set(found) <= {each for each in ever if reference(each, topic)}
        assert sorted(trie.match(topic)) == sorted(each for each in held if reference(each, topic))


def test_a_match_stops_where_its_steps_end_also_within_a_label() -> None:
    trie: TopicTrie[str] = TopicTrie()
    for first in "ab+":
        trie.add(f"{first}/" + "+/" * 32_000 + "x", first)
    matching = trie.begin("a/" * 32_000 + "a/y")
    most = pieces = 0
    while True:
        before = matching.steps
        is_over = matching.go_on(10)
        most = max(most, matching.steps - before)
        pieces += 1
        if is_over:
            break
    assert not matching.take()
    assert most < 200
    assert pieces > 100
    matching = trie.begin("a/" * 32_001 + "x")
    assert matching.go_on(sys.maxsize)
    assert sorted(matching.take()) == ["+", "a"]
