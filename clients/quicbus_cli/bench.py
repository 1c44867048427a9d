"""`quicbus bench`: throughput and latency of publisher -> broker -> subscribers, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from quicbus.process import ended_by_signals
from quicbus.testing.launcher import BrokerProcess
from quicbus_cli.bench_workers import Plan
from quicbus_cli.connecting import connection_options, load_client_settings, split_urls
from quicbus_cli.measuring import Measurement, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus.settings import ClientSettings

__all__ = ["bench"]


@click.command(short_help="Measure throughput and latency.")
@click.argument("arguments", nargs=-1, metavar="[URL]")
@click.option("--messages", type=click.IntRange(min=1), default=200_000, show_default=True)
@click.option("--size", type=click.IntRange(min=0), default=128, show_default=True, help="Bytes of each payload.")
@click.option("--topics", type=click.IntRange(min=1), default=1, show_default=True, help="Published to in turn.")
@click.option("--subscribers", type=click.IntRange(min=1), default=1, show_default=True, help="Each gets all.")
@click.option(
    "--overflow",
    type=click.Choice(["block", "drop_oldest", "drop_newest", "disconnect"]),
    default="block",
    show_default=True,
    help="block loses nothing.",
)
@click.option("--latency-messages", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@connection_options
def bench(
    arguments: tuple[str, ...],
    messages: int,
    size: int,
    topics: int,
    subscribers: int,
    overflow: str,
    latency_messages: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a broker of its own in a temporary folder, or the one at URL.

    First the load, as fast as it goes; then single messages, 500 a second, for the latency.
    """
    urls, rest = split_urls(arguments)
    if rest:
        raise click.UsageError(f"{rest[0]!r} is not a URL: quic://HOST:PORT", click.get_current_context())
    own_broker = not (urls or options["url"])
    settings = load_client_settings(options, urls)
    with ended_by_signals(), _target(settings, own_broker=own_broker) as (url, credentials, pid):
        plan = Plan(
            url=url,
            credentials=credentials,
            engine=settings.engine,
            run=secrets.token_hex(4),
            messages=messages,
            size=size,
            topics=topics,
            overflow=overflow,
            latency_messages=latency_messages,
        )
        with _bar(messages * subscribers, shown=not as_json) as progress:
            measured = measure(plan, subscribers=subscribers, broker_pid=pid, progress=progress)
    facts = {"engine": settings.engine, "size": size, "topics": topics, "subscribers": subscribers}
    if as_json:
        click.echo(json.dumps({**facts, "overflow": overflow, **measured.as_dict()}))
    else:
        Console(highlight=False).print(_table(facts, measured))


@contextlib.contextmanager
def _target(settings: ClientSettings, *, own_broker: bool) -> Iterator[tuple[str, str, int | None]]:
    """Give URL, credential and, for a broker that is started here, its process id."""
    if not own_broker:
        yield settings.url[0], str(settings.credentials_path), None
        return
    with BrokerProcess(engine=settings.engine, own_session=True) as broker:
        yield broker.url, str(broker.credential_path), broker.pid


@contextlib.contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    columns = (TextColumn("deliveries"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("deliveries", total=total)
        yield lambda delivered: progress.update(task, completed=delivered)


def _table(facts: dict[str, Any], measured: Measurement) -> Table:
    people = f"{facts['subscribers']} subscriber{'' if facts['subscribers'] == 1 else 's'}"
    topics = f"{facts['topics']} topic{'' if facts['topics'] == 1 else 's'}"
    table = Table(title=f"engine {facts['engine']}, {facts['size']} bytes, {topics}, {people}", title_justify="left")
    for heading in ("messages/s", "MB/s", "p50 ms", "p99 ms", "delivered", "lost", "broker peak"):
        table.add_column(heading, justify="right")
    peak = measured.broker_peak_bytes
    table.add_row(
        f"{measured.messages_per_s:,.0f}",
        f"{measured.megabytes_per_s:,.1f}",
        f"{measured.p50_ms:.3f}",
        f"{measured.p99_ms:.3f}",
        f"{measured.delivered:,}",
        f"{measured.lost:,}",
        "-" if peak is None else f"{peak / 2**20:,.0f} MiB",
    )
    return table
