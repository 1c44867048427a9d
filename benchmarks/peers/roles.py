"""What workers do: publish and subscribe, echo and ping, answer and ask, and merely be there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from benchmarks.peers.arithmetic import percentile
from benchmarks.peers.payloads import STAMP, payload_pool
from benchmarks.peers.plan import report
from benchmarks.peers.seam import open_bus
from benchmarks.peers.tally import Tally, wait_complete

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers.plan import Plan
    from benchmarks.peers.seam import Bus

__all__ = ["due_at_pace", "make"]

_WARM_EVERY_S = 0.02
_BLOCK_SIZE = 32 * 1024
_BLOCK_MESSAGES = 256
"""A publisher looks at the clock after so many bytes or messages."""
_PACE_S = 0.001
_PACE_MOST = 4
"""So many bunches at once at most: who was held up catches up by and by, not in one burst."""


class Role:
    def __init__(self, plan: Plan, buses: list[Bus]) -> None:
        self.plan = plan
        self.buses = buses
        first = buses[0] if buses else None
        self.warm_topic = first.topic("bench", "warm") if first else ""

    async def begin(self) -> None:
        """What comes before `ready`."""

    async def do_close(self) -> None:
        for bus in self.buses:
            await bus.close()


class Publisher(Role):
    """Publishes as fast as it is taken, or at a pace; to its topics in turn, from its connections at once."""

    async def begin(self) -> None:
        self.topics = [self.buses[0].topic("bench", "load", str(number)) for number in range(self.plan.topics)]
        self.pool = payload_pool(self.plan.size, self.plan.seed)
        self._beside: asyncio.Task[Any] | None = None
        self._stopping = asyncio.Event()
        for bus in self.buses:
            await bus.prepare([*self.topics, self.warm_topic])

    async def do_warm(self, every_s: float) -> None:
        """Publish now and then until told something else: subscribers say when the way is there."""
        self._beside = asyncio.create_task(self._warm(every_s))

    async def _warm(self, every_s: float) -> None:
        while not self._stopping.is_set():
            for bus in self.buses:
                await _publish_now(bus, self.warm_topic, self.pool[0])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), every_s)

    async def do_load(self, seconds: float, messages: int) -> None:
        """Publish for `seconds`, at most `messages`."""
        await self._end_beside()
        share = max(1, messages // len(self.buses))
        begin = time.monotonic_ns()
        until = begin + int(seconds * 1e9)
        if len(self.buses) == 1:
            counts = [await self._load(self.buses[0], share, until)]
        else:
            counts = await asyncio.gather(*(self._load(bus, share, until, is_alone=False) for bus in self.buses))
        end = time.monotonic_ns()
        await asyncio.gather(*(bus.flush() for bus in self.buses))
        report("published", messages=sum(counts), begin=begin, end=end)

    async def _load(self, bus: Bus, messages: int, until: int, *, is_alone: bool = True) -> int:
        stream = zip(cycle(self.topics), cycle(self.pool), strict=False)
        block = max(1, min(_BLOCK_MESSAGES, _BLOCK_SIZE // max(1, self.plan.size)))
        published = 0
        while published < messages and time.monotonic_ns() < until:
            count = min(block, messages - published)
            if bus.put is not None:
                put = bus.put
                for topic, payload in islice(stream, count):
                    put(topic, payload)
                await asyncio.sleep(0)
            else:
                publish = bus.publish
                for topic, payload in islice(stream, count):
                    await publish(topic, payload)
                if not is_alone:
                    await asyncio.sleep(0)
            published += count
        return published

    async def do_pace(self, rate: float) -> None:
        """Publish `rate` messages a second beside, in a bunch each millisecond, until `stop`."""
        await self._end_beside()
        self.paced = 0
        self.paced_s = 0.0
        self._beside = asyncio.create_task(self._pace(rate))

    async def _pace(self, rate: float) -> None:
        bus = self.buses[0]
        stream = zip(cycle(self.topics), cycle(self.pool), strict=False)
        begin = time.monotonic()
        while not self._stopping.is_set():
            await asyncio.sleep(_PACE_S)
            due = due_at_pace(rate, time.monotonic() - begin, self.paced)
            for topic, payload in islice(stream, due):
                if bus.put is not None:
                    bus.put(topic, payload)
                else:
                    await bus.publish(topic, payload)
            self.paced += due
        self.paced_s = time.monotonic() - begin

    async def do_stop(self) -> None:
        await self._end_beside()
        await self.buses[0].flush()
        report("stopped", messages=self.paced, seconds=self.paced_s)

    async def _end_beside(self) -> None:
        """Let it come to its end: some libraries lose a connection where a call is cancelled."""
        if self._beside is not None:
            self._stopping.set()
            await self._beside
            self._beside = None
            self._stopping.clear()


class Subscriber(Role):
    """Counts every message at each of its connections."""

    async def begin(self) -> None:
        bus = self.buses[0]
        last_level = "0" if self.plan.topics == 1 else bus.any_level
        self.tallies = [Tally() for _ in self.buses]
        self.is_warm = [asyncio.Event() for _ in self.buses]
        loop = asyncio.get_running_loop()
        load = bus.topic("bench", "load", last_level)
        for each, tally, warm in zip(self.buses, self.tallies, self.is_warm, strict=True):
            await each.subscribe(load, tally.take)
            # After the other one: where this one arrives, the other does too.
            await each.subscribe(self.warm_topic, _setter(warm, loop))
        self._warming = asyncio.create_task(self._tell_warm())
        self._counting: asyncio.Task[None] | None = None

    async def _tell_warm(self) -> None:
        for warm in self.is_warm:
            await warm.wait()
        report("warm")

    async def do_count(self) -> None:
        """Begin to count from nothing."""
        for tally in self.tallies:
            tally.__init__()  # type: ignore[misc]
        self._wanted = asyncio.get_running_loop().create_future()
        self._counting = asyncio.create_task(self._count())
        report("counting")

    async def do_expect(self, messages: int) -> None:
        """Each connection shall get so many; tells what came."""
        self._wanted.set_result(messages)

    async def _count(self) -> None:
        last = await wait_complete(self.tallies, self._wanted)
        counts = [tally.messages for tally in self.tallies]
        report("received", messages=sum(counts), size=sum(tally.size for tally in self.tallies), last=last)


class Echo(Role):
    async def begin(self) -> None:
        bus = self.buses[0]
        await bus.prepare([bus.topic("bench", "pong")])
        await bus.forward(bus.topic("bench", "ping"), bus.topic("bench", "pong"))


class Pinger(Role):
    """Sends stamped messages to the echo at a pace, and notes when they are back."""

    async def begin(self) -> None:
        bus = self.buses[0]
        self.times: list[float] = []
        self.ping_topic = bus.topic("bench", "ping")
        self.padding = payload_pool(self.plan.size, self.plan.seed)[0][STAMP.size :]
        await bus.prepare([self.ping_topic])

        def take(payload: bytes) -> None:
            self.times.append((time.monotonic_ns() - STAMP.unpack_from(payload)[0]) / 1e6)

        await bus.subscribe(bus.topic("bench", "pong"), take)

    async def do_warm(self) -> None:
        """Ping until an answer comes."""
        while not self.times:
            await self._ping()
            await asyncio.sleep(_WARM_EVERY_S)
        await asyncio.sleep(10 * _WARM_EVERY_S)
        report("warm")

    async def do_ping(self, messages: int, rate: float) -> None:
        self.times.clear()
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(messages):
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + 1 / rate, loop.time())  # who is late does not make up for it in a bunch
            await self._ping()
        end = loop.time() + 5
        while len(self.times) < messages and loop.time() < end:  # noqa: ASYNC110 (other threads append to it)
            await asyncio.sleep(_WARM_EVERY_S)
        times = sorted(self.times)
        p50, p99, p999 = (percentile(times, fraction) for fraction in (0.5, 0.99, 0.999))
        report("latency", sent=messages, back=len(times), p50_ms=p50, p99_ms=p99, p999_ms=p999)

    async def _ping(self) -> None:
        await _publish_now(self.buses[0], self.ping_topic, STAMP.pack(time.monotonic_ns()) + self.padding)


class Answerer(Role):
    async def begin(self) -> None:
        bus = self.buses[0]
        await bus.serve(bus.topic("bench", "service"))


class Asker(Role):
    """Requests, a number of them at a time."""

    async def begin(self) -> None:
        self.service = self.buses[0].topic("bench", "service")
        self.pool = payload_pool(self.plan.size, self.plan.seed)

    async def do_warm(self) -> None:
        for _ in range(100):
            try:
                await asyncio.wait_for(self.buses[0].request(self.service, self.pool[0]), 0.5)
                break
            except Exception:  # whatever a peer raises where nobody answers yet
                await asyncio.sleep(_WARM_EVERY_S)
        report("warm")

    async def do_ask(self, seconds: float, in_flight: int) -> None:
        begin = time.monotonic_ns()
        until = begin + int(seconds * 1e9)
        counts = await asyncio.gather(*(self._ask(until) for _ in range(in_flight)))
        seconds = (time.monotonic_ns() - begin) / 1e9
        right, wrong = (sum(count[number] for count in counts) for number in (0, 1))
        report("asked", answers=right, lost=wrong, seconds=seconds)

    async def _ask(self, until: int) -> tuple[int, int]:
        right = wrong = 0
        bus, service = self.buses[0], self.service
        for payload in cycle(self.pool):
            if time.monotonic_ns() >= until:
                break
            try:
                is_right = await bus.request(service, payload) == payload
            except TimeoutError:
                is_right = False
            right, wrong = right + is_right, wrong + (not is_right)
        return right, wrong


class Opener(Role):
    """Connects, stays idle, subscribes."""

    async def do_connect(self, count: int, at_a_time: int) -> None:
        limit = asyncio.Semaphore(at_a_time)

        async def open_one() -> None:
            async with limit:
                self.buses.append(await open_bus(self.plan.where))

        begin = time.monotonic_ns()
        await asyncio.gather(*(open_one() for _ in range(count)))
        report("connected", seconds=(time.monotonic_ns() - begin) / 1e9, count=count)

    async def do_subscribe(self, count: int, first: int) -> None:
        bus = self.buses[0]
        for number in range(first, first + count):
            await bus.subscribe(bus.topic("bench", "subscriptions", str(number), "value"), lambda _: None)
        await bus.flush()
        report("subscribed")


def due_at_pace(rate: float, elapsed_s: float, published: int) -> int:
    """Return how many messages to publish at once now, of `rate` a second since `elapsed_s`."""
    most = max(1, round(_PACE_MOST * _PACE_S * rate))
    return max(0, min(int(elapsed_s * rate) - published, most))


def _setter(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> Callable[[bytes], object]:
    return lambda _: loop.call_soon_threadsafe(event.set)


async def _publish_now(bus: Bus, topic: str, payload: bytes) -> None:
    if bus.put is not None:
        bus.put(topic, payload)
    else:
        await bus.publish_now(topic, payload)


def make(plan: Plan, buses: list[Bus]) -> Any:
    roles: dict[str, type[Role]] = {
        "publish": Publisher,
        "subscribe": Subscriber,
        "echo": Echo,
        "ping": Pinger,
        "answer": Answerer,
        "ask": Asker,
        "open": Opener,
    }
    return roles[plan.role](plan, buses)
