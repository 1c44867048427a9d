"""The publisher and the subscriber of a paced load: `python -m benchmarks.wide_area.workers publish|subscribe '{…}'`.

They print JSON lines: `ready`, then `published` or `received`. The publisher begins when a line comes on stdin, the
subscriber ends once it has all or a line tells it that no more will come.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from itertools import pairwise

import msgspec

from benchmarks.peers.payloads import payload_pool
from benchmarks.peers.seam import Bus, Where, open_bus
from quicbus.process import run
from quicbus_cli.bench_workers import percentile
from quicbus_cli.streams import read_lines

__all__ = ["LoadPlan"]

HEADER = struct.Struct("!qI")
"""When a message was due, of `time.monotonic_ns`, which all processes of a machine share; and its number."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Messages evenly spaced, to the topics in turn."""

    where: Where
    rate: float = 200.0
    seconds: float = 20.0
    topics: int = 1
    size: int = 128

    @property
    def messages(self) -> int:
        return round(self.rate * self.seconds)


async def publish(plan: LoadPlan) -> None:
    commands = read_lines()
    bus = await open_bus(plan.where)
    topics = [bus.topic("wide", str(number)) for number in range(plan.topics)]
    await bus.prepare(topics)
    payloads = payload_pool(plan.size - HEADER.size, seed=1)
    report(event="ready")
    await anext(commands)
    begin = time.monotonic_ns() + 10_000_000
    for number in range(plan.messages):
        # A message that had to wait for its turn is as old as if it had been published in time.
        due = begin + round(number / plan.rate * 1e9)
        await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
        await _publish(bus, topics[number % plan.topics], HEADER.pack(due, number) + payloads[number % len(payloads)])
    await bus.flush()
    report(event="published", messages=plan.messages)
    await anext(commands, None)
    await bus.close()


async def _publish(bus: Bus, topic: str, payload: bytes) -> None:
    if bus.put is not None:
        bus.put(topic, payload)
    else:
        await bus.publish_now(topic, payload)


async def subscribe(plan: LoadPlan) -> None:
    commands = read_lines()
    bus = await open_bus(plan.where)
    receipts: list[tuple[int, int, int]] = []
    complete = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take(payload: bytes) -> None:
        receipts.append((time.monotonic_ns(), *HEADER.unpack_from(payload)))
        if len(receipts) == plan.messages:
            loop.call_soon_threadsafe(complete.set)

    await bus.subscribe(bus.topic("wide", bus.any_level), take)
    report(event="ready")
    told = asyncio.ensure_future(anext(commands, None))
    ended = asyncio.ensure_future(complete.wait())
    await asyncio.wait([told, ended], return_when=asyncio.FIRST_COMPLETED)
    report(event="received", **summary(receipts))
    await asyncio.wait([asyncio.ensure_future(bus.close())], timeout=2)


def summary(receipts: list[tuple[int, int, int]]) -> dict[str, float]:
    """Return what came of the receipts: (received at, due at, number), as they came."""
    if not receipts:
        return {"messages": 0}
    latencies = sorted((received - due) / 1e6 for received, due, _ in receipts)
    times = [received for received, _, _ in receipts]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    return {
        "messages": len({number for _, _, number in receipts}),
        "repeated": len(receipts) - len({number for _, _, number in receipts}),
        "messages_per_s": len(receipts) / max(1e-9, (times[-1] - receipts[0][1]) / 1e9),
        "p50_ms": percentile(latencies, 0.5),
        "p90_ms": percentile(latencies, 0.9),
        "p99_ms": percentile(latencies, 0.99),
        "max_ms": latencies[-1],
        "longest_pause_ms": max(pauses, default=0) / 1e6,
    }


def report(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    role = {"publish": publish, "subscribe": subscribe}[sys.argv[1]]
    run(role(msgspec.json.decode(sys.argv[2], type=LoadPlan)))
