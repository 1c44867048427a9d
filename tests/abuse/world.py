"""What an attack is given: the broker's address, every credential it may want, a pace, and a tally of what it did."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quicbus.identity import Authority, Credential
from quicbus.transport.endpoint import Endpoint, EndpointSettings
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import ALPN
from tests.abuse.crafted import loopback
from tests.system.stranger import Stranger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quicbus.transport.connection import Address, Connection

__all__ = ["Orders", "Strangers", "World"]

WAIT_S = 30.0
"""For what a broker tells within milliseconds unless it is overrun."""
BURST_S = 0.005
"""A flood goes out in bursts so far apart: timers are no finer."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What an attacker process is told."""

    attack: str
    address: tuple[str, int]
    data_dir: str
    is_small: bool
    seconds: float = 10.0
    seed: int = 4433


class World:
    """One run of one attack. `made` counts what was done and what came of it, by name."""

    def __init__(self, orders: Orders, go: Callable[[], Awaitable[None]]) -> None:
        self.orders = orders
        self.is_small = orders.is_small
        self.address: Address = orders.address
        self.random = random.Random(orders.seed)
        self.made: Counter[str] = Counter()
        self.go = go
        """Await it between preparation and attack: the quiet latency is measured until it returns."""
        folder = Path(orders.data_dir)
        keys = (folder / "authority-key.pem", folder / "authority.pem")
        self.authority = Authority.load(b"".join(path.read_bytes() for path in keys))
        self.credential_path = folder / "credential.pem"
        self.credential = Credential.load(self.credential_path)

    @property
    def configuration(self) -> EngineConfiguration:
        """TLS settings that take this broker, whatever is shown to it afterwards."""
        return EngineConfiguration(
            is_client=True,
            alpn=ALPN,
            authority=self.credential.authority_pem,
            server_name=self.credential.server_name,
            idle_timeout_s=30.0,
        )

    def chosen(self, small: int, full: int) -> int:
        return small if self.is_small else full

    async def paced(self, per_second: float, small: int) -> AsyncIterator[int]:
        """Count up: `small` times without a pause in a small attack, else for its seconds at a steady rate.

        Whoever is late catches up a burst at a time, and never more than a second.
        """
        if self.is_small:
            for number in range(small):
                yield number
            return
        loop = asyncio.get_running_loop()
        begin, number = loop.time(), 0
        end = begin + self.orders.seconds
        while (now := loop.time()) < end:
            due = int((now - begin) * per_second)
            begin += max(0.0, (due - number - per_second) / per_second)
            for _ in range(min(due - number, int(per_second * BURST_S * 4) + 1)):
                yield number
                number += 1
            await asyncio.sleep(BURST_S)

    @contextlib.asynccontextmanager
    async def strangers(self, *hosts: str, engine: str = "auto") -> AsyncIterator[Strangers]:
        """Sockets at loopback addresses that dial the broker in turn."""
        settings = EndpointSettings(handshake_timeout_s=WAIT_S, idle_timeout_s=30.0, keep_alive_s=10.0)
        async with contextlib.AsyncExitStack() as stack:
            opening = [
                Endpoint.open(bind=(host, 0), engine=engine_named(engine), settings=settings)
                for host in hosts or ("127.0.0.1",)
            ]
            endpoints = [await stack.enter_async_context(await each) for each in opening]
            yield Strangers(self, endpoints)

    def crowd_hosts(self, number: int) -> list[str]:
        """Addresses of a crowd of its own `number`: more than one, so that what one address may do is no bound."""
        return [loopback(256 * (1 + number) + at) for at in range(self.chosen(2, 16))]

    async def until(self, condition: Callable[[], bool], deadline_s: float) -> None:
        """Wait for what nobody tells, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while not condition():  # noqa: ASYNC110 (what is asked tells nobody)
                    await asyncio.sleep(BURST_S)

    async def turned(self) -> None:
        """Wait until the broker has dealt with all that it has read: a handshake takes it two turns."""
        async with self.strangers() as strangers:
            (await strangers.connected()).connection.close(CloseCode.GOODBYE, "")

    def count_end(self, stranger: Stranger) -> None:
        """Count how a connection ended, by the name of its close code."""
        ended = stranger.termination
        if ended is None:
            self.made["still open"] += 1
        elif ended.is_application and not ended.is_local:
            self.made[f"closed {CloseCode(ended.code).name.lower()}"] += 1
        elif not ended.is_application:
            self.made["failed"] += 1


class Strangers:
    """Dials from some sockets in turn."""

    def __init__(self, world: World, endpoints: list[Endpoint]) -> None:
        self._world = world
        self._endpoints = itertools.cycle(endpoints)

    def dial(self, configuration: EngineConfiguration | None = None) -> Stranger:
        made: list[Stranger] = []

        def make(connection: Connection) -> Stranger:
            made.append(Stranger(connection))
            return made[0]

        next(self._endpoints).dial(self._world.address, configuration or self._world.configuration, make)
        return made[0]

    async def connected(self) -> Stranger:
        """Dial, and complete the handshake."""
        stranger = self.dial()
        async with asyncio.timeout(WAIT_S):
            await stranger.wait_connected()
        return stranger

    async def proven(self, credential: Credential) -> Stranger:
        """Dial, and be let in."""
        stranger = await self.connected()
        async with asyncio.timeout(WAIT_S):
            await stranger.prove(credential)
        return stranger

    async def ended(self, *strangers: Stranger) -> None:
        """Wait until the broker has closed these, and count how."""
        async with asyncio.timeout(WAIT_S):
            for stranger in strangers:
                await stranger.wait_closed()
        for stranger in strangers:
            self._world.count_end(stranger)
