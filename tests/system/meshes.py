"""Meshes of broker processes under load: publishers and subscribers at every node, faults, and what was promised.

Payloads are numbers, one count for each publisher and its topic. What a subscriber got is kept whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import quicbus
from tests.system.buses import assert_broker_balances, assert_publisher_balances, final_statistics, stopped
from tests.system.nodes import Nodes, free_port
from tests.waiting import eventually, eventually_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from quicbus.client.peers import Peer
    from quicbus.testing.launcher import BrokerProcess
    from tests.system.partitions import Partitions

__all__ = ["NAMES", "Load", "MeshOfProcesses", "Publisher", "Taker", "load_on", "mesh_of", "seeded"]

NAMES = ("amsterdam", "berlin", "cairo", "delhi", "essen")
DEADLINE_S = 240.0
"""Of a whole test: nodes that were apart find each other after pauses of up to half a minute."""
BURST = 20
PAUSE_S = 0.02
"""Each publisher sends a burst so often: load that five brokers and their clients bear on two busy cores."""
FLOW = 200
"""Messages of each publisher that a subscriber must get to show that they flow."""


def seeded() -> random.Random:
    """Chance that a failure tells how to repeat: pytest shows what a failed test printed."""
    seed = int(os.environ.get("MESH_SEED") or secrets.randbits(32))
    print(f"MESH_SEED={seed}")
    return random.Random(seed)


class MeshOfProcesses:
    """Made by `mesh_of`. `nodes`: those that were started last under each name."""

    def __init__(self, nodes: Nodes, partitions: Partitions | None) -> None:
        self.nodes: dict[str, BrokerProcess] = {}
        self.partitions = partitions
        self._nodes = nodes
        self._first = f"127.0.0.1:{free_port()}"
        self._observers: dict[str, quicbus.Client] = {}
        self._stack = contextlib.AsyncExitStack()

    @property
    def names(self) -> list[str]:
        return list(self.nodes)

    def others(self, *names: str) -> list[str]:
        return [name for name in self.nodes if name not in names]

    def client(self, name: str, **options: Any) -> Any:
        """A client that begins at a node, and goes on wherever it has to."""
        node = self.nodes[name]
        return quicbus.connect(node.url, credentials=node.credential_path, engine=node.engine, **options)

    # --- what happens to nodes

    async def start(self, name: str) -> BrokerProcess:
        """Start a node, or start it again, then on another port. All name the first one as their seed."""
        is_first = not self.nodes
        options: list[str] = []
        seeds = [] if is_first and self.partitions is None else [self._first]
        listen = self._first if is_first and self.partitions is None else "127.0.0.1:0"
        if self.partitions is not None:
            front = self.partitions.front(name)
            options = ["--advertise", front]
            seeds = [] if is_first else [self.partitions.front(self.names[0])]
        node = self.nodes[name] = await self._nodes.start(name, *seeds, listen=listen, options=options)
        if self.partitions is not None:
            self.partitions.settle(name, node.address)
        return node

    async def kill(self, *names: str) -> None:
        """End nodes as a crash does; their clients go on elsewhere."""
        for name in names:
            await self._forget(name)
        for name in names:
            self.nodes[name].kill()
        for name in names:
            await asyncio.to_thread(self.nodes.pop(name).wait)

    async def stop(self, name: str) -> dict[str, Any]:
        """Stop a node gracefully; returns its last statistics."""
        await self._forget(name)
        node = self.nodes.pop(name)
        return final_statistics(await stopped(node))

    @contextlib.contextmanager
    def suspended(self, name: str) -> Iterator[None]:
        """A process that hangs."""
        pid = self.nodes[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # --- what nodes see

    async def peers(self, name: str) -> dict[str, Peer]:
        """Return the members that a node sees, by name; no two may have one."""
        observer = self._observers.get(name)
        if observer is None:
            # It does not go on elsewhere while its node hangs.
            client = self.client(name, stall_timeout_s=DEADLINE_S)
            observer = self._observers[name] = await self._stack.enter_async_context(client)
        peers = await observer.peers()
        members = {peer.name: peer for peer in peers}
        assert len(members) == len(peers), peers
        assert members[name].is_self
        return members

    async def wait(self, name: str, condition: Callable[[dict[str, Peer]], object]) -> dict[str, Peer]:
        """Wait until `condition` holds for the members that a node sees."""
        return await eventually_told(lambda: self.peers(name), condition)

    async def wait_state(self, names: Iterable[str], of: str, *states: str) -> None:
        """Wait until nodes see another one in one of these states."""
        await asyncio.gather(
            *(self.wait(name, lambda members: of in members and members[of].state in states) for name in names)
        )

    async def wait_whole(self, names: Iterable[str] | None = None) -> None:
        """Wait until these, or all, are linked to each other."""
        wanted = list(self.nodes if names is None else names)
        await asyncio.gather(*(self.wait(name, _sees(self, wanted, name)) for name in wanted))

    async def assert_books(self, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Stop nodes and check their books; returns their last statistics."""
        wanted = list(self.nodes if names is None else names)
        statistics = dict(zip(wanted, await asyncio.gather(*map(self.stop, wanted)), strict=True))
        for each in statistics.values():
            assert_broker_balances(each["books"])
            refused = Counter(each["mesh"]["dropped"])
            assert not any(refused[reason] for reason in ("forged", "misbehaved", "replayed")), each["mesh"]
        return statistics

    def report(self) -> None:
        """Print what the nodes said: pytest shows it when the test fails."""
        for name, node in self.nodes.items():
            print(f"{name} ({node.url}) {'runs' if node.is_running else 'has ended'}")
            print("".join(node.stderr_lines[-20:]))

    async def close(self) -> None:
        await self._stack.aclose()

    async def _forget(self, name: str) -> None:
        observer = self._observers.pop(name, None)
        if observer is not None:
            await observer.close()


def _sees(mesh: MeshOfProcesses, wanted: list[str], name: str) -> Callable[[dict[str, Peer]], bool]:
    def sees_all(members: dict[str, Peer]) -> bool:
        return all(
            each in members
            and members[each].node == mesh.nodes[each].node
            and members[each].state == "alive"
            and members[each].linked
            for each in wanted
            if each != name
        )

    return sees_all


@contextlib.asynccontextmanager
async def mesh_of(
    folder: Path, names: tuple[str, ...] = NAMES, partitions: Partitions | None = None
) -> AsyncIterator[MeshOfProcesses]:
    """Nodes that are all linked to each other, both engines mixed, and a deadline for all that is done with them."""
    nodes = Nodes(folder)
    mesh = MeshOfProcesses(nodes, partitions)
    try:
        async with asyncio.timeout(DEADLINE_S):
            first = await mesh.start(names[0])
            await asyncio.gather(*(mesh.start(name) for name in names[1:]))
            mesh.nodes = {names[0]: first, **{name: mesh.nodes[name] for name in names[1:]}}
            await mesh.wait_whole()
            yield mesh
    except BaseException:
        mesh.report()
        raise
    finally:
        await mesh.close()
        nodes.close()


# --- load -------------------------------------------------------------------------------------------------------------


class Publisher:
    """Publishes 0, 1, 2, … to `load/NAME` until it is to end."""

    def __init__(self, bus: quicbus.Client, name: str) -> None:
        self.bus = bus
        self.topic = f"load/{name}"
        self.published = 0
        self.is_over = False

    async def run(self) -> None:
        while not self.is_over:
            for _ in range(BURST):
                await self.bus.publish(self.topic, b"%d" % self.published)
                self.published += 1
            await asyncio.sleep(PAUSE_S)  # its rate
        with contextlib.suppress(quicbus.ConnectionLost):  # of what was on its way to a broker that died
            await self.bus.flush()
        assert_publisher_balances(self.bus.statistics())


class Taker:
    """Reads a subscription to all that is published. `numbers` and `origins` hold what came, by topic.

    `newest` holds the highest number of each topic, which need not be the last that came: what was on its way to a
    broker that hung arrives once that goes on, when its publisher may long be at another one.
    """

    def __init__(self, bus: quicbus.Client, name: str, messages: quicbus.Subscription) -> None:
        self.bus = bus
        self.name = name
        self.messages = messages
        self.numbers: dict[str, list[int]] = {}
        self.newest: Counter[str] = Counter()
        self.origins: dict[str, list[str]] = {}
        self.ids: Counter[str] = Counter()

    async def run(self) -> None:
        async for message in self.messages:
            number = int(message.payload)
            self.numbers.setdefault(message.topic, []).append(number)
            self.newest[message.topic] = max(number, self.newest[message.topic])
            self.origins.setdefault(message.topic, []).append(message.id.rsplit("-", 2)[0])
            self.ids[message.id] += 1

    def assert_promises(self) -> None:
        """Whatever failed: nothing twice, and nothing out of order that one session of a publisher sent."""
        assert not {id: times for id, times in self.ids.items() if times > 1}, self.name
        for topic, numbers in self.numbers.items():
            assert len(set(numbers)) == len(numbers), (self.name, topic, _surplus(numbers))
            by_origin: dict[str, list[int]] = {}
            for number, origin in zip(numbers, self.origins[topic], strict=True):
                by_origin.setdefault(origin, []).append(number)
            for origin, sequence in by_origin.items():
                assert all(before < after for before, after in pairwise(sequence)), (self.name, topic, origin)

    def assert_exactly_once(self, publisher: Publisher) -> None:
        numbers = self.numbers.get(publisher.topic, [])
        missing = sorted(set(range(publisher.published)) - set(numbers))
        assert not missing, f"{self.name} misses {len(missing)} of {publisher.topic}: {missing[:5]} to {missing[-1]}"
        assert numbers == list(range(publisher.published)), (self.name, publisher.topic)

    def assert_balances(self) -> None:
        statistics = self.messages.statistics()
        assert statistics.received == self.ids.total() + statistics.pending
        assert not statistics.dropped


def _surplus(numbers: list[int]) -> list[int]:
    return [number for number, times in Counter(numbers).items() if times > 1][:10]


class Load:
    """A publisher and a taker at every node, by the name of the node where they began."""

    def __init__(self, publishers: dict[str, Publisher], takers: dict[str, Taker], tasks: asyncio.TaskGroup) -> None:
        self.publishers = publishers
        self.takers = takers
        self._taking = [tasks.create_task(taker.run()) for taker in takers.values()]
        self._publishing = [tasks.create_task(publisher.run()) for publisher in publishers.values()]

    async def flows(self, publishers: Iterable[str] | None = None, takers: Iterable[str] | None = None) -> None:
        """Wait until each of these takers got what each of these publishers published `FLOW` messages from now.

        What was under way before tells nothing: a taker reads that even when its broker is gone.
        """
        wanted = [
            (self.takers[taker], publisher.topic, publisher.published + FLOW)
            for taker in (self.takers if takers is None else takers)
            for publisher in map(self.publishers.__getitem__, self.publishers if publishers is None else publishers)
        ]
        await eventually(lambda: all(taker.newest[topic] >= number for taker, topic, number in wanted))

    async def end(self) -> None:
        """Publish no more, wait until the last message of each publisher has reached all, and check the promises."""
        for publisher in self.publishers.values():
            publisher.is_over = True
        await asyncio.gather(*self._publishing)
        last = {publisher.topic: publisher.published - 1 for publisher in self.publishers.values()}
        await eventually(
            lambda: all(
                taker.newest[topic] == number for taker in self.takers.values() for topic, number in last.items()
            )
        )
        for taker in self.takers.values():
            taker.assert_promises()
            taker.assert_balances()

    def report(self) -> None:
        """Print how far everybody is: pytest shows it when the test fails."""
        print({publisher.topic: publisher.published for publisher in self.publishers.values()})
        for taker in self.takers.values():
            print(f"{taker.name} has {dict(taker.newest)}, {taker.bus.status}, {taker.messages.statistics()}")

    def close(self) -> None:
        for task in (*self._publishing, *self._taking):
            task.cancel()

    def assert_nothing_missing(self) -> None:
        """Of what was published so far each taker got all up to some message."""
        for taker in self.takers.values():
            for topic, numbers in taker.numbers.items():
                assert numbers == list(range(len(numbers))), (taker.name, topic)

    def assert_exactly_once(self, publishers: Iterable[str], takers: Iterable[str]) -> None:
        for taker in takers:
            for publisher in publishers:
                self.takers[taker].assert_exactly_once(self.publishers[publisher])


@contextlib.asynccontextmanager
async def load_on(mesh: MeshOfProcesses, **options: Any) -> AsyncIterator[Load]:
    """Load on all nodes, of which each message is on its way to everybody when this is entered."""
    options = {"stall_timeout_s": 1.5, **options}
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        publishers, takers = {}, {}
        for name in mesh.names:
            bus = await stack.enter_async_context(mesh.client(name, **options))
            publishers[name] = Publisher(bus, name)
            bus = await stack.enter_async_context(mesh.client(name, **options))
            takers[name] = Taker(bus, name, await stack.enter_async_context(bus.subscribe("load/#")))
        await asyncio.gather(*(taker.messages.wait_spread() for taker in takers.values()))
        load = Load(publishers, takers, tasks)
        try:
            yield load
        except BaseException:
            load.report()
            raise
        load.close()
