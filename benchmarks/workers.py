"""One and two workers behind one port: messages with two publishers and two subscribers, and connections.

`python -m benchmarks.workers [--rounds 6] [--messages 2000000]`, with the Python of `.venv/compiled` and
PYTHONSAFEPATH=1 of compiled modules. Rounds are interleaved. Every part is a process of its own; what counts is the
processor time of the broker's processes, since a machine of two cores has none to spare. Which worker a client gets is
chance: rows tell how many of the messages crossed from one to the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import quicbus
from benchmarks.processes import run, start
from quicbus.compiled import is_compiled
from quicbus.testing.launcher import BrokerProcess

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PAYLOAD = os.urandom(128)
CONNECTIONS = 600
AT_A_TIME = 15
CROWD = ("--max-handshakes-per-address", "10000")
"""All clients of the measurement have one address."""


@dataclass(frozen=True)
class Measured:
    """`crossed`: the share of the messages that went from one worker to the other."""

    workers: int
    crossed: float
    messages_per_s: float
    ns_per_message: float
    connections_per_s: float
    us_per_connection: float


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


def measure(workers: int, messages: int, engine: str) -> Measured:
    with BrokerProcess(engine=engine, options=["--workers", str(workers), *CROWD]) as broker:
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
    return Measured(
        workers=workers,
        crossed=round(forwarded / (2 * messages), 1),
        messages_per_s=2 * messages / (ended - began),
        ns_per_message=cpu / (2 * messages) * 1e9,
        connections_per_s=CONNECTIONS / took,
        us_per_connection=of_connections / CONNECTIONS * 1e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--engine", default="qh3")
    chosen = parser.parse_args()
    print(f"{chosen.engine}, {'compiled' if is_compiled() else 'not compiled'}; processor time of all of the broker")
    columns = ("workers", "crossed", "ns a message", "messages/s", "us a connection", "connections/s")
    print("".join(f"{column:>17}" for column in columns))
    rounds: list[Measured] = []
    for _ in range(chosen.rounds):
        for workers in (1, 2):
            rounds.append(measure(workers, chosen.messages, chosen.engine))
            print_row(rounds[-1:])
    print("medians:")
    for kind in sorted({(each.workers, each.crossed) for each in rounds}):
        print_row([each for each in rounds if (each.workers, each.crossed) == kind])


def print_row(rounds: list[Measured]) -> None:
    names = ("ns_per_message", "messages_per_s", "us_per_connection", "connections_per_s")
    medians = [statistics.median(getattr(each, name) for each in rounds) for name in names]
    kind = f"{rounds[0].workers:17}{rounds[0].crossed:17.0%}"
    print(kind + "".join(f"{median:17,.0f}" for median in medians), flush=True)


if __name__ == "__main__":
    main()
