"""When a broker process collects cycles, and that it leaves the collector as it was."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING

from quicbus_broker import Broker, collecting
from quicbus_broker.collecting import (
    PENDING,
    PENDING_WHEN_BUSY,
    QUIET_SHARE,
    REST,
    REST_WHEN_BUSY,
    FullCollections,
    collecting_in_quiet_moments,
)
from quicbus_broker.settings import BrokerSettings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOOK_S = 0.1


def collected() -> FullCollections:
    collections = FullCollections(0.0)
    collections.collected(1000.0, TOOK_S)
    return collections


def test_in_a_quiet_moment_little_is_enough() -> None:
    assert collected().is_due(PENDING, QUIET_SHARE / 2, 1001.0 + REST * TOOK_S)
    assert not collected().is_due(PENDING - 1, 0.0, 1001.0 + REST * TOOK_S)


def test_while_it_is_busy_much_has_to_be_pending() -> None:
    later = 1001.0 + REST_WHEN_BUSY * TOOK_S
    assert not collected().is_due(PENDING_WHEN_BUSY - 1, 1.0, later)
    assert collected().is_due(PENDING_WHEN_BUSY, 1.0, later)


def test_collections_that_take_long_are_seldom_however_much_is_pending() -> None:
    assert not collected().is_due(1_000_000, 1.0, 999.0 + REST_WHEN_BUSY * TOOK_S)
    assert not collected().is_due(1_000_000, 0.0, 999.0 + REST * TOOK_S)


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


async def test_what_is_unreachable_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    monkeypatch.setattr(collecting, "LOOK_S", 0.001)
    monkeypatch.setattr(collecting, "QUIET_SHARE", 1e9)
    monkeypatch.setattr(collecting, "PENDING", 0)
    async with collecting_in_quiet_moments():
        gone = asyncio.Event()
        cycle = weakref.ref(Cycle(), lambda _: gone.set())
        await asyncio.wait_for(gone.wait(), 10.0)
    assert cycle() is None


async def test_a_broker_in_an_application_leaves_the_collector_alone(tmp_path: Path) -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    async with Broker(BrokerSettings(listen="127.0.0.1:0", data_dir=tmp_path)):
        assert (gc.get_threshold(), gc.get_freeze_count()) == before
