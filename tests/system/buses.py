"""What the system tests share: clients of broker processes, waits with a deadline, and the balances of the books."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

import quicbus
from tests.conftest import ENGINES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from quicbus.client.events import EventFeed
    from quicbus.client.statistics import ClientStatistics
    from quicbus.testing.launcher import BrokerProcess, Ended

__all__ = [
    "DEADLINE_S",
    "PAIRINGS",
    "assert_broker_balances",
    "assert_publisher_balances",
    "connected",
    "final_statistics",
    "numbers",
    "stopped",
    "wait_event",
    "wait_held",
]

DEADLINE_S = 120.0
"""Of a whole test: far more than any of them takes on a busy machine."""
PAIRINGS = [(client, broker) for client in ENGINES for broker in ENGINES]
"""Engines of client and broker."""

E = TypeVar("E", bound=quicbus.Event)


@contextlib.asynccontextmanager
async def connected(
    broker: BrokerProcess, count: int, *, engine: str | None = None, **options: Any
) -> AsyncIterator[list[quicbus.Client]]:
    """So many clients with an engine (else the broker's), and `DEADLINE_S` for all that is done with them."""
    async with asyncio.timeout(DEADLINE_S), contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                quicbus.connect(
                    broker.url, credentials=broker.credential_path, engine=engine or broker.engine, **options
                )
            )
            for _ in range(count)
        ]


async def wait_event(events: EventFeed, kind: type[E]) -> E:
    """Return the next event of a kind; those before it are skipped."""
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the client was closed before {kind.__name__}")


async def wait_held(publisher: quicbus.Client) -> None:
    """Return once the publisher waits: round trips pass, and the broker takes no more of it."""
    while True:
        before = publisher.statistics()
        for _ in range(3):
            await publisher.ping(DEADLINE_S)
        after = publisher.statistics()
        if after.accepted and (before.published, before.accepted) == (after.published, after.accepted):
            return


def numbers(messages: list[quicbus.Message]) -> list[int]:
    return [int(message.payload) for message in messages]


async def stopped(process: BrokerProcess) -> Ended:
    """Stop a process without holding up the event loop, which its clients need to drain."""
    return await asyncio.to_thread(process.stop)


def final_statistics(ended: Ended) -> dict[str, Any]:
    """Return what `quicbus broker --json` told at its end."""
    assert ended.code == 0, ended.stderr
    last: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert last["event"] == "stopped"
    statistics: dict[str, Any] = last["statistics"]
    assert statistics["transport"]["handler_errors"] == 0
    return statistics


def assert_publisher_balances(statistics: ClientStatistics) -> None:
    """The first line of the books, at any time."""
    assert statistics.published == (
        statistics.accepted
        + sum(statistics.refused.values())
        + statistics.dropped_while_disconnected
        + statistics.possibly_lost
        + statistics.in_flight
        + statistics.buffered
    ), statistics


def assert_broker_balances(books: Mapping[str, Any]) -> None:
    """The second line of the books."""
    assert books["deliveries"] == books["handed_over"] + sum(books["dropped"].values()) + books["queued"], books
