"""`covers` and `overlaps` of filters, against every topic of a small world."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.topics import covers, matches, overlaps
from quicbus_broker.mesh.interest.covering import CoverTree

# Of three filter levels and `#`; one level more than any filter names shows what `#` takes, a level that no filter
# names ("z") what `+` takes.
LEVELS = ("a", "", "$s", "z")
TOPICS = [
    *filter(None, ("/".join(levels) for count in (1, 2, 3, 4) for levels in itertools.product(LEVELS, repeat=count)))
]

FILTERS = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.sampled_from(["a", "", "$s", "+"]), max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def matched(filter: str) -> set[str]:
    return {topic for topic in TOPICS if matches(filter, topic)}


@given(FILTERS, FILTERS)
def test_a_filter_covers_another_when_no_topic_matches_only_that(filter: str, other: str) -> None:
    assert covers(filter, other) == (matched(other) <= matched(filter))


@given(FILTERS, FILTERS)
def test_filters_overlap_when_a_topic_matches_both(filter: str, other: str) -> None:
    assert overlaps(filter, other) == bool(matched(filter) & matched(other))
    assert overlaps(filter, other) == overlaps(other, filter)


@given(FILTERS)
def test_a_filter_covers_and_overlaps_itself(filter: str) -> None:
    assert covers(filter, filter)
    assert overlaps(filter, filter)


@given(FILTERS, FILTERS)
def test_what_covers_overlaps(filter: str, other: str) -> None:
    assert overlaps(filter, other) or not covers(filter, other)


@given(st.lists(FILTERS, max_size=6, unique=True), FILTERS)
def test_the_tree_of_the_mesh_finds_what_covers_where_everything_is_written_one_way(
    filters: list[str], filter: str
) -> None:
    held = [each for each in filters if each not in ("#", "+/#", filter)]
    tree = CoverTree()
    for each in held:
        tree.add(each)
    assert sorted(tree.covering(filter)) == sorted(each for each in held if covers(each, filter))


@pytest.mark.parametrize(
    ("filter", "other", "expected"),
    [
        ("a/#", "a", True),
        ("a/#", "a/+/b", True),
        ("a/+/#", "a/#", False),
        ("+/#", "#", True),
        ("#", "$s/a", False),
        ("#", "+/a", True),
        ("a/+", "a/#", False),
        ("a/+", "a/b", True),
        ("a/b", "a/+", False),
        ("$s/#", "$s/+", True),
        ("+", "$s", False),
    ],
)
def test_covering_as_people_read_it(filter: str, other: str, expected: bool) -> None:
    assert covers(filter, other) is expected


@pytest.mark.parametrize(
    ("filter", "other", "expected"),
    [
        ("a/#", "+/b", True),
        ("a/+", "+/b", True),
        ("a/+", "b/+", False),
        ("a/#", "a", True),
        ("a/+/#", "a", False),
        ("#", "$s/#", False),
        ("+/+", "a/#", True),
        ("a", "a/b", False),
    ],
)
def test_overlapping_as_people_read_it(filter: str, other: str, expected: bool) -> None:
    assert overlaps(filter, other) is expected
