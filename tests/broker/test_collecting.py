"""When a broker process collects cycles, and that it leaves the collector as it was."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from quicbus_broker import Broker, collecting
from quicbus_broker.collecting import (
    PENDING,
    QUIET_SHARE,
    REST,
    REST_FROM_ALL_WHEN_BUSY,
    REST_WHEN_BUSY,
    Collections,
    Scope,
    collect_all,
    collecting_in_quiet_moments,
)
from quicbus_broker.settings import BrokerSettings

if TYPE_CHECKING:
    from pathlib import Path

TOOK_ALL_S = 0.1
TOOK_NEW_S = 0.002
BUSY = 1.0
NOW = 1000.0


def collected() -> Collections:
    collections = Collections(0.0)
    collections.collected(Scope.NEW, NOW, TOOK_NEW_S)
    collections.collected(Scope.ALL, NOW, TOOK_ALL_S)
    return collections


def test_in_a_quiet_moment_little_is_enough_for_all_of_it() -> None:
    rested = NOW + 1 + REST * TOOK_ALL_S
    assert collected().due(PENDING, QUIET_SHARE / 2, rested) is Scope.ALL
    assert collected().due(PENDING - 1, 0.0, rested) is None


def test_while_it_is_busy_what_is_new_is_looked_at() -> None:
    rested = NOW + 1 + REST_WHEN_BUSY * TOOK_NEW_S
    assert collected().due(PENDING, BUSY, rested) is Scope.NEW
    assert collected().due(PENDING - 1, BUSY, rested) is None


def test_a_broker_that_is_never_quiet_looks_at_all_of_it_seldom() -> None:
    rested = NOW + 1 + REST_FROM_ALL_WHEN_BUSY * TOOK_ALL_S
    assert collected().due(PENDING, BUSY, rested) is Scope.ALL


def test_what_was_set_aside_is_looked_at_though_nothing_new_is_made() -> None:
    collections = collected()
    collections.collected(Scope.NEW, NOW, TOOK_NEW_S)
    assert collections.due(0, BUSY, NOW + 0.9 * REST_FROM_ALL_WHEN_BUSY * TOOK_ALL_S) is None
    assert collections.due(0, BUSY, NOW + 1 + REST_FROM_ALL_WHEN_BUSY * TOOK_ALL_S) is Scope.ALL
    assert collections.due(0, 0.0, NOW + 1 + REST * TOOK_ALL_S) is Scope.ALL


def test_collections_that_take_long_are_seldom_however_much_is_pending() -> None:
    assert collected().due(1_000_000, BUSY, NOW + 0.9 * REST_WHEN_BUSY * TOOK_NEW_S) is None
    assert collected().due(1_000_000, 0.0, NOW + 0.9 * REST * TOOK_ALL_S) is Scope.NEW


async def test_within_it_python_makes_no_full_collections_and_afterwards_as_before() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    full = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal full
        full += phase == "start" and info["generation"] == 2

    gc.callbacks.append(note)
    try:
        async with collecting_in_quiet_moments():
            assert gc.get_freeze_count() > frozen
            kept = [[] for _ in range(200_000)]  # type: ignore[var-annotated]
        assert not full
        del kept
    finally:
        gc.callbacks.remove(note)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


class Cycle:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "LOOK_WHEN_BUSY_S"):
        monkeypatch.setattr(collecting, name, 0.001)
    for name in ("PENDING", "REST", "REST_WHEN_BUSY"):
        monkeypatch.setattr(collecting, name, 0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("quiet_share", [0.0, 1e9], ids=["busy", "quiet"])
async def test_what_is_unreachable_goes_by_itself(monkeypatch: pytest.MonkeyPatch, quiet_share: float) -> None:
    monkeypatch.setattr(collecting, "QUIET_SHARE", quiet_share)
    async with collecting_in_quiet_moments():
        gone = asyncio.Event()
        cycle = weakref.ref(Cycle(), lambda _: gone.set())
        await asyncio.wait_for(gone.wait(), 10.0)
    assert cycle() is None


@pytest.mark.usefixtures("impatient")
async def test_what_was_set_aside_while_it_was_busy_goes_in_a_quiet_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "QUIET_SHARE", 0.0)
    monkeypatch.setattr(collecting, "FIRST_TOOK_S", 3600.0)
    gone = asyncio.Event()
    async with collecting_in_quiet_moments():
        young = asyncio.Event()
        kept = [Cycle()]
        old = weakref.ref(kept[0], lambda _: gone.set())
        mark = weakref.ref(Cycle(), lambda _: young.set())
        await asyncio.wait_for(young.wait(), 10.0)
        kept.clear()
        assert mark() is None
        assert old() is not None
        monkeypatch.setattr(collecting, "QUIET_SHARE", 1e9)
        await asyncio.wait_for(gone.wait(), 10.0)


async def test_who_wants_memory_back_finds_what_was_set_aside() -> None:
    kept = [Cycle()]
    old = weakref.ref(kept[0])
    async with collecting_in_quiet_moments():
        kept.clear()
        gc.collect()
        assert old() is not None
        collect_all()
        assert old() is None
        assert gc.get_freeze_count()


async def test_a_broker_in_an_application_leaves_the_collector_alone(tmp_path: Path) -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    async with Broker(BrokerSettings(listen="127.0.0.1:0", data_dir=tmp_path)):
        assert (gc.get_threshold(), gc.get_freeze_count()) == before
