"""More brokers than are served one by one, in this process: they become one mesh, and broadcast over it.

`python -m benchmarks.hundred_brokers` does the same with a hundred, and tells how long it takes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.hundred_brokers import measure
from tests.system.buses import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

BROKERS = 20


async def test_twenty_brokers_become_one_mesh_and_all_get_one_broadcast(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S):
        measured = await measure(tmp_path, BROKERS)
    assert measured.received == measured.brokers == BROKERS
    # Not all are linked to all, so that it went over several hops.
    assert measured.links < BROKERS * (BROKERS - 1)
    assert measured.hops_max > 1
