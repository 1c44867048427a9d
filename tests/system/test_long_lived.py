"""Connections that carry many small messages, one at a time, for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import quicbus

if TYPE_CHECKING:
    from quicbus.testing.launcher import BrokerProcess

MESSAGES = 3_000
"""Their datagrams, and the acknowledgements of them, add up to several times what a connection may hold back."""


async def test_thousands_of_single_messages_go_over_one_connection(broker: BrokerProcess, engine: str) -> None:
    async with (
        asyncio.timeout(100),
        quicbus.connect(broker.url, credentials=broker.credential_path, engine=engine) as reader,
        quicbus.connect(broker.url, credentials=broker.credential_path, engine=engine) as writer,
        reader.subscribe("long/lived") as messages,
    ):
        for number in range(MESSAGES):
            await writer.publish("long/lived", b"%06d" % number)
            assert (await messages.next(30)).payload == b"%06d" % number
        assert reader.statistics().reconnects == writer.statistics().reconnects == 0
