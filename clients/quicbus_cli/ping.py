"""`quicbus ping`: round trips to the broker and back."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import click

from quicbus.process import Interrupted, run
from quicbus_cli.connecting import connect, connection_options, load_client_settings, split_urls

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ping"]


@click.command(short_help="Measure round trips to a broker.")
@click.argument("arguments", nargs=-1, metavar="[URL]")
@click.option("--count", "-c", type=click.IntRange(min=1), help="End after so many pings; else Ctrl-C ends.")
@click.option("--interval", type=click.FloatRange(min=0), default=1.0, show_default=True, metavar="S")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@connection_options
def ping(
    arguments: tuple[str, ...], count: int | None, interval: float, timeout: float, as_json: bool, **options: Any
) -> int:
    """Connect, then time control frames to the broker and back. Exit code 1 when an answer is missing."""
    urls, rest = split_urls(arguments)
    if rest:
        raise click.UsageError(f"{rest[0]!r} is not a URL: quic://HOST:PORT", click.get_current_context())
    settings = load_client_settings(options, urls)
    times: list[float] = []
    url = ", ".join(settings.url)
    connect_ms, sent = 0.0, 0

    async def work() -> None:
        nonlocal connect_ms, sent
        begin = time.perf_counter()
        async with connect(settings, "quicbus ping") as bus:
            connect_ms = round((time.perf_counter() - begin) * 1000, 3)
            if not as_json:
                click.echo(f"PING {url}: connected in {connect_ms:.1f} ms")
            while count is None or sent < count:
                if sent:
                    await asyncio.sleep(interval)
                sent += 1
                await _once(bus, sent, timeout, times, as_json)

    try:
        run(work())
    except Interrupted:
        pass
    if as_json:
        facts = {"url": url, "connect_ms": connect_ms, "sent": sent, "received": len(times)}
        click.echo(json.dumps({**facts, **_summary(times)}))
    elif sent:
        click.echo(f"{sent} sent, {len(times)} answered, {sent - len(times)} lost")
        if times:
            line = "min/avg/max/p99 = {min_ms:.3f}/{avg_ms:.3f}/{max_ms:.3f}/{p99_ms:.3f} ms"
            click.echo(line.format(**_summary(times)))
    return 0 if len(times) == sent and times else 1


async def _once(bus: Any, number: int, timeout: float, times: list[float], as_json: bool) -> None:
    try:
        took = await bus.ping(timeout)
    except TimeoutError:
        if not as_json:
            click.echo(f"seq={number} no answer within {timeout:g} s")
        return
    times.append(took)
    if not as_json:
        click.echo(f"seq={number} time={took * 1000:.3f} ms")


def _summary(times: Sequence[float]) -> dict[str, float]:
    if not times:
        return {}
    ordered = sorted(times)
    values = {
        "min_ms": ordered[0],
        "avg_ms": sum(ordered) / len(ordered),
        "max_ms": ordered[-1],
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
    }
    return {name: round(value * 1000, 3) for name, value in values.items()}
