"""A cancellation of the caller is never lost in a client that tidies up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import quicbus

if TYPE_CHECKING:
    from quicbus.testing.launcher import BrokerProcess

STEPS = 15
"""Turns of the event loop, one more in each round, after which closing is cancelled."""


async def test_closing_that_is_cancelled_at_any_step_is_cancelled(shared_broker: BrokerProcess) -> None:
    cancelled = 0
    for steps in range(STEPS):
        bus = await quicbus.connect(
            shared_broker.url, credentials=shared_broker.credential_path, engine=shared_broker.engine
        )
        closing = asyncio.create_task(bus.close(timeout=0))
        for _ in range(steps):
            await asyncio.sleep(0)
        was_running = closing.cancel()
        await asyncio.wait((closing,))
        assert closing.cancelled() == was_running
        cancelled += was_running
        await bus.close()  # Cancelled before its first step it had closed nothing.
    assert cancelled
