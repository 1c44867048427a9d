"""No count of `limits.py` grows unnoticed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.performance.cases import CASES, measure
from tests.performance.limits import MARGINS, MEASURED

if TYPE_CHECKING:
    from pathlib import Path

TRIES = 5
"""What else the machine does adds to counts and takes nothing away: the least of them counts."""


@pytest.mark.interpreted
@pytest.mark.skipif(sys.platform != "linux", reason="counts are those of the endpoint of Linux")
@pytest.mark.parametrize("name", CASES)
async def test_a_thousand_messages_cost_no_more_than_they_did(
    tmp_path: Path, engine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    least: dict[str, float] = {}
    for number in range(TRIES):
        with monkeypatch.context() as patches:
            counts = await measure(CASES[name], engine, tmp_path / str(number), patches)
        least = {count: min(value, least.get(count, value)) for count, value in counts.items()}
        grown = _grown(least, MEASURED[name, engine])
        if not grown:
            return
    pytest.fail(
        f"{name} with {engine} costs more, per thousand messages: {'; '.join(grown)}. Find out why; if it is worth it, "
        "renew the table with `python -m tests.performance --write` and say why in the commit",
        pytrace=False,
    )


def test_what_grew_is_named_with_both_figures() -> None:
    measured = dict.fromkeys(MARGINS, 100.0)
    assert _grown({**measured, "datagrams": 109.0}, measured) == []
    assert _grown({**measured, "datagrams": 150.0}, measured) == ["150 datagrams, were 100 (+20 % may be)"]


def _grown(counts: dict[str, float], measured: dict[str, float]) -> list[str]:
    return [
        f"{counts[name]:.4g} {name}, were {measured[name]:.4g} (+{margin:.0%} may be)".replace("%", " %")
        for name, margin in MARGINS.items()
        if counts[name] > measured[name] * (1 + margin)
    ]
