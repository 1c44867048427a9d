"""The good clients, a process of their own: `python -m tests.abuse.good_pair '{"url": …}'`.

A publisher sends 128 bytes at a steady rate, a subscriber receives them, each stamped with the time of its publish. A
line on stdin ends a phase: the publisher pauses, all that it sent is waited for, and one JSON line tells how it went.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import quicbus
from quicbus.process import run
from quicbus_cli.bench_workers import percentile, report
from quicbus_cli.streams import read_lines

__all__ = ["GOOD_TOPIC", "PairPlan", "Phase"]

GOOD_TOPIC = "good/news"
SIZE = 128
ARRIVAL_S = 20.0
"""What has not arrived so long after its flush is lost."""
STAMP = struct.Struct("!qq")


class PairPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the pair does."""

    url: str
    credentials: str
    engine: str = "auto"
    rate: float = 200.0
    """Messages per second."""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """How one phase went. Times in milliseconds, from the call of `publish` to the receipt."""

    published: int
    received: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    dropped: dict[str, int]
    """Of the subscription in all, by reason."""
    reconnects: int
    """In all, of both clients."""

    @property
    def lost(self) -> int:
        return self.published - self.received


class GoodPair:
    """Publisher and subscriber in one event loop, so that one clock times both."""

    def __init__(self, publisher: quicbus.Client, subscriber: quicbus.Client, messages: Any, rate: float) -> None:
        self._publisher = publisher
        self._subscriber = subscriber
        self._messages = messages
        self._interval = 1 / rate
        self._sent = 0
        self._counted = 0
        self._received = 0
        self._times: list[float] = []
        self._arrived = asyncio.Event()
        self._may_publish = asyncio.Event()
        self._is_between = asyncio.Event()
        self._may_publish.set()

    async def publish(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        padding = bytes(SIZE - STAMP.size)
        while True:
            if not self._may_publish.is_set():
                self._is_between.set()
                await self._may_publish.wait()
                self._is_between.clear()
                due = loop.time()
            due = max(due + self._interval, loop.time() - 1.0)
            await asyncio.sleep(due - loop.time())
            await self._publisher.publish(GOOD_TOPIC, STAMP.pack(self._sent, time.monotonic_ns()) + padding)
            self._sent += 1

    async def receive(self) -> None:
        async for message in self._messages:
            number, stamp = STAMP.unpack_from(message.payload)
            assert number >= self._received, "a message came twice or late"
            self._received = number + 1
            self._times.append((time.monotonic_ns() - stamp) / 1e6)
            self._arrived.set()

    async def end_phase(self) -> Phase:
        """Pause, wait for all that was sent, and begin the next phase."""
        self._may_publish.clear()
        await self._is_between.wait()
        await self._publisher.flush()
        try:
            async with asyncio.timeout(ARRIVAL_S):
                while self._received < self._sent:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        times, self._times = sorted(self._times), []
        published, self._counted = self._sent - self._counted, self._sent
        phase = Phase(
            published=published,
            received=len(times),
            p50_ms=percentile(times, 0.5),
            p99_ms=percentile(times, 0.99),
            max_ms=times[-1] if times else 0.0,
            dropped=dict(self._messages.statistics().dropped),
            reconnects=self._publisher.statistics().reconnects + self._subscriber.statistics().reconnects,
        )
        self._may_publish.set()
        return phase


async def main(plan: PairPlan) -> None:
    options: dict[str, Any] = {"credentials": Path(plan.credentials), "engine": plan.engine}
    async with (
        quicbus.connect(plan.url, name="good publisher", **options) as publisher,
        quicbus.connect(plan.url, name="good subscriber", **options) as subscriber,
        subscriber.subscribe(GOOD_TOPIC, overflow="block") as messages,
    ):
        pair = GoodPair(publisher, subscriber, messages, plan.rate)
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(pair.publish()), tasks.create_task(pair.receive())]
            report(event="ready")
            async for lines in read_lines():
                for _ in lines:
                    report(event="phase", phase=msgspec.to_builtins(await pair.end_phase()))
            for task in working:
                task.cancel()


if __name__ == "__main__":
    run(main(msgspec.json.decode(sys.argv[1], type=PairPlan)))
