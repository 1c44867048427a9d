"""`quicbus subscribe`: messages as they come, for people or for programs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from quicbus.process import Interrupted, run
from quicbus.topics import parse_filter
from quicbus_cli.connecting import (
    check_order,
    connect,
    connection_options,
    load_client_settings,
    split_urls,
    tell_events,
)
from quicbus_cli.shown import human_line, json_line
from quicbus_cli.streams import write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus import Message

__all__ = ["subscribe"]

CLOSE_TIMEOUT_S = 1.0


@click.command(short_help="Print the messages of topics as they come.")
@click.argument("arguments", nargs=-1, metavar="[URL] FILTER...")
@click.option("--count", type=click.IntRange(min=1), help="End after so many messages.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="With --count: fail when they are not there in S seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--raw", is_flag=True, help="Payloads only, as they came, each with a line end.")
@click.option("--no-newline", "-N", is_flag=True, help="With --raw: nothing after a payload.")
@click.option("--headers", is_flag=True, help="Show headers too.")
@click.option("--group", metavar="NAME", help="Share the messages with the other members of this group.")
@click.option(
    "--overflow",
    type=click.Choice(["drop_oldest", "drop_newest", "block", "disconnect"]),
    default="drop_oldest",
    show_default=True,
    help="What happens when this command is slower than the publishers.",
)
@click.option("--max-pending", type=click.IntRange(min=1), help="Messages that may wait for this command.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing on stderr.")
@connection_options
def subscribe(
    arguments: tuple[str, ...],
    count: int | None,
    timeout: float | None,
    as_json: bool,
    raw: bool,
    no_newline: bool,
    headers: bool,
    group: str | None,
    overflow: str,
    max_pending: int | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Print the messages whose topics match FILTER, until Ctrl-C or --count.

    \b
    quicbus sub 'sensors/#'            quote filters: the shell takes # for a comment
    quicbus sub 'orders/+' --group workers
    quicbus sub 'logs/#' --count 10 --json
    """
    urls, filters = split_urls(arguments)
    context = click.get_current_context()
    if timeout is not None and count is None:
        raise click.UsageError("--timeout goes with --count", context)
    if not filters:
        raise click.UsageError(
            "no filter; quote one with #, which is a comment to the shell: quicbus sub 'sensors/#'", context
        )
    check_order(filters)
    for each in filters:
        parse_filter(each)
    settings = load_client_settings(options, urls)
    subscribing: dict[str, Any] = {"group": group, "overflow": overflow}
    if max_pending is not None:
        subscribing["max_pending"] = max_pending

    def note(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    async def work() -> int:
        async with connect(settings, "quicbus sub") as bus:
            printer = _Printer(
                _formatter(as_json=as_json, raw=raw, end=b"" if no_newline else b"\n", headers=headers), count
            )
            telling = asyncio.create_task(tell_events(bus, note), name="sub-events")
            try:
                await _print_all(bus, filters, subscribing, printer, note, timeout)
            finally:
                telling.cancel()
                # There is nothing to send: a broker that is gone need not hold up Ctrl-C.
                await bus.close(CLOSE_TIMEOUT_S)
        return printer.code

    try:
        return run(work())
    except Interrupted:
        return 0


def _formatter(*, as_json: bool, raw: bool, end: bytes, headers: bool) -> Callable[[Message], bytes]:
    if as_json:
        return json_line
    if raw:
        return lambda message: message.payload + end
    styled = sys.stdout.isatty()
    return lambda message: human_line(message, headers=headers, styled=styled)


class _Printer:
    """Prints what all subscriptions of the command give, up to a count."""

    def __init__(self, formatted: Callable[[Message], bytes], count: int | None) -> None:
        self._formatted = formatted
        self.count = count
        self.printed = 0
        self._turn = asyncio.Lock()
        self.done = asyncio.Event()
        self.code = 0

    async def print(self, messages: list[Message]) -> None:
        if self.count is not None:
            messages = messages[: self.count - self.printed]
        self.printed += len(messages)
        async with self._turn:
            await write_all(b"".join(map(self._formatted, messages)))
        if self.printed == self.count:
            self.done.set()


async def _print_all(
    bus: Any,
    filters: tuple[str, ...],
    subscribing: dict[str, Any],
    printer: _Printer,
    note: Callable[[str], None],
    timeout: float | None,
) -> None:
    tasks = [
        asyncio.create_task(_print_one(bus, each, subscribing, printer, note), name=f"sub[{each}]") for each in filters
    ]
    done = asyncio.create_task(printer.done.wait())
    try:
        finished, _ = await asyncio.wait([*tasks, done], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            task.result()
        if not finished:
            click.echo(
                f"quicbus sub: {printer.printed} of {printer.count} messages came within {timeout:g} s", err=True
            )
            printer.code = 1
    finally:
        for task in (*tasks, done):
            task.cancel()
        await asyncio.gather(*tasks, done, return_exceptions=True)


async def _print_one(
    bus: Any, filter: str, subscribing: dict[str, Any], printer: _Printer, note: Callable[[str], None]
) -> None:
    async with bus.subscribe(filter, **subscribing) as subscription:
        note(f"subscribed to {filter}")
        try:
            async for messages in subscription.batches():
                await printer.print(messages)
        finally:
            if subscription.dropped:
                remedy = "--max-pending N or --overflow block keep more"
                note(f"{filter}: {subscription.dropped} messages were dropped; {remedy}")
