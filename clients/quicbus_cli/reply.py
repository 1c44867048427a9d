"""`quicbus reply`: answer requests with a fixed text, an echo, or what a command prints."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import click

from quicbus import Message, QuicbusError
from quicbus.process import Interrupted, run
from quicbus.topics import parse_filter
from quicbus_cli.connecting import connect, connection_options, load_client_settings, split_urls, tell_events

__all__ = ["reply"]

Answer = Callable[[Message], Awaitable[tuple[bytes, dict[str, str]]]]


@click.command(short_help="Answer requests: fixed text, echo, or a command.")
@click.argument("arguments", nargs=-1, metavar="[URL] TOPIC [PAYLOAD]")
@click.option("--echo", is_flag=True, help="Reply with the request's payload.")
@click.option("--command", metavar="CMD", help="Reply with what this shell command prints; the request is its stdin.")
@click.option("--group", metavar="NAME", help="Share the requests with the other members of this group.")
@click.option("--concurrency", type=click.IntRange(min=1), default=8, show_default=True, help="Requests at one time.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many requests.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing on stderr.")
@connection_options
def reply(
    arguments: tuple[str, ...],
    echo: bool,
    command: str | None,
    group: str | None,
    concurrency: int,
    count: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Answer the requests on TOPIC (a filter may be given) until Ctrl-C or --count.

    \b
    quicbus reply time --command date
    quicbus reply greeting hello
    """
    urls, rest = split_urls(arguments)
    context = click.get_current_context()
    if not rest or len(rest) > 2:
        what = "no topic" if not rest else "more than one payload; quote one with spaces"
        raise click.UsageError(f"{what}: quicbus reply TOPIC [PAYLOAD]", context)
    if sum((len(rest) == 2, echo, command is not None)) != 1:
        raise click.UsageError("give one of PAYLOAD, --echo and --command CMD", context)
    parse_filter(rest[0])
    answer = _answer(rest[1] if len(rest) == 2 else None, command)
    settings = load_client_settings(options, urls)

    def note(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    async def work() -> None:
        async with connect(settings, "quicbus reply") as bus:
            await _serve(bus, rest[0], group, answer, concurrency, count, note)

    try:
        run(work())
    except Interrupted:
        pass


async def _serve(
    bus: Any,
    filter: str,
    group: str | None,
    answer: Answer,
    concurrency: int,
    count: int | None,
    note: Callable[[str], None],
) -> None:
    room = asyncio.Semaphore(concurrency)

    async def handle(message: Message) -> None:
        try:
            payload, headers = await answer(message)
            await message.reply(payload, headers=headers or None)
        except (QuicbusError, OSError) as error:
            note(f"quicbus reply: {error}")
        finally:
            room.release()

    served = 0
    async with asyncio.TaskGroup() as tasks, bus.subscribe(filter, group=group, overflow="block") as messages:
        note(f"answering {filter}")
        telling = tasks.create_task(tell_events(bus, note), name="events")
        await room.acquire()
        async for message in messages:
            if message.reply_to is None:
                continue
            tasks.create_task(handle(message), name=f"reply[{message.id}]")
            served += 1
            if served == count:
                break
            await room.acquire()
        telling.cancel()
    await bus.flush()


def _answer(payload: str | None, command: str | None) -> Answer:
    async def fixed(message: Message) -> tuple[bytes, dict[str, str]]:
        return (message.payload if payload is None else payload.encode("utf-8", "surrogateescape")), {}

    async def from_command(message: Message) -> tuple[bytes, dict[str, str]]:
        assert command is not None
        printed, code = await _run_command(command, message)
        return printed, {"error": f"the command ended with code {code}"} if code else {}

    return from_command if command is not None else fixed


async def _run_command(command: str, message: Message) -> tuple[bytes, int]:
    """Return what a shell command prints and its exit code. Cancelled, it ends the command and all it started."""
    # Not a pipe: a command that ends without reading its stdin breaks one in ways that differ between event loops.
    with tempfile.TemporaryFile() as request:
        request.write(message.payload)
        request.seek(0)
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=request,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "REQUEST_TOPIC": message.topic},
            start_new_session=True,
        )
    try:
        printed, _ = await process.communicate()
    except asyncio.CancelledError:
        _end(process)
        await process.wait()
        raise
    assert process.returncode is not None
    return printed, process.returncode


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
