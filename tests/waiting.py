"""Waiting for what nobody tells, with a deadline; what tells is awaited itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["eventually", "eventually_told"]

DEADLINE_S = 120.0
"""Far more than anything takes on a busy machine."""
LOOK_S = 0.001
ASK_S = 0.02
"""An answer comes from a broker, which has other things to do."""

T = TypeVar("T")


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; raises `TimeoutError` after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (what is asked tells nobody)
            await asyncio.sleep(LOOK_S)


async def eventually_told(ask: Callable[[], Awaitable[T]], condition: Callable[[T], object]) -> T:
    """Ask until `condition` holds for the answer, and return that one; raises `TimeoutError` after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(answer := await ask()):  # noqa: ASYNC110 (what is asked tells nobody)
            await asyncio.sleep(ASK_S)
    return answer
