"""What a peer has to offer to be measured: a server that can be started, and a bus that workers speak through."""

from __future__ import annotations

import abc
import asyncio
import itertools
import os
import pkgutil
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from quicbus.testing.launcher import Launched

__all__ = ["Bus", "Peer", "Server", "StartServers", "Take", "Where", "free_port", "open_bus"]

Take = Callable[[bytes], object]


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker reaches a server; goes to it as JSON."""

    bus: str
    """`module:class` of the bus."""
    url: str
    port: int = 0
    authority: str = ""
    """File with the certificate that clients trust; empty without TLS."""
    options: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that takes clients. `started_s`: from the start of its process until it said so."""

    where: Where
    process: Launched
    started_s: float

    @property
    def pid(self) -> int:
        return self.process.pid


StartServers = Callable[[Path], AbstractContextManager[Sequence[Server]]]
"""Starts one server, or two that are linked, with its files in a folder; leaving the context stops it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of the tables."""

    name: str
    start: StartServers
    missing: str = ""
    """Why it can't be measured here; empty if it can."""
    start_two: StartServers | None = None
    """Two linked servers."""
    start_crowd: StartServers | None = None
    """One server for many clients of one address, where that takes other settings than `start`."""
    versions: dict[str, str] = field(default_factory=dict)
    cases: str = ""
    """A peer that is only measured in cases whose name contains this."""


class Bus(abc.ABC):
    """A client of a peer, with the calls that its users would make.

    Names of topics are made by `topic`. What a subscription takes may be called in another thread.
    """

    separator = "/"
    any_level = "+"
    put: Callable[[str, bytes], object] | None = None
    """Publishes without being awaited, for libraries that are not asynchronous; the workers prefer it."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count()
        self._reply_name = b""

    @abc.abstractmethod
    async def open(self) -> None: ...

    @abc.abstractmethod
    async def close(self) -> None: ...

    @abc.abstractmethod
    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish as one of many."""

    @abc.abstractmethod
    async def subscribe(self, topic: str, take: Take) -> None: ...

    async def publish_now(self, topic: str, payload: bytes) -> None:
        """Publish a single message."""
        await self.publish(topic, payload)

    async def flush(self) -> None:  # noqa: B027 (nothing to do is the common case)
        """Return when what was published is on its way."""

    async def prepare(self, topics: Sequence[str]) -> None:  # noqa: B027 (likewise)
        """Do once what publishing to `topics` many times wants done before."""

    def topic(self, *levels: str) -> str:
        return self.separator.join(levels)

    async def forward(self, source: str, target: str) -> None:
        """Publish to `target` what comes at `source`, one message at a time."""
        put = self.put
        if put is not None:
            await self.subscribe(source, lambda payload: put(target, payload))
        else:
            await self.subscribe(source, lambda payload: self.start(self.publish_now(target, payload)))

    async def serve(self, topic: str) -> None:
        """Answer requests at `topic` with what they hold; by a reply topic where the peer has no requests."""

        def answer(payload: bytes) -> None:
            target = self.topic("bench", "reply", payload[:8].hex())
            if self.put is not None:
                self.put(target, payload[8:])
            else:
                self.start(self.publish_now(target, payload[8:]))

        await self.subscribe(topic, answer)

    async def request(self, topic: str, payload: bytes) -> bytes:
        """Return the answer to one request; many may be waited for at once."""
        loop = asyncio.get_running_loop()
        if not self._reply_name:
            self._reply_name = os.urandom(8)
            reply_topic = self.topic("bench", "reply", self._reply_name.hex())
            await self.subscribe(reply_topic, lambda reply: loop.call_soon_threadsafe(self._settle, reply))
        number = next(self._numbers)
        answer = self._requests[number] = loop.create_future()
        await self.publish_now(topic, self._reply_name + number.to_bytes(8) + payload)
        return await asyncio.wait_for(answer, 10)

    def _settle(self, reply: bytes) -> None:
        answer = self._requests.pop(int.from_bytes(reply[:8]), None)
        if answer is not None and not answer.done():
            answer.set_result(reply[8:])

    def start(self, work: Awaitable[Any]) -> None:
        """Run `work` beside; until `end_tasks`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A worker that stopped reading must not look like one that lost messages.
            asyncio.get_running_loop().call_exception_handler({"message": f"{error!r}", "exception": error})

    async def end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def open_bus(where: Where) -> Bus:
    """Connect to `where`."""
    bus: Bus = pkgutil.resolve_name(where.bus)(where)
    await bus.open()
    return bus


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """Return a port that nobody listens at just now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
