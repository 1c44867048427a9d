"""`quicbus demo`: a broker, a publisher of this machine's counters and live subscribers, on real QUIC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

import quicbus
from quicbus import Message
from quicbus.commands import common_options, settings_of
from quicbus.process import ended_by_signals, run_until_signal
from quicbus.settings import ClientSettings
from quicbus.testing.launcher import BrokerProcess, Launched
from quicbus_cli.bench_workers import percentile
from quicbus_cli.demo_publisher import ROOT, SENT_HEADER, UNIT_HEADER

__all__ = ["demo"]

FILTERS = (f"{ROOT}/cpu/#", f"{ROOT}/memory/+", f"{ROOT}/load", f"{ROOT}/network/+")
REFRESH_S = 0.25
CATCH_UP_S = 5.0
"""For what is under way when the publisher has ended; what is missing then shows in the summary."""


@click.command(short_help="See it work: live counters of this machine.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True)
@click.option("--engine", metavar="NAME", help="QUIC implementation: auto, aioquic or qh3.")
@click.option("--json", "as_json", is_flag=True, help="Print only the summary, as a JSON object.")
@common_options
def demo(seconds: float, engine: str | None, as_json: bool) -> int:
    """Start a broker with an authority of its own in a temporary folder, a process that publishes this machine's
    counters, and subscribers that show them live. Ends by itself, or with Ctrl-C, and prints a summary.
    """
    settings = settings_of(ClientSettings, {"engine": engine})
    console = Console(highlight=False, quiet=as_json)
    console.print(f"A broker and a publisher start as processes of their own. It takes {seconds:g} s; Ctrl-C ends it.")
    books = Books()
    with ended_by_signals(), BrokerProcess(engine=settings.engine, own_session=True) as broker:
        console.print(f"broker {broker.url}, node {broker.node}, credential {broker.credential_path}")
        command = [sys.executable, "-m", "quicbus_cli.demo_publisher", broker.url, str(broker.credential_path)]
        run_until_signal(lambda stop: _watch(stop, broker, settings.engine, command, seconds, console, books))
        broker.stop()
    if as_json:
        click.echo(json.dumps(books.summary()))
    else:
        console.print(_summary_table(books))
    return 0 if books.received else 1


@dataclass(slots=True)
class Row:
    """The last message of one topic."""

    value: str = ""
    unit: str = ""
    count: int = 0
    latency_ms: float = 0.0


@dataclass(slots=True)
class Books:
    """What the subscribers saw."""

    rows: dict[str, Row] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    received: int = 0
    published: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    begin: float = 0.0
    end: float = 0.0
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)

    def complete(self) -> asyncio.Event:
        """Return an event that is set once as much was received as was published."""
        if self.received >= self.published:
            self.caught_up.set()
        return self.caught_up

    def take(self, message: Message) -> None:
        latency = (time.monotonic_ns() - int(message.headers[SENT_HEADER])) / 1e6
        row = self.rows.setdefault(message.topic, Row())
        row.value, row.unit = message.payload.decode(), message.headers[UNIT_HEADER]
        row.count += 1
        row.latency_ms = latency
        self.latencies_ms.append(latency)
        self.end = time.monotonic()
        self.begin = self.begin or self.end
        self.received += 1
        if self.published and self.received >= self.published:
            self.caught_up.set()

    def summary(self) -> dict[str, Any]:
        ordered = sorted(self.latencies_ms)
        elapsed = self.end - self.begin
        return {
            "published": self.published,
            "messages": self.received,
            "topics": len(self.rows),
            "messages_per_s": round(self.received / elapsed, 1) if elapsed else 0.0,
            "latency_p50_ms": round(percentile(ordered, 0.5), 3),
            "latency_p99_ms": round(percentile(ordered, 0.99), 3),
            "dropped": sum(self.dropped.values()),
            "dropped_by_reason": dict(self.dropped),
        }


async def _watch(
    stop: asyncio.Event,
    broker: BrokerProcess,
    engine: str,
    publisher_command: list[str],
    seconds: float,
    console: Console,
    books: Books,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(
            quicbus.connect(broker.url, credentials=broker.credential_path, name="quicbus demo", engine=engine)
        )
        subscriptions = [await stack.enter_async_context(bus.subscribe(each)) for each in FILTERS]
        readers = [asyncio.create_task(_read(each, books), name=f"demo[{each.filter}]") for each in subscriptions]
        with Launched([*publisher_command], own_session=True) as publisher:
            await _show(stop, seconds, console, books)
            publisher.terminate()
            ended = await asyncio.to_thread(publisher.wait)
        books.published = json.loads(ended.stdout.splitlines()[-1])["messages"] if ended.code == 0 else 0
        await _wait(books.complete(), CATCH_UP_S)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for each in subscriptions:
            books.dropped.update(each.statistics().dropped_by_broker)
            books.dropped.update(each.statistics().dropped_here)


async def _read(subscription: Any, books: Books) -> None:
    async for message in subscription:
        books.take(message)


async def _show(stop: asyncio.Event, seconds: float, console: Console, books: Books) -> None:
    """Show what comes until `stop` or for `seconds` after the first message."""
    end: float | None = None
    plain = not console.is_terminal
    live = contextlib.nullcontext() if plain else Live(_live_table(books), console=console, auto_refresh=False)
    with live as shown:
        while not stop.is_set() and (end is None or time.monotonic() < end):
            await _wait(stop, REFRESH_S if end is None else min(REFRESH_S, max(0.0, end - time.monotonic())))
            end = books.begin + seconds if books.begin else None
            if shown is not None:
                shown.update(_live_table(books), refresh=True)
            elif plain:
                _print_changed(console, books)


def _print_changed(console: Console, books: Books) -> None:
    for topic, row in sorted(books.rows.items()):
        console.print(f"{topic} {row.value} {row.unit}".rstrip(), soft_wrap=True)


async def _wait(stop: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await stop.wait()
    except TimeoutError:
        pass


def _live_table(books: Books) -> Table:
    table = Table(title="this machine, live over QUIC", title_justify="left")
    table.add_column("topic")
    for heading in ("value", "", "messages", "latency ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    for topic, row in sorted(books.rows.items()):
        table.add_row(topic, row.value, row.unit, str(row.count), f"{row.latency_ms:.2f}")
    return table


def _summary_table(books: Books) -> Table:
    summary = books.summary()
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["dropped_by_reason"].items() if count)
    table = Table(title="summary", title_justify="left", show_header=False)
    table.add_row("messages", f"{summary['messages']} received of {summary['published']} published")
    table.add_row("rate", f"{summary['messages_per_s']:g} a second on {summary['topics']} topics")
    table.add_row("latency", f"p50 {summary['latency_p50_ms']:g} ms, p99 {summary['latency_p99_ms']:g} ms")
    table.add_row("dropped", reasons or "0")
    return table
