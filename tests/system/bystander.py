"""A good client beside hostile ones, and the memory that they cost their broker."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import psutil

from tests.system.buses import DEADLINE_S, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import quicbus
    from quicbus.testing.launcher import BrokerProcess

MIB = 1024 * 1024


class Bystander:
    """A good client: `round_trip` shows that the broker serves, and that all sent to it before was read."""

    def __init__(self, bus: quicbus.Client, messages: quicbus.Subscription) -> None:
        self.bus = bus
        self._messages = messages
        self._number = itertools.count()

    async def round_trip(self) -> None:
        payload = b"%d" % next(self._number)
        await self.bus.publish(self._messages.filter, payload)
        assert (await self._messages.next(DEADLINE_S)).payload == payload

    def assert_untouched(self) -> None:
        statistics = self.bus.statistics()
        assert (statistics.reconnects, statistics.possibly_lost, self._messages.dropped) == (0, 0, 0)


@contextlib.asynccontextmanager
async def bystander(broker: BrokerProcess) -> AsyncIterator[Bystander]:
    async with connected(broker, 1) as (bus,), bus.subscribe("good/news", overflow="block") as messages:
        client = Bystander(bus, messages)
        await client.round_trip()
        yield client
        await client.round_trip()
        client.assert_untouched()


def resident(broker: BrokerProcess) -> int:
    return int(psutil.Process(broker.pid).memory_info().rss)
