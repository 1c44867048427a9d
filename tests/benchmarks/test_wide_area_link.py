"""The link of the wide-area benchmark: when packets come out, and which ones."""

from __future__ import annotations

import random

from benchmarks.wide_area.forwarder import Lateness
from benchmarks.wide_area.link import Link, LinkSettings

MS = 1_000_000


def link(seed: int = 1, **settings: float) -> Link:
    return Link(LinkSettings(**{"delay_ms": 10, "rate_mbit": 0, **settings}), random.Random(seed))


def numbered(count: int) -> list[bytes]:
    return [number.to_bytes(4) for number in range(count)]


def carried(under_test: Link, packets: list[bytes], spacing_ns: int = MS) -> list[bytes]:
    for number, packet in enumerate(packets):
        under_test.take(packet, number * spacing_ns)
    return [packet for _, packet in under_test.due(10**15)]


def test_packet_comes_out_after_the_delay_and_not_before() -> None:
    under_test = link(delay_ms=10)
    under_test.take(b"one", 5 * MS)
    assert under_test.next_due == 15 * MS
    assert under_test.due(15 * MS - 1) == []
    assert under_test.due(15 * MS) == [(15 * MS, b"one")]
    assert under_test.next_due is None


def test_packets_take_their_time_at_the_rate() -> None:
    under_test = link(rate_mbit=1)
    for packet in (bytes(125), bytes(125)):
        under_test.take(packet, 0)
    assert [due for due, _ in under_test.due(10**9)] == [11 * MS, 12 * MS]


def test_packet_that_would_wait_too_long_for_its_turn_is_dropped() -> None:
    under_test = link(rate_mbit=1, queue_ms=2)
    for _ in range(5):
        under_test.take(bytes(125), 0)
    assert under_test.counters.overflowed == 2
    assert len(under_test.due(10**9)) == 3


def test_jitter_keeps_the_order() -> None:
    packets = numbered(500)
    assert carried(link(jitter_ms=10), packets) == packets


def test_reordered_packet_is_passed_by_those_behind_it_and_arrives() -> None:
    packets = numbered(1000)
    under_test = link(reorder=0.1, reorder_by_ms=5)
    arrived = carried(under_test, packets)
    assert arrived != packets
    assert sorted(arrived) == packets
    assert 60 < under_test.counters.reordered < 140


def test_share_that_is_lost_is_counted_and_the_same_for_a_seed() -> None:
    packets = numbered(10_000)
    under_test = link(loss=0.03)
    arrived = carried(under_test, packets)
    assert under_test.counters.lost == len(packets) - len(arrived)
    assert 250 < under_test.counters.lost < 350
    assert carried(link(loss=0.03), packets) == arrived
    assert carried(link(loss=0.03, seed=2), packets) != arrived


def test_change_applies_to_what_comes_after() -> None:
    under_test = link(delay_ms=10)
    under_test.take(b"before", 0)
    under_test.change(LinkSettings(delay_ms=50, rate_mbit=0))
    under_test.take(b"after", 0)
    assert under_test.due(10**9) == [(10 * MS, b"before"), (50 * MS, b"after")]


def test_lateness_tells_the_end_of_the_step_that_holds_the_share() -> None:
    late = Lateness()
    for microseconds in [5] * 98 + [25, 10**9]:
        late.add(microseconds * 1000)
    assert (late.percentile_us(0.5), late.percentile_us(0.99), late.percentile_us(1.0)) == (10, 30, 100_000)
