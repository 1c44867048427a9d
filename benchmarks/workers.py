"""One and two workers behind one port: messages with two publishers and two subscribers, and connections.

`python -m benchmarks.workers [--rounds 4] [--messages 150000]`. Rounds are interleaved. Every part is a process of its
own; what counts is the processor time of the broker's processes, since a machine of two cores has none to spare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import TYPE_CHECKING

import quicbus
from benchmarks.processes import run, start
from quicbus.testing.launcher import BrokerProcess

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PAYLOAD = os.urandom(128)
CONNECTIONS = 150
AT_A_TIME = 15


def subscriber(url: str, credential: str, topic: str, count: int, pipe: Connection) -> None:
    async def work() -> None:
        connecting = quicbus.connect(url, credentials=credential)
        async with connecting as bus, bus.subscribe(topic, overflow="block") as messages:
            await messages.wait_spread()
            pipe.send("ready")
            left = count
            async for _ in messages:
                left -= 1
                if not left:
                    break
            pipe.send(time.monotonic())

    run(work())


def publisher(url: str, credential: str, topic: str, count: int, pipe: Connection) -> None:
    async def work() -> None:
        async with quicbus.connect(url, credentials=credential) as bus:
            pipe.send("ready")
            await asyncio.to_thread(pipe.recv)
            pipe.send(time.monotonic())
            for _ in range(count):
                await bus.publish(topic, PAYLOAD)
            await bus.flush()

    run(work())


def dialer(url: str, credential: str, count: int, pipe: Connection) -> None:
    async def once() -> None:
        async with quicbus.connect(url, credentials=credential):
            pass

    async def work() -> None:
        began = time.monotonic()
        for _ in range(count // AT_A_TIME):
            await asyncio.gather(*(once() for _ in range(AT_A_TIME)))
        pipe.send(time.monotonic() - began)

    run(work())


def cpu_seconds(broker: BrokerProcess) -> float:
    """Processor time of all processes of the broker."""
    total = 0.0
    for pid in [broker.pid, *(worker["pid"] for worker in broker.ready.get("workers", ()))]:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(workers: int, messages: int, engine: str) -> dict[str, float]:
    with BrokerProcess(engine=engine, options=["--workers", str(workers)]) as broker:
        of_broker = (broker.url, str(broker.credential_path))
        readers = [start(subscriber, *of_broker, f"load/{each}", messages) for each in range(2)]
        writers = [start(publisher, *of_broker, f"load/{each}", messages) for each in range(2)]
        for _, pipe in (*readers, *writers):
            pipe.recv()
        before = cpu_seconds(broker)
        for _, pipe in writers:
            pipe.send("go")
        began = min(pipe.recv() for _, pipe in writers)
        ended = max(pipe.recv() for _, pipe in readers)
        cpu = cpu_seconds(broker) - before
        for process, _ in (*readers, *writers):
            process.join()
        before = cpu_seconds(broker)
        process, pipe = start(dialer, *of_broker, CONNECTIONS)
        took = pipe.recv()
        of_connections = cpu_seconds(broker) - before
        process.join()
        forwarded = 0
        last = json.loads(broker.stop().stdout.splitlines()[-1])
        for each in last.get("workers", ()):
            forwarded += each["statistics"]["books"]["forwarded"]
    return {
        "messages/s": 2 * messages / (ended - began),
        "us/message": cpu / (2 * messages) * 1e6,
        "over two workers": forwarded / (2 * messages),
        "connections/s": CONNECTIONS / took,
        "ms/connection": of_connections / CONNECTIONS * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--messages", type=int, default=150_000)
    parser.add_argument("--engine", default="qh3")
    chosen = parser.parse_args()
    rows: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(chosen.rounds):
        for workers, row in rows.items():
            row.append(measure(workers, chosen.messages, chosen.engine))
            print(workers, {key: round(value, 3) for key, value in row[-1].items()}, flush=True)
    for workers, row in rows.items():
        medians = {key: round(statistics.median(each[key] for each in row), 3) for key in row[0]}
        print(f"{workers} worker(s), median: {medians}")


if __name__ == "__main__":
    main()
