"""Medians, spreads, percentiles and ratios."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Spread", "percentile", "spread_of"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and how far they lie apart."""

    median: float
    smallest: float
    largest: float


def spread_of(values: Iterable[float]) -> Spread | None:
    """Return the median and the spread; `None` of nothing."""
    values = list(values)
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the value that `fraction` of the ordered values do not exceed; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else 0.0
