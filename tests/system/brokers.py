"""Brokers of one mesh in this process, on real UDP sockets, whose counters a test can read at any time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Literal, cast

import quicbus
from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.transport.connection import shown_address
from quicbus_broker import Broker, BrokerSettings
from tests.conftest import ENGINES
from tests.system.buses import DEADLINE_S
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["MeshOfBrokers", "brokers_of"]

Engine = Literal["aioquic", "qh3"]


class MeshOfBrokers:
    """Made by `brokers_of`."""

    def __init__(self, authority: Authority, brokers: list[Broker]) -> None:
        self.authority = authority
        self.brokers = brokers
        self._stack = contextlib.AsyncExitStack()

    async def client(self, broker: Broker, **options: Any) -> quicbus.Client:
        """A client of a broker over the network; closed with the mesh."""
        connecting = quicbus.connect(broker.url, credentials=broker.credential_path, engine=broker.engine, **options)
        return await self._stack.enter_async_context(connecting)

    async def clients(self, **options: Any) -> list[quicbus.Client]:
        """A client of each broker."""
        return [await self.client(broker, **options) for broker in self.brokers]

    async def close(self) -> None:
        await self._stack.aclose()

    def assert_books(self) -> None:
        for broker in self.brokers:
            statistics = broker.statistics()
            assert statistics.books.balance == 0, statistics.books
            assert statistics.transport.handler_errors == 0
            assert not {"forged", "misbehaved", "replayed"} & set(statistics.mesh.dropped), statistics.mesh


@contextlib.asynccontextmanager
async def brokers_of(folder: Path, *names: str, **settings: Any) -> AsyncIterator[MeshOfBrokers]:
    """Brokers that are all linked to each other, engines mixed, and `DEADLINE_S` for all that is done with them."""
    authority = Authority.create()
    async with asyncio.timeout(DEADLINE_S), contextlib.AsyncExitStack() as stack:
        brokers: list[Broker] = []
        for at, name in enumerate(names):
            prepare_node_folder(authority, name, folder / name)
            chosen = BrokerSettings(
                data_dir=folder / name,
                listen="127.0.0.1:0",
                engine=cast("Engine", ENGINES[at % len(ENGINES)]),
                seed=tuple(shown_address(broker.address) for broker in brokers[:1]),
                **settings,
            )
            brokers.append(await stack.enter_async_context(Broker(chosen)))
        await eventually(lambda: all(broker.statistics().mesh.links == len(names) - 1 for broker in brokers))
        mesh = MeshOfBrokers(authority, brokers)
        try:
            yield mesh
        finally:
            await mesh.close()
