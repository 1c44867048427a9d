"""What applications have a mesh of two brokers do, for the compiler to watch: `python -m tools.training`.

All parts are in one process, over loopback: requests one at a time and many, streams of small and of large messages,
with one topic and with many, to one subscriber and to several, at the same broker and at the other; over each engine
that is installed. Functions that are not called here are compiled as if they were never called.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import quicbus
from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.process import run
from quicbus_broker import Broker, BrokerSettings, LinkUp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quicbus import Client, Subscription
    from quicbus.client.api import Connecting

Engine = Literal["aioquic", "qh3"]

DEADLINE_S = 300.0
"""For all of it; instrumented code on a busy machine takes a tenth of that."""
REQUESTS = {1: 3000, 50: 9000}
"""How many, by how many are in flight."""
STREAMS = ((128, 1, 40_000), (128, 100, 30_000), (128, 10_000, 20_000), (16_384, 1, 1500), (262_144, 1, 60))
"""Bytes of a payload, topics in turn, messages."""
SUBSCRIBERS = 8
FAN_OUT = 5000
MESH_SHARE = 4
"""What crosses the mesh is watched a quarter as long: it is mostly the same code."""


async def train() -> None:
    """Do all of it once over each engine. Raises what goes wrong, `TimeoutError` after five minutes."""
    async with asyncio.timeout(DEADLINE_S):
        engines: list[Engine] = ["aioquic"]
        if importlib.util.find_spec("qh3"):
            engines.append("qh3")
        for engine in engines:
            with tempfile.TemporaryDirectory(prefix="quicbus-training-") as name:
                await _train(engine, Path(name), share=1 if engine == engines[-1] else MESH_SHARE)


async def _train(engine: Engine, folder: Path, share: int) -> None:
    async with _mesh(engine, folder) as (near, far):
        for subscribed, parts in ((near, share), (far, share * MESH_SHARE)):
            async with contextlib.AsyncExitStack() as stack:
                publisher = await stack.enter_async_context(_client(near, engine))
                subscribers = [await stack.enter_async_context(_client(subscribed, engine)) for _ in range(SUBSCRIBERS)]
                for in_flight, count in REQUESTS.items():
                    await _ask(publisher, subscribers[0], in_flight, count // parts)
                for size, topics, count in STREAMS:
                    await _stream(publisher, subscribers[:1], size, topics, count // parts)
                await _stream(publisher, subscribers, 128, 1, FAN_OUT // parts)


@contextlib.asynccontextmanager
async def _mesh(engine: Engine, folder: Path) -> AsyncIterator[tuple[Broker, Broker]]:
    authority = Authority.create()
    for name in ("near", "far"):
        prepare_node_folder(authority, name, folder / name)
    settings = BrokerSettings(data_dir=folder / "near", listen="127.0.0.1:0", engine=engine)
    async with Broker(settings) as near:
        seed = (near.url.removeprefix("quic://"),)
        settings = BrokerSettings(data_dir=folder / "far", listen="127.0.0.1:0", engine=engine, seed=seed)
        async with Broker(settings) as far:
            async for event in far.events():
                if isinstance(event, LinkUp):
                    break
            yield near, far


def _client(broker: Broker, engine: Engine) -> Connecting:
    return quicbus.connect(broker.url, credentials=broker.data_dir / "credential.pem", engine=engine)


async def _ask(asker: Client, answerer: Client, in_flight: int, count: int) -> None:
    async def answer(messages: Subscription) -> None:
        async for message in messages:
            await message.reply(message.payload)

    async def ask(times: int) -> None:
        for _ in range(times):
            await asker.request("ask", b"x" * 128, timeout=DEADLINE_S)

    async with answerer.subscribe("ask", overflow="block") as messages:
        await messages.wait_spread()
        answering = asyncio.create_task(answer(messages))
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(ask(count // in_flight))
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def _stream(publisher: Client, subscribers: list[Client], size: int, topics: int, count: int) -> None:
    chance = random.Random(1)  # noqa: S311 (payloads)
    payloads = [chance.randbytes(size) for _ in range(16)]

    async def take(messages: Subscription) -> None:
        for _ in range(count):
            await messages.next(None)

    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for client in subscribers:
            messages = await stack.enter_async_context(client.subscribe("load/#", overflow="block"))
            await messages.wait_spread()
            group.create_task(take(messages))
        for number in range(count):
            await publisher.publish(f"load/{number % topics}", payloads[number & 15])
        await publisher.flush()


if __name__ == "__main__":
    logging.getLogger("quicbus_broker").setLevel(logging.ERROR)
    run(train())
