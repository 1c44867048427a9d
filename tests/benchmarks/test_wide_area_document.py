"""The page of the wide-area benchmark: what is aimed at, what is behind, what failed. Nothing is measured."""

from __future__ import annotations

from benchmarks.wide_area.case import Case, Result
from benchmarks.wide_area.document import page
from benchmarks.wide_area.report import Row

AIMED_AT = Case(round_trip_ms=80, loss=0.03, topics=16, rate=200)


def came_out(p90_ms: float, p99_ms: float, lost: int = 0) -> Result:
    return Result(
        published=100, lost=lost, p90_ms=p90_ms, p99_ms=p99_ms, longest_pause_ms=700, path={"late_us": {"p99": 10}}
    )


def test_the_page_judges_by_ratios_to_the_rival_on_the_path_that_is_aimed_at() -> None:
    rows = [Row("quicbus qh3", AIMED_AT, came_out(60, 110)), Row("NATS/TLS", AIMED_AT, came_out(100, 100, lost=2))]
    text = page(rows, 1)
    assert "| quicbus qh3 to NATS/TLS, p90 | <= 0.6 x | 0.60 | yes |" in text
    assert "| quicbus qh3 to NATS/TLS, p99 | <= 1 x | 1.10 | **no** |" in text
    assert "| 80 ms, 3%, 16 | 0 · 0 · 110 | 0 · 0 · 100, 2 lost |" in text


def test_the_page_shows_a_moving_client_apart_and_names_what_failed() -> None:
    moving = Case(round_trip_ms=80, move_every_s=5)
    text = page([Row("quicbus qh3", moving, came_out(60, 800)), Row("NATS/TLS", moving, "did not come back")], 1)
    assert "changes every 5 s" in text
    assert "| 80 ms, 0%, 1 | 700 · 800 | failed |" in text
    assert "wanted" not in text
