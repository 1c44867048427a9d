"""The targets without the fuzzer: seeds, the corpus, and changes of both."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.catalogue import TARGETS
from tests.fuzz.mutation import mutated

SEED = 20_260_101
MAX_CORPUS_SIZE = 300_000
CHANGES = 40
by_target = pytest.mark.parametrize("name", sorted(TARGETS))


@cache
def _seeds(name: str) -> tuple[bytes, ...]:
    return tuple(TARGETS[name].seeds())


@by_target
def test_every_input_of_the_corpus_is_a_value_or_the_documented_error(name: str) -> None:
    target = TARGETS[name]
    inputs = corpus.load(name)
    assert inputs, f"no corpus: python -m tests.fuzz --seeds {name}"
    for data in (b"", *inputs):
        target(data)


@by_target
def test_every_seed_is_a_value_or_the_documented_error(name: str) -> None:
    for data in _seeds(name):
        TARGETS[name](data)


@by_target
@seed(SEED)
@settings(max_examples=CHANGES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_changes_of_the_corpus_are_values_or_the_documented_error(name: str, data: st.DataObject) -> None:
    inputs = [*corpus.load(name), *_seeds(name)]
    chosen = data.draw(st.sampled_from(inputs))
    other = data.draw(st.sampled_from(inputs))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    TARGETS[name](mutated(chosen, rng, other))


def test_the_corpus_is_small_and_has_no_inputs_of_targets_that_are_gone() -> None:
    paths = list(corpus.FOLDER.iterdir())
    assert sum(path.stat().st_size for path in paths) < MAX_CORPUS_SIZE
    assert {path.name.split(".")[0] for path in paths} == set(TARGETS)
