"""`quicbus request`: ask, and print the reply."""

from __future__ import annotations

import json
from typing import Any

import click

from quicbus.process import run
from quicbus.topics import check_topic
from quicbus_cli.connecting import connect, connection_options, load_client_settings, split_urls
from quicbus_cli.publish import parse_headers
from quicbus_cli.shown import message_fields
from quicbus_cli.streams import read_all, write_all

__all__ = ["request"]


@click.command(short_help="Send a request and print the reply.")
@click.argument("arguments", nargs=-1, metavar="[URL] TOPIC [PAYLOAD]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True, metavar="S")
@click.option("--header", "-H", "header", multiple=True, metavar="KEY=VALUE", help="Header; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the reply as a JSON object.")
@click.option("--raw", is_flag=True, help="Print the reply's payload byte for byte.")
@connection_options
def request(
    arguments: tuple[str, ...], timeout: float, header: tuple[str, ...], as_json: bool, raw: bool, **options: Any
) -> None:
    """Send PAYLOAD (text, or - for stdin; empty unless given) to TOPIC and print the first reply.

    Fails at once when nobody subscribes to TOPIC. `quicbus reply` answers.
    """
    urls, rest = split_urls(arguments)
    if not 1 <= len(rest) <= 2:
        what = "no topic" if not rest else "more than one payload; quote one with spaces"
        raise click.UsageError(f"{what}: quicbus request TOPIC [PAYLOAD]", click.get_current_context())
    topic, payload = rest[0], rest[1] if len(rest) == 2 else ""
    check_topic(topic)
    headers = parse_headers(header)
    settings = load_client_settings(options, urls)

    async def work() -> None:
        content = await read_all() if payload == "-" else payload.encode("utf-8", "surrogateescape")
        async with connect(settings, "quicbus request") as bus:
            reply = await bus.request(topic, content, headers=headers or None, timeout=timeout)
        if as_json:
            await write_all(json.dumps(message_fields(reply), ensure_ascii=False).encode() + b"\n")
        else:
            end = b"" if raw or reply.payload.endswith(b"\n") else b"\n"
            await write_all(reply.payload + end)

    run(work())
