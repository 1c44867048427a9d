"""A hundred brokers in one process, each with a UDP socket of its own: `python -m benchmarks.hundred_brokers`.

Times how long they take to become one mesh that knows all of its members, through one seed, and how long one message
to a subscriber at each of them takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.transport.connection import shown_address
from quicbus_broker import Broker, BrokerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus import Subscription

Engine = Literal["auto", "aioquic", "qh3"]

__all__ = ["Measured", "measure", "mesh_in_process"]

POLL_S = 0.02
TOPIC = "news"


@dataclass(frozen=True, slots=True)
class Measured:
    """Times in seconds, the first two from the first start."""

    brokers: int
    open_s: float
    """All sockets are open."""
    joined_s: float
    """Each broker has joined, and sees all others alive."""
    spread_s: float
    """From the first of the subscriptions, one at each broker, to the last that gets what the publisher sends."""
    broadcast_s: float
    """One message, from `publish` to the last of the subscribers."""
    received: int
    """Subscribers that got it, once."""
    duplicates: int
    """Copies of it that came to a broker which had it already."""
    hops_max: int
    links: int
    """Of all brokers, each counted at both ends."""
    peak_mib: int


async def measure(folder: Path, brokers: int, engine: Engine = "auto") -> Measured:
    """Join so many brokers, broadcast, and check that every one got it once."""
    prepare_folders(folder, brokers)
    began = time.perf_counter()
    async with mesh_in_process(folder, brokers, engine) as nodes:
        open_s = time.perf_counter() - began
        await _until(lambda: all(_alive(node) == brokers for node in nodes))
        joined_s = time.perf_counter() - began
        subscribed = time.perf_counter()
        subscriptions = [await node.bus.subscribe(TOPIC) for node in nodes]
        await _probe(nodes[0], subscriptions)
        spread_s = time.perf_counter() - subscribed
        await _broadcast(nodes[0], subscriptions, b"the tree is made")
        before = _duplicates(nodes)
        published = time.perf_counter()
        received = await _broadcast(nodes[0], subscriptions, b"to all")
        broadcast_s = time.perf_counter() - published
        assert not any(messages.pending for messages in subscriptions)
        statistics = [node.statistics() for node in nodes]
        assert not any(each.books.balance for each in statistics)
        return Measured(
            brokers=brokers,
            open_s=round(open_s, 2),
            joined_s=round(joined_s, 2),
            spread_s=round(spread_s, 2),
            broadcast_s=round(broadcast_s, 3),
            received=received,
            duplicates=_duplicates(nodes) - before,
            hops_max=max(each.mesh.hops_max for each in statistics),
            links=sum(each.mesh.links for each in statistics),
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )


def prepare_folders(folder: Path, brokers: int) -> list[Path]:
    """Return data folders of nodes of one mesh; those that are missing are made, which costs more than joining."""
    paths = [folder / f"node-{at}" for at in range(brokers)]
    missing = [path for path in paths if not path.exists()]
    authority = Authority.create() if missing else None
    for path in missing:
        assert authority is not None
        prepare_node_folder(authority, path.name, path)
    return paths


@contextlib.asynccontextmanager
async def mesh_in_process(folder: Path, brokers: int, engine: Engine = "auto") -> AsyncIterator[list[Broker]]:
    """Brokers that all name the first one as their seed; they are open, and need not have joined yet.

    Their data folders are made unless they are there.
    """
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[Broker] = []
        for path in prepare_folders(folder, brokers):
            seed = (shown_address(nodes[0].address),) if nodes else ()
            settings = BrokerSettings(data_dir=path, listen="127.0.0.1:0", engine=engine, seed=seed)
            nodes.append(await stack.enter_async_context(Broker(settings)))
        yield nodes
        await asyncio.gather(*(node.stop() for node in nodes))


async def _probe(publisher: Broker, subscriptions: list[Subscription]) -> None:
    """Publish until each subscription has got something: all interest has reached the publisher's broker."""
    while not all(messages.pending for messages in subscriptions):
        await publisher.bus.publish(TOPIC, b"probe")
        await asyncio.sleep(POLL_S)


async def _broadcast(publisher: Broker, subscriptions: list[Subscription], payload: bytes) -> int:
    """Publish once; returns how many subscriptions got it."""
    await publisher.bus.publish(TOPIC, payload)
    for messages in subscriptions:
        while (await messages.next(None)).payload != payload:
            pass
    return len(subscriptions)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (counters tell nobody)
        await asyncio.sleep(POLL_S)


def _alive(node: Broker) -> int:
    return node.statistics().mesh.members.get("alive", 0)


def _duplicates(nodes: list[Broker]) -> int:
    return sum(node.statistics().mesh.duplicates for node in nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", type=int, default=100)
    parser.add_argument("--engine", choices=("auto", "aioquic", "qh3"), default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("quicbus_broker").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="quicbus-hundred-") as name:
        measured = asyncio.run(measure(Path(name), options.brokers, options.engine))
    if options.json:
        print(json.dumps(asdict(measured)))  # a report
        return
    for field, value in asdict(measured).items():
        print(f"{field:<12}{value:>10,}")


if __name__ == "__main__":
    main()
