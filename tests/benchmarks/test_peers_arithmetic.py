"""The arithmetic of the side-by-side benchmark: spreads, targets, tables. Nothing is measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.markdown import marks, replace_marked
from benchmarks.peers.arithmetic import Spread, percentile, spread_of
from benchmarks.peers.cases import all_cases
from benchmarks.peers.payloads import payload_pool
from benchmarks.peers.report import WRITER, page
from benchmarks.peers.results import Results
from benchmarks.peers.roles import due_at_pace
from benchmarks.peers.shown import figure
from benchmarks.peers.tally import Tally, wait_complete
from benchmarks.peers.targets import TARGETS, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

CASE = "throughput, 128 B, 1 topic"


def of_case(case: str, rates: Mapping[str, tuple[float, ...]], metric: str = "messages_per_s") -> Results:
    samples = {peer: [{metric: value, "lost": 0.0} for value in values] for peer, values in rates.items()}
    return Results({"cores": "2"}, rounds=1, samples={case: samples})


@pytest.mark.parametrize(
    ("values", "spread"),
    [((3.0, 1.0, 2.0), Spread(2.0, 1.0, 3.0)), ((4.0, 2.0), Spread(3.0, 2.0, 4.0)), ((), None)],
)
def test_a_spread_is_the_median_between_the_extremes(values: tuple[float, ...], spread: Spread | None) -> None:
    assert spread_of(values) == spread


def test_percentiles_are_values_that_were_measured() -> None:
    ordered = [float(value) for value in range(1000)]
    assert [percentile(ordered, fraction) for fraction in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 999]
    assert percentile([], 0.5) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.12"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1,230"), (1_087_051.2, "1,090,000")],
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize("size", [16, 128, 1024, 256 * 1024])
def test_payloads_have_their_size_and_follow_from_the_seed(size: int) -> None:
    pool = payload_pool(size, 1)
    assert {len(payload) for payload in pool} == {size}
    assert pool == payload_pool(size, 1) != payload_pool(size, 2)
    assert len(set(pool)) == len(pool)


def test_each_case_has_a_name_of_its_own_and_each_target_a_case() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))
    metrics = {case.name: {metric.name for metric in case.metrics} for case in all_cases()}
    for target in TARGETS:
        assert target.metric in metrics[target.case]
        assert target.than_case in {"", *names}


@pytest.mark.parametrize(("rate", "is_reached"), [(500.0, True), (499.0, False)])
def test_a_target_compares_medians_of_one_run(rate: float, is_reached: bool) -> None:
    measured = of_case(CASE, {"quicbus qh3": (1.0, rate, 9999.0), "NATS/TLS": (100.0,)})
    (judged,) = [each for each in judge(measured) if each.measured is not None]
    assert judged.measured == rate / 100
    assert judged.is_reached is is_reached


def test_a_target_that_bounds_from_above_is_reached_below_it() -> None:
    measured = of_case("memory, idle client", {"quicbus qh3": (40.0,)}, "kilobytes")
    assert [each.is_reached for each in judge(measured) if each.measured is not None] == [True]


def test_the_page_marks_what_quicbus_loses_and_what_was_lost() -> None:
    measured = of_case(CASE, {"quicbus qh3": (100.0,), "zenoh/TCP": (300.0,), "NATS/TLS": (50.0,)})
    measured.samples[CASE]["NATS/TLS"][0]["lost"] = 7
    text = page(measured, {})
    assert "| quicbus qh3 | 100 ▼ |" in text
    assert "| zenoh/TCP | **300** |" in text
    assert "| NATS/TLS | 50.0, 7 lost |" in text
    assert f"| {CASE}, messages/s | quicbus qh3: 100 | zenoh/TCP: 300 | 0.33 |" in text


def test_the_page_is_written_between_the_marks_again_and_again() -> None:
    begin, end = marks(WRITER)
    once = replace_marked(f"# A\n\n{begin}\nold\n{end}\n\n## B\n", "new\n", WRITER)
    assert once == f"# A\n\n{begin}\nnew\n{end}\n\n## B\n"
    assert replace_marked(once, "new\n", WRITER) == once
    assert replace_marked("# A\n", "new\n", WRITER) == f"# A\n\n{begin}\nnew\n{end}\n"


@pytest.mark.parametrize("load", ["half load", "beside 50,000/s"])
def test_the_load_beside_a_round_trip_is_told_but_not_judged(load: str) -> None:
    case = f"round trip, {load}"
    measured = of_case(case, {"quicbus qh3": (1.0,), "NATS/TLS": (2.0,)}, "p50_ms")
    for peer, published in (("quicbus qh3", 40_000.0), ("NATS/TLS", 50_000.0)):
        measured.samples[case][peer][0] |= {"load_messages_per_s": published, "lost": 3}
    text = page(measured, {})
    assert "| quicbus qh3 | **1.00, 3 lost** | - | - | 40,000 |" in text
    assert "| NATS/TLS | 2.00, 3 lost | - | - | 50,000 |" in text
    assert "Where quicbus is behind" not in text


def test_a_pace_is_kept_and_caught_up_with_by_small_bunches() -> None:
    assert due_at_pace(50_000, 1.0, 49_950) == 50
    assert due_at_pace(50_000, 1.0, 0) == 200
    assert due_at_pace(50_000, 1.0, 50_001) == 0
    assert due_at_pace(10, 1.0, 0) == 1


async def test_counting_ends_with_the_last_message_or_when_none_come() -> None:
    tallies = [Tally(), Tally()]
    wanted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    wanted.set_result(1)
    tallies[0].take(b"abc")
    await wait_complete(tallies, wanted, stall_s=0.01)
    assert [tally.messages for tally in tallies] == [1, 0]
    tallies[1].take(b"")
    await wait_complete(tallies, wanted, stall_s=60)
    assert tallies[0].size == 3
