"""Processor time of a message, and of a request: publisher, broker and subscriber, each a process of its own.

`python -m benchmarks.processor_time [--engine qh3] [--rounds 3]`; with the Python of `.venv/compiled` and
PYTHONSAFEPATH=1 of compiled modules. Of one topic, a hundred and ten thousand in turn, 128 bytes; medians.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from typing import TYPE_CHECKING

import psutil

import quicbus
from benchmarks.processes import run, start
from quicbus.compiled import is_compiled
from quicbus.testing.launcher import BrokerProcess

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SIZE = 128
MESSAGES = {1: 2_400_000, 100: 1_600_000, 10_000: 800_000}
"""By the number of topics: a second or more each."""
REQUESTS = 10_000


def subscriber(url: str, credential: str, engine: str, count: int, pipe: Connection) -> None:
    async def work() -> None:
        connecting = quicbus.connect(url, credentials=credential, engine=engine)
        async with connecting as bus, bus.subscribe("load/#", overflow="block") as messages:
            await messages.wait_spread()
            pipe.send("ready")
            left = count
            async for _ in messages:
                left -= 1
                if not left:
                    break
            pipe.send("all")
            await asyncio.to_thread(pipe.recv)

    run(work())


def publisher(url: str, credential: str, engine: str, count: int, topics: int, pipe: Connection) -> None:
    async def work() -> None:
        chance = random.Random(1)
        payloads = [chance.randbytes(SIZE) for _ in range(256)]
        names = [f"load/{number}" for number in range(topics)]
        async with quicbus.connect(url, credentials=credential, engine=engine) as bus:
            pipe.send("ready")
            await asyncio.to_thread(pipe.recv)
            for number in range(count):
                await bus.publish(names[number % topics], payloads[number & 255])
            await bus.flush()
            pipe.send("all")
            await asyncio.to_thread(pipe.recv)

    run(work())


def answerer(url: str, credential: str, engine: str, pipe: Connection) -> None:
    async def work() -> None:
        connecting = quicbus.connect(url, credentials=credential, engine=engine)
        async with connecting as bus, bus.subscribe("ask", overflow="block") as messages:
            await messages.wait_spread()
            pipe.send("ready")
            async for message in messages:
                await message.reply(message.payload)

    run(work())


def asker(url: str, credential: str, engine: str, count: int, pipe: Connection) -> None:
    async def work() -> None:
        async with quicbus.connect(url, credentials=credential, engine=engine) as bus:
            pipe.send("ready")
            await asyncio.to_thread(pipe.recv)
            for _ in range(count):
                await bus.request("ask", b"x" * SIZE, timeout=10)
            pipe.send("all")
            await asyncio.to_thread(pipe.recv)

    run(work())


def measure(engine: str, topics: int) -> list[float]:
    """Return seconds of publisher, broker and subscriber (or asker, broker, answerer: `topics` 0), and of the clock."""
    with BrokerProcess(engine=engine) as broker:
        common = (broker.url, str(broker.credential_path), engine)
        count = MESSAGES.get(topics, REQUESTS)
        if topics:
            reader, from_reader = start(subscriber, *common, count)
            writer, to_writer = start(publisher, *common, count, topics)
        else:
            reader, from_reader = start(answerer, *common)
            writer, to_writer = start(asker, *common, count)
        for pipe in (from_reader, to_writer):
            assert pipe.recv() == "ready"
        processes = [psutil.Process(pid) for pid in (writer.pid, broker.pid, reader.pid)]
        before = [sum(each.cpu_times()[:2]) for each in processes]
        began = time.monotonic()
        to_writer.send("go")
        for pipe in (to_writer, from_reader) if topics else (to_writer,):
            assert pipe.recv() == "all"
        took = time.monotonic() - began
        used = [sum(each.cpu_times()[:2]) - at_first for each, at_first in zip(processes, before, strict=True)]
        for process in (writer, reader):
            process.terminate()
            process.join()
        return [seconds / count for seconds in (*used, took)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="qh3")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.engine}, {'compiled' if is_compiled() else 'not compiled'}; ns of processor time")
    print(f"{'':22}{'publisher':>11}{'broker':>11}{'subscriber':>11}{'all':>11}{'a second':>12}")
    for topics in (*MESSAGES, 0):
        rounds = [measure(options.engine, topics) for _ in range(options.rounds)]
        *parts, took = [statistics.median(column) for column in zip(*rounds, strict=True)]
        cells = "".join(f"{1e9 * each:11,.0f}" for each in (*parts, sum(parts)))
        name = "a request, one by one" if not topics else f"{topics:,} topic{'s' * (topics > 1)}"
        print(f"{name:22}{cells}{1 / took:12,.0f}", flush=True)


if __name__ == "__main__":
    main()
