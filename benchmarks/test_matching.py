"""What matching costs: `make bench`, or `pytest benchmarks/test_matching.py --benchmark-enable`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.topics import TopicTrie, check_topic, matches

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

TOPIC = "site/17/floor/3/room/42/temperature"


def trie_of(size: int) -> TopicTrie[int]:
    """Return a trie of `size` filters, of which three match `TOPIC`."""
    trie: TopicTrie[int] = TopicTrie()
    for number in range(size - 3):
        site, floor, room = number % 50, number // 50 % 7, number // 350
        trie.add(f"site/{site}/floor/{floor}/room/{room}/{'+' if number % 3 else 'humidity'}", number)
    trie.add("site/+/floor/+/room/+/temperature", size)
    trie.add("site/17/#", size + 1)
    trie.add("+/17/floor/3/room/42/temperature", size + 2)
    return trie


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_match_one_topic_against_many_filters(benchmark: BenchmarkFixture, size: int) -> None:
    trie = trie_of(size)
    assert len(benchmark(trie.match, TOPIC)) >= 3


def test_match_a_plain_topic_with_one_subscriber(benchmark: BenchmarkFixture) -> None:
    trie: TopicTrie[int] = TopicTrie()
    trie.add("bench", 1)
    assert benchmark(trie.match, "bench") == [1]


def test_add_and_discard_a_filter_among_many(benchmark: BenchmarkFixture) -> None:
    trie = trie_of(10_000)

    def round_trip() -> bool:
        trie.add(TOPIC, -1)
        return trie.discard(TOPIC, -1)

    assert benchmark(round_trip)


def test_match_a_topic_of_thousands_of_levels(benchmark: BenchmarkFixture) -> None:
    trie: TopicTrie[int] = TopicTrie()
    trie.add("+/" * 32_767 + "+", 1)
    trie.add("a/" * 32_767 + "b", 2)
    assert benchmark(trie.match, "a/" * 32_767 + "a") == [1]


def test_match_one_filter_without_a_trie(benchmark: BenchmarkFixture) -> None:
    assert benchmark(matches, "site/+/floor/3/room/+/temperature", TOPIC)


def test_check_a_topic(benchmark: BenchmarkFixture) -> None:
    assert benchmark(check_topic, TOPIC) == TOPIC.encode()
