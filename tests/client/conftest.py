"""A scripted broker, and a client that is connected to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.client.scripted_broker import ScriptedDialer, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quicbus.client.api import Client


@pytest.fixture
def dialer() -> ScriptedDialer:
    return ScriptedDialer()


@pytest.fixture
async def bus(dialer: ScriptedDialer) -> AsyncIterator[Client]:
    client = await start(dialer)
    yield client
    await client.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert {task.get_name() for task in others if task.get_name().startswith("quicbus")} == set()
