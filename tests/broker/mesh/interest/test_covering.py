"""Which filters cover which, against every topic of a small world; and fewer filters in the place of many."""

from __future__ import annotations

import itertools
import random

import pytest

from quicbus.topics import check_filter, matches
from quicbus_broker.mesh.interest.coarsening import coarse_filters
from quicbus_broker.mesh.interest.covering import MAX_LEVELS, CoverTree

LEVELS = ("a", "b", "$s")
TOPICS = ["/".join(levels) for count in (1, 2, 3, 4) for levels in itertools.product(LEVELS, repeat=count)]


def random_filter(rng: random.Random) -> str:
    levels = [rng.choice(("a", "b", "$s", "+")) for _ in range(rng.randint(1, 3))]
    return "/".join([*levels, "#"]) if rng.random() < 0.3 else "/".join(levels)


def covered_by(tree: CoverTree, filter: str) -> list[str]:
    return [found for found in tree.walk_below(filter) if found is not None]


def coarse(filters: list[str], target: int) -> list[str]:
    finding = coarse_filters(filters, target)
    while True:
        try:
            next(finding)
        except StopIteration as end:
            found: list[str] = end.value
            return found


def matched(filter: str) -> set[str]:
    return {topic for topic in TOPICS if matches(filter, topic)}


@pytest.mark.parametrize("seed", range(30))
def test_a_filter_covers_what_matches_no_other_topic(seed: int) -> None:
    rng = random.Random(seed)
    tree = CoverTree()
    filters = list(dict.fromkeys(random_filter(rng) for _ in range(30)))
    for filter in filters:
        tree.add(filter)
    for filter in filters[::3]:
        tree.discard(filter)
    held = [filter for index, filter in enumerate(filters) if index % 3]

    for filter in [*filters, random_filter(rng)]:
        topics = matched(filter)
        others = [each for each in held if each != filter]
        covering, covered = list(tree.covering(filter)), covered_by(tree, filter)
        assert set(covering) == {each for each in others if topics <= matched(each)}, f"seed {seed}: {filter}"
        assert set(covered) == {each for each in others if matched(each) <= topics}, f"seed {seed}: {filter}"
        assert len(covering) == len(set(covering))
        assert len(covered) == len(set(covered))


def test_everything_covers_all_but_topics_with_a_dollar() -> None:
    tree = CoverTree()
    for filter in ("a", "+/b", "$s/a", "#"):
        tree.add(filter)

    assert sorted(covered_by(tree, "#")) == ["+/b", "a"]
    assert list(tree.covering("a/b")) == ["#", "+/b"]
    assert list(tree.covering("$s/#")) == []


def test_a_tree_is_empty_again_when_all_was_taken_out() -> None:
    tree = CoverTree()
    for filter in ("a/b", "a/#", "a"):
        tree.add(filter)
    for filter in ("a", "a/b", "a/#", "x/y", "a/b/c"):
        tree.discard(filter)

    assert not tree._root.children


def test_a_filter_of_very_many_levels_stays_outside() -> None:
    tree = CoverTree()
    deep = "/".join("a" for _ in range(MAX_LEVELS + 1))
    tree.add(deep)
    tree.add("#")

    assert list(tree.covering(deep)) == []
    assert covered_by(tree, "a/#") == []


def test_siblings_become_one_filter_and_the_longest_prefix_goes_first() -> None:
    filters = [f"a/b/{index}" for index in range(10)] + [f"c/{index}" for index in range(20)] + ["d"]

    assert coarse(filters, 22) == ["a/b/+"]
    assert coarse(filters, 5) == ["a/b/+", "c/+"]


def test_what_has_no_siblings_comes_together_in_a_subtree() -> None:
    filters = [f"site/{index}/temperature" for index in range(10)]

    assert coarse(filters, 5) == ["site/#"]


def test_topics_of_different_first_levels_come_together_but_those_with_a_dollar() -> None:
    filters = [f"x{index}" for index in range(10)] + [f"$y{index}" for index in range(3)]

    assert coarse(filters, 4) == ["+"]


@pytest.mark.parametrize("seed", range(30))
def test_coarse_filters_match_all_that_the_fine_ones_did(seed: int) -> None:
    rng = random.Random(seed)
    filters = list(dict.fromkeys(random_filter(rng) for _ in range(40)))

    added = coarse(filters, 6)

    tree = CoverTree()
    for filter in added:
        check_filter(filter)
        tree.add(filter)
    left = [filter for filter in filters if not any(tree.covering(filter)) and filter not in added]
    assert len(left) + len(added) <= 6, f"seed {seed}"
