"""Random worlds, each with faults first and calm afterwards; a failure prints its seed. `make simulate` has more."""

from __future__ import annotations

import pytest

from quicbus_broker.simulation.scenarios import run

SEEDS = 120
PER_TEST = 10


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_worlds_come_right_after_their_faults(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        run(seed)


def test_a_seed_is_one_world() -> None:
    assert run(7) == run(7)
