"""The publisher and the subscriber of a measurement, each a process of its own.

`python -m quicbus_cli.bench_workers publish|subscribe '{"url": …}'`. They print JSON lines: `ready`, `progress` and
one result for each phase. The publisher begins a phase when a line comes on stdin. Times are of `time.monotonic_ns`,
which all processes of a machine share. Both do what an application does: `await bus.publish(...)` in a loop, and
`async for message in subscription`.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import quicbus
from quicbus.process import run
from quicbus_cli.streams import read_lines

__all__ = ["Plan", "percentile"]

STALL_S = 10.0
"""A subscriber to which nothing comes for so long counts the rest as lost."""
_STAMP = struct.Struct("!q")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured. `topics` are published to in turn."""

    url: str
    credentials: str
    engine: str = "auto"
    run: str = "0"
    """Part of the topics, so that runs on one broker do not meet."""
    messages: int
    size: int
    topics: int = 1
    overflow: str = "block"
    latency_messages: int = 1000
    latency_rate: float = 500.0

    def topic(self, number: int) -> str:
        return f"quicbus-bench/{self.run}/load/{number}"

    @property
    def latency_topic(self) -> str:
        return f"quicbus-bench/{self.run}/latency"

    def connect(self, name: str) -> Any:
        return quicbus.connect(self.url, credentials=Path(self.credentials), name=name, engine=self.engine)


def percentile(ordered: list[float], fraction: float) -> float:
    """Return the value that `fraction` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else 0.0


def report(**fields: Any) -> None:
    """Print one JSON line."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def publish(plan: Plan) -> None:
    """Publish the load, then the paced messages that tell the latency; each when told to."""
    commands = read_lines()
    async with plan.connect("quicbus bench publisher") as bus:
        report(event="ready")
        await anext(commands)
        await _publish_load(bus, plan)
        await anext(commands)
        await _publish_paced(bus, plan)


async def _publish_load(bus: Any, plan: Plan) -> None:
    payload = os.urandom(plan.size)
    topics = [plan.topic(number) for number in range(plan.topics)]
    begin = time.monotonic_ns()
    if len(topics) == 1:
        topic = topics[0]
        for _ in range(plan.messages):
            await bus.publish(topic, payload)
    else:
        for number in range(plan.messages):
            await bus.publish(topics[number % plan.topics], payload)
    await bus.flush()
    report(event="published", messages=plan.messages, begin=begin, end=time.monotonic_ns())


async def _publish_paced(bus: Any, plan: Plan) -> None:
    loop = asyncio.get_running_loop()
    padding = bytes(max(0, plan.size - _STAMP.size))
    due = loop.time()
    for _ in range(plan.latency_messages):
        await asyncio.sleep(due - loop.time())
        due += 1 / plan.latency_rate
        await bus.publish(plan.latency_topic, _STAMP.pack(time.monotonic_ns()) + padding)
    await bus.flush()
    report(event="paced", messages=plan.latency_messages)


async def subscribe(plan: Plan) -> None:
    """Count the load, then measure the paced messages."""
    async with (
        plan.connect("quicbus bench subscriber") as bus,
        bus.subscribe(f"quicbus-bench/{plan.run}/load/+", overflow=plan.overflow) as load,
        bus.subscribe(plan.latency_topic) as paced,
    ):
        report(event="ready")
        await _count_load(load, plan)
        await _measure_paced(paced, plan)


async def _count_load(load: Any, plan: Plan) -> None:
    received = size = 0
    first = last = 0

    async def count() -> None:
        nonlocal received, size, first
        async for message in load:
            if not received:
                first = time.monotonic_ns()
            received += 1
            size += len(message.payload)
            if received == plan.messages:
                return

    counting = asyncio.create_task(count())
    before, unchanged = 0, 0.0
    while not counting.done() and unchanged < STALL_S:
        await asyncio.wait([counting], timeout=0.1)
        last = time.monotonic_ns() if received != before else last
        unchanged = unchanged + 0.1 if received == before and received else 0.0
        before = received
        report(event="progress", received=received)
    if counting.done():
        counting.result()
    counting.cancel()
    dropped = load.dropped
    report(event="received", messages=received, size=size, first=first, last=last, dropped=dropped)


async def _measure_paced(paced: Any, plan: Plan) -> None:
    times: list[float] = []
    try:
        while len(times) < plan.latency_messages:
            message = await paced.next(STALL_S)
            times.append((time.monotonic_ns() - _STAMP.unpack_from(message.payload)[0]) / 1e6)
    except TimeoutError:
        pass
    times.sort()
    report(event="latency", messages=len(times), p50_ms=percentile(times, 0.5), p99_ms=percentile(times, 0.99))


if __name__ == "__main__":
    role = {"publish": publish, "subscribe": subscribe}[sys.argv[1]]
    run(role(msgspec.json.decode(sys.argv[2], type=Plan)))
