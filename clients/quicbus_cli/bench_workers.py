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
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

import quicbus
from quicbus.process import run
from quicbus_cli.streams import read_lines

__all__ = ["Plan"]

Publish = Callable[[str, bytes], Awaitable[None]]

PROGRESS_S = 0.1
STALL_S = 10.0
"""A subscriber to which nothing comes for so long counts the rest as lost."""
STAMP = struct.Struct("!q")


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
        await publish_load(bus.publish, bus.flush, plan)
        await anext(commands)
        await publish_paced(bus.publish, bus.flush, plan)


async def publish_load(publish: Publish, flush: Callable[[], Awaitable[None]], plan: Plan) -> None:
    """Publish the load as fast as it is taken, to the topics in turn."""
    payload = os.urandom(plan.size)
    topics = [plan.topic(number) for number in range(plan.topics)]
    begin = time.monotonic_ns()
    if len(topics) == 1:
        topic = topics[0]
        for _ in range(plan.messages):
            await publish(topic, payload)
    else:
        for number in range(plan.messages):
            await publish(topics[number % plan.topics], payload)
    await flush()
    report(event="published", messages=plan.messages, begin=begin, end=time.monotonic_ns())


async def publish_paced(publish: Publish, flush: Callable[[], Awaitable[None]], plan: Plan) -> None:
    """Publish single messages, evenly spaced, each with the time at which it began."""
    loop = asyncio.get_running_loop()
    padding = bytes(max(0, plan.size - STAMP.size))
    due = loop.time()
    for _ in range(plan.latency_messages):
        await asyncio.sleep(due - loop.time())
        due += 1 / plan.latency_rate
        await publish(plan.latency_topic, STAMP.pack(time.monotonic_ns()) + padding)
    await flush()
    report(event="paced", messages=plan.latency_messages)


async def subscribe(plan: Plan) -> None:
    """Count the load, then measure the paced messages."""
    async with (
        plan.connect("quicbus bench subscriber") as bus,
        bus.subscribe(f"quicbus-bench/{plan.run}/load/+", overflow=plan.overflow) as load,
        bus.subscribe(plan.latency_topic) as paced,
    ):
        report(event="ready")
        await count_load(load, plan)
        await measure_paced(lambda: _next_payload(paced), plan)


async def _next_payload(paced: Any) -> bytes:
    message = await paced.next(STALL_S)
    return bytes(message.payload)


async def count_load(load: AsyncIterable[Any], plan: Plan) -> None:
    """Count what `load` gives until it is all there or stalls, report progress on the way and the result."""
    tally = Tally(plan.messages)

    async def count() -> None:
        async for _ in load:
            tally.take()
            if tally.is_complete:
                break

    await follow(tally, asyncio.create_task(count()), plan)


class Tally:
    """Messages received, and when the first one was."""

    __slots__ = ("first", "received", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.received = self.first = 0

    @property
    def is_complete(self) -> bool:
        return self.received >= self.wanted

    def take(self) -> None:
        if not self.received:
            self.first = time.monotonic_ns()
        self.received += 1


async def follow(tally: Tally, counting: asyncio.Task[Any], plan: Plan) -> None:
    """Report the progress of `tally` until `counting` ends or nothing comes any more, then the result."""
    before = last = unchanged = 0
    while not counting.done() and unchanged * PROGRESS_S < STALL_S:
        await asyncio.wait([counting], timeout=PROGRESS_S)
        received = tally.received
        last = time.monotonic_ns() if received != before else last
        unchanged = unchanged + 1 if received and received == before else 0
        before = received
        report(event="progress", received=received)
    if counting.done():
        counting.result()
    counting.cancel()
    report(event="received", messages=tally.received, size=tally.received * plan.size, first=tally.first, last=last)


async def measure_paced(next_payload: Callable[[], Awaitable[bytes]], plan: Plan) -> None:
    """Take the stamped payloads that `next_payload` gives, and report how long they were under way."""
    times: list[float] = []
    try:
        while len(times) < plan.latency_messages:
            payload = await next_payload()
            times.append((time.monotonic_ns() - STAMP.unpack_from(payload)[0]) / 1e6)
    except TimeoutError:
        pass
    times.sort()
    report(event="latency", messages=len(times), p50_ms=percentile(times, 0.5), p99_ms=percentile(times, 0.99))


if __name__ == "__main__":
    role = {"publish": publish, "subscribe": subscribe}[sys.argv[1]]
    run(role(msgspec.json.decode(sys.argv[2], type=Plan)))
