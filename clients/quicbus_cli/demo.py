"""`quicbus demo`: three brokers as one mesh, a publisher of this machine's counters, live subscribers, a death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live

import quicbus
from quicbus.commands import common_options, settings_of
from quicbus.process import ended_by_signals, run_until_signal
from quicbus.settings import ClientSettings
from quicbus.testing.launcher import Launched
from quicbus_cli.demo_books import Books, Seen
from quicbus_cli.demo_mesh import SITES, three_brokers
from quicbus_cli.demo_publisher import ROOT
from quicbus_cli.demo_view import PlainView, live_view, summary_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from quicbus.testing.launcher import BrokerProcess

__all__ = ["demo"]

FILTERS = (f"{ROOT}/cpu/#", f"{ROOT}/memory/+", f"{ROOT}/load", f"{ROOT}/network/+")
REFRESH_S = 0.25
CATCH_UP_S = 5.0
"""For what is under way when the publisher has ended; what is missing then shows in the summary."""
JOIN_TIMEOUT_S = 15.0
FIRST_MESSAGE_TIMEOUT_S = 15.0
STALL_TIMEOUT_S = 2.0
"""So that who loses its broker has another within a second or two."""
KILL_AT = 0.4
"""A broker is killed after this part of the time."""


@click.command(short_help="See it work: three brokers, and live counters of this machine.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True)
@click.option("--engine", metavar="NAME", help="QUIC implementation: auto, aioquic or qh3.")
@click.option("--json", "as_json", is_flag=True, help="Print only the summary, as a JSON object.")
@common_options
def demo(seconds: float, engine: str | None, as_json: bool) -> int:
    """Start a mesh of three brokers in a temporary folder, a process that publishes this machine's counters to the
    first of them, and subscribers at the others that show them live. One of the brokers is killed on the way. Ends by
    itself, or with Ctrl-C, and prints a summary.
    """
    settings = settings_of(ClientSettings, {"engine": engine})
    console = Console(highlight=False, quiet=as_json)
    first, moving, steady = SITES
    console.print(
        f"Three brokers and a publisher start as processes of their own. It takes {seconds:g} s, and on the way "
        f"{moving} is killed; Ctrl-C ends it."
    )
    with ended_by_signals(), three_brokers(settings.engine) as brokers:
        for name, broker in brokers.items():
            console.print(f"broker {name} {broker.url}, node {broker.node}", soft_wrap=True)
        names = {broker.node: name for name, broker in brokers.items()}
        books = Books(Seen(steady, steady), Seen(moving, moving), names)
        show = Show(brokers, books, settings.engine, seconds, console)
        run_until_signal(show.run)
        for name in (steady, first):
            books.told[name] = _statistics(brokers[name].stop().stdout)
    if as_json:
        click.echo(json.dumps(books.summary()))
    else:
        console.print(summary_table(books))
    return 0 if books.steady.received else 1


def _statistics(printed: str) -> dict[str, Any]:
    """Return the counters that a broker prints when it stops; none where it ended otherwise."""
    for line in reversed(printed.splitlines()):
        with contextlib.suppress(ValueError):
            facts = json.loads(line)
            if facts.get("event") == "stopped":
                statistics: dict[str, Any] = facts["statistics"]
                return statistics
    return {}


class Show:
    """One run of the demo, in its event loop."""

    def __init__(
        self,
        brokers: Mapping[str, BrokerProcess],
        books: Books,
        engine: str,
        seconds: float,
        console: Console,
    ) -> None:
        self._brokers = brokers
        self._books = books
        self._engine = engine
        self._seconds = seconds
        self._console = console
        self._subscriptions: dict[str, list[quicbus.Subscription]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        books = self._books
        first = self._brokers[SITES[0]]
        command = [sys.executable, "-m", "quicbus_cli.demo_publisher", first.url, str(first.credential_path)]
        async with contextlib.AsyncExitStack() as stack:
            steady = await stack.enter_async_context(self._subscriber(books.steady))
            await stack.enter_async_context(self._subscriber(books.moving))
            if not await self._spread(stop, steady):
                return
            watching = asyncio.create_task(self._watch_mesh(steady), name="demo-mesh")
            stack.push_async_callback(_cancelled, watching)
            with Launched(command, own_session=True) as publisher:
                await self._show(stop)
                publisher.terminate()
                ended = await asyncio.to_thread(publisher.wait)
            books.published = json.loads(ended.stdout.splitlines()[-1])["messages"] if ended.code == 0 else 0
            await self._catch_up()

    @contextlib.asynccontextmanager
    async def _subscriber(self, seen: Seen) -> AsyncIterator[quicbus.Client]:
        """A client at one broker that knows no other: it learns of those from the mesh."""
        broker = self._brokers[seen.broker]
        connecting = quicbus.connect(
            broker.url,
            credentials=broker.credential_path,
            name=f"quicbus demo at {seen.broker}",
            engine=self._engine,
            stall_timeout_s=STALL_TIMEOUT_S,
        )
        async with connecting as bus, contextlib.AsyncExitStack() as stack:
            tasks = [asyncio.create_task(self._follow(bus, seen), name=f"demo-events[{seen.broker}]")]
            stack.push_async_callback(_cancelled, *tasks)
            subscriptions = [await stack.enter_async_context(bus.subscribe(each)) for each in FILTERS]
            self._subscriptions[seen.broker] = subscriptions
            readers = [
                asyncio.create_task(self._read(each, seen), name=f"demo[{each.filter}]") for each in subscriptions
            ]
            stack.push_async_callback(_cancelled, *readers)
            try:
                yield bus
            finally:
                for each in subscriptions:
                    seen.dropped.update(each.statistics().dropped)

    async def _read(self, subscription: quicbus.Subscription, seen: Seen) -> None:
        async for message in subscription:
            self._books.take(seen, message)

    async def _follow(self, bus: quicbus.Client, seen: Seen) -> None:
        """Note where the client is connected."""
        async for event in bus.events():
            self._books.take_event(seen, event)
            if isinstance(event, quicbus.Disconnected):
                seen.now = ""
            elif isinstance(event, quicbus.Connected) and event.reconnects:
                seen.now = self._books.names.get(event.node, event.node)
                gap_s = max((gap.duration_s for gap in seen.gaps), default=0.0)
                self._books.tell(f"the subscriber at {seen.broker} goes on at {seen.now}, after a gap of {gap_s:.1f} s")

    async def _spread(self, stop: asyncio.Event, steady: quicbus.Client) -> bool:
        """Wait until the brokers are one mesh and know all subscriptions; tells whether to go on."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                while not stop.is_set() and not await self._is_whole(steady):
                    await _wait(stop, 0.05)
                for subscriptions in self._subscriptions.values():
                    for subscription in subscriptions:
                        await subscription.wait_spread()
        except TimeoutError:
            self._console.print(f"the brokers did not find each other within {JOIN_TIMEOUT_S:g} s")
            return False
        return not stop.is_set()

    async def _is_whole(self, bus: quicbus.Client) -> bool:
        self._books.peers = await bus.peers()
        return sum(peer.state == "alive" and (peer.linked or peer.is_self) for peer in self._books.peers) == len(SITES)

    async def _watch_mesh(self, bus: quicbus.Client) -> None:
        while True:
            self._books.peers = await bus.peers()
            await asyncio.sleep(REFRESH_S)

    async def _show(self, stop: asyncio.Event) -> None:
        """Show what comes until `stop`, or until the time is over that begins with the first message."""
        books = self._books
        is_plain = not self._console.is_terminal
        plain = PlainView(self._console)
        live = (
            contextlib.nullcontext() if is_plain else Live(live_view(books), console=self._console, auto_refresh=False)
        )
        with live as shown:
            deadline = time.monotonic() + FIRST_MESSAGE_TIMEOUT_S
            while not stop.is_set() and (books.begin or time.monotonic() < deadline):
                elapsed = time.monotonic() - books.begin if books.begin else 0.0
                if elapsed >= self._seconds:
                    break
                if elapsed >= KILL_AT * self._seconds and not books.killed:
                    self._kill(books.moving.broker)
                await _wait(stop, min(REFRESH_S, max(0.01, self._seconds - elapsed)))
                if shown is not None:
                    shown.update(live_view(books), refresh=True)
                else:
                    plain.show(books)

    def _kill(self, name: str) -> None:
        self._brokers[name].kill()
        self._books.killed = name
        self._books.tell(f"{name} is killed")

    async def _catch_up(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S):
                while not self._books.is_complete:
                    self._books.changed.clear()
                    await self._books.changed.wait()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(stop: asyncio.Event, timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await stop.wait()
