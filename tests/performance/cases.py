"""The loads that are counted: publisher, broker and subscribers in one event loop, over UDP on loopback.

They go in step. A round is published in one turn of the loop, and the next one begins when it has arrived: how fast the
machine is does not change what goes together. What has a clock of its own is given one that stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioquic.quic.recovery import QuicPacketPacer

import quicbus
from quicbus import limits
from quicbus.transport import excess, udp_socket
from tests.client.brokers import broker_in_process
from tests.performance.counting import count_calls, count_peak, count_traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    import pytest

__all__ = ["CASES", "Case", "measure"]

PAYLOAD = bytes(range(128))
WARM_ROUNDS = 3
WARM_REQUESTS = 20
SLOWNESS = 20


@dataclass(frozen=True)
class Case:
    """`rounds` of `messages` each, over `topics` in turn, to each of `subscribers`; or requests, one after another."""

    topics: int = 1
    subscribers: int = 1
    messages: int = 500
    rounds: int = 8
    is_request: bool = False

    @property
    def count(self) -> int:
        return self.messages * self.rounds


CASES = {
    "one topic": Case(),
    "100 topics": Case(topics=100),
    "fan-out to 10": Case(subscribers=10, rounds=4),
    "requests": Case(is_request=True, messages=1, rounds=100),
}


async def measure(case: Case, engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return what a thousand messages take, and a round at its peak, by the names of `limits.MARGINS`."""
    _slow_down(asyncio.get_running_loop(), monkeypatch)
    monkeypatch.setattr(QuicPacketPacer, "next_send_time", lambda self, now: None)  # aioquic's goes by time, too
    monkeypatch.setattr(limits, "SLICE_S", math.inf)
    monkeypatch.setattr(excess, "FEED_S", math.inf)
    monkeypatch.setattr(excess, "FEED_OTHERS_S", math.inf)
    traffic = count_traffic(monkeypatch)
    async with _running(case, engine, folder) as one_round:
        for _ in range(WARM_REQUESTS if case.is_request else WARM_ROUNDS):
            await one_round()
        traffic.clear()
        for _ in range(case.rounds):
            await one_round()
        counts = traffic.counts()
        with count_calls() as calls:
            for _ in range(case.rounds):
                await one_round()
        with count_peak() as peak:
            await one_round()
    counts["function calls"] = calls[0]
    per_thousand = {name: 1000 * count / case.count for name, count in counts.items()}
    return {**per_thousand, "peak kilobytes": peak[0] / 1000}


def _slow_down(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clocks go so slowly that a busy machine, too, is done before an acknowledgement is due or a socket idle."""
    real, start = loop.time, loop.time()

    def slow() -> float:
        return start + (real() - start) / SLOWNESS

    monkeypatch.setattr(loop, "time", slow)
    monkeypatch.setattr(udp_socket, "monotonic", slow)


@contextlib.asynccontextmanager
async def _running(case: Case, engine: str, folder: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(broker_in_process(folder, engine))

        async def connect() -> quicbus.Client:
            return await stack.enter_async_context(
                quicbus.connect(broker.url, credentials=folder / "credential.pem", engine=engine)
            )

        publisher = await connect()
        subscriptions = []
        for _ in range(case.subscribers):
            client = await connect()
            subscriptions.append(await stack.enter_async_context(client.subscribe("load/+", overflow="block")))
            if case.is_request:
                stack.enter_context(_answering(subscriptions.pop()))
        topics = [f"load/{number}" for number in range(case.topics)]

        async def publish_round() -> None:
            for number in range(case.messages):
                await publisher.publish(topics[number % len(topics)], PAYLOAD)
            for subscription in subscriptions:
                received = 0
                async for _ in subscription:
                    received += 1
                    if received == case.messages:
                        break

        async def ask() -> None:
            await publisher.request("load/0", PAYLOAD)

        yield ask if case.is_request else publish_round


@contextlib.contextmanager
def _answering(subscription: quicbus.Subscription) -> Iterator[None]:
    async def answer() -> None:
        async for message in subscription:
            await message.reply(message.payload)

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        task.cancel()
