"""`quicbus publish`: one message, a file, or a stream of lines."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quicbus.process import run
from quicbus.topics import check_topic
from quicbus_cli.connecting import check_order, connect, connection_options, load_client_settings, split_urls
from quicbus_cli.streams import read_all, read_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["parse_headers", "publish"]


@click.command(short_help="Publish a message, a file or a stream of lines.")
@click.argument("arguments", nargs=-1, metavar="[URL] TOPIC [PAYLOAD]")
@click.option("--lines", is_flag=True, help="Publish each line of stdin as it comes.")
@click.option("--file", "file", metavar="FILE", help="Publish the content of a file.")
@click.option("--header", "-H", "header", multiple=True, metavar="KEY=VALUE", help="Header; may be repeated.")
@click.option("--reply-to", metavar="TOPIC", help="Topic for replies.")
@click.option(
    "--expires-in",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Drop it undelivered after S seconds.",
)
@click.option("--count", type=click.IntRange(min=1), default=1, help="Publish it so many times.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Messages a second, with --count or --lines.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
@connection_options
def publish(
    arguments: tuple[str, ...],
    lines: bool,
    file: str | None,
    header: tuple[str, ...],
    reply_to: str | None,
    expires_in: float | None,
    count: int,
    rate: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish to TOPIC. PAYLOAD is text, or - for all of stdin.

    \b
    quicbus pub sensors/kitchen 21.5
    quicbus pub logs/app --lines < app.log
    quicbus pub images/door --file door.jpg -H type=image/jpeg
    """
    urls, rest = split_urls(arguments)
    topic, payload = _topic_and_payload(rest, lines=lines, file=file)
    headers = parse_headers(header)
    settings = load_client_settings(options, urls)
    content = None if lines else _content(payload, file)

    async def work() -> int:
        published = 0
        pace = _Pace(rate)
        async with connect(settings, "quicbus pub") as bus:
            async for each in _payloads(content, count):
                await pace.wait()
                await bus.publish(topic, each, headers=headers or None, reply_to=reply_to, expires_in=expires_in)
                published += 1
            await bus.flush()
        return published

    published = run(work())
    if as_json:
        click.echo(json.dumps({"topic": topic, "published": published}))
    elif sys.stdout.isatty():
        click.echo(f"published {published} message{'' if published == 1 else 's'} to {topic}")


def parse_headers(header: tuple[str, ...]) -> dict[str, str]:
    """Return the headers of `KEY=VALUE` options; what has no `=` or no key is wrong usage."""
    headers = {}
    for each in header:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--header {each!r} is not KEY=VALUE", click.get_current_context())
        headers[key] = value
    return headers


def _topic_and_payload(rest: tuple[str, ...], *, lines: bool, file: str | None) -> tuple[str, str | None]:
    context = click.get_current_context()
    if not rest:
        raise click.UsageError("no topic; for example: quicbus pub sensors/kitchen 21.5", context)
    topic = rest[0]
    if "+" in topic or "#" in topic:
        remedy = "one publishes to a single topic; + and # are for `quicbus sub`"
        raise click.UsageError(f"{topic!r} holds a wildcard; {remedy}", context)
    check_topic(topic)
    if len(rest) > 2:
        check_order(rest)
        remedy = f"quote a payload with spaces: quicbus pub {topic} {' '.join(rest[1:])!r}"
        raise click.UsageError(f"{len(rest) - 1} payloads; {remedy}", context)
    sources = [len(rest) == 2, lines, file is not None]
    if sum(sources) != 1:
        what = "no payload" if not any(sources) else "more than one payload"
        raise click.UsageError(f"{what}; give one of PAYLOAD, - (stdin), --lines (stdin) or --file FILE", context)
    return topic, rest[1] if len(rest) == 2 else None


def _content(payload: str | None, file: str | None) -> bytes | None:
    """Return what is published, or `None` where it comes from stdin."""
    if file is not None:
        return Path(file).read_bytes()
    if payload == "-":
        return asyncio.run(read_all())
    assert payload is not None
    return payload.encode("utf-8", "surrogateescape")


async def _payloads(content: bytes | None, count: int) -> AsyncIterator[bytes]:
    if content is not None:
        for _ in range(count):
            yield content
        return
    async for lines in read_lines():
        for line in lines:
            yield line


class _Pace:
    """Spaces calls evenly; without a rate it never waits."""

    def __init__(self, rate: float | None) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._next = time.monotonic()

    async def wait(self) -> None:
        if self._interval:
            await asyncio.sleep(self._next - time.monotonic())
            self._next += self._interval
