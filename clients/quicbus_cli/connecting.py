"""Which broker a command talks to: its options, the connection they lead to, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

import quicbus
from quicbus import Connected, Disconnected, Gap
from quicbus.commands import common_options, settings_of
from quicbus.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

__all__ = ["check_order", "connect", "connection_options", "load_client_settings", "split_urls", "tell_events"]

F = TypeVar("F", bound="Callable[..., Any]")

PATIENCE_S = 1.5
"""Whoever sits before a terminal wants to know by then what is waited for."""

_OPTIONS = (
    click.option("--url", multiple=True, metavar="URL", help="Broker, quic://HOST:PORT; may be repeated."),
    click.option("--credentials", metavar="FILE", help="Credential; else the local user's in the data folder."),
    click.option("--data-dir", metavar="DIR", help="Data folder (or QUICBUS_DATA_DIR)."),
    click.option("--engine", metavar="NAME", help="QUIC implementation: auto, aioquic or qh3."),
    click.option("--connect-timeout", "connect_timeout_s", metavar="S", help="Seconds that connecting may take."),
)


def connection_options(function: F) -> F:
    """Add the options that `load_client_settings` takes, and the common ones."""
    function = common_options(function)
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def split_urls(arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split leading `quic://…` arguments from the rest."""
    count = next((i for i, each in enumerate(arguments) if not each.startswith("quic://")), len(arguments))
    return tuple(arguments[:count]), tuple(arguments[count:])


def check_order(words: Sequence[str]) -> None:
    """Raise `click.UsageError` where one of `words`, which are no URLs, looks like one."""
    late = next((each for each in words if each.startswith("quic://")), None)
    if late is not None:
        raise click.UsageError(f"{late}: URLs stand first, or behind --url", click.get_current_context())


def load_client_settings(options: dict[str, Any], urls: Sequence[str] = ()) -> ClientSettings:
    """Return the settings of a client command; `urls` came as arguments, the rest from `connection_options`."""
    options["url"] = (*urls, *options.get("url", ())) or None
    return settings_of(ClientSettings, options)


@contextlib.asynccontextmanager
async def connect(settings: ClientSettings, name: str) -> AsyncIterator[Any]:
    """Enter `quicbus.connect(...)` as the settings want it; `name` is the label in the broker's log."""
    waiting = asyncio.get_running_loop().call_later(PATIENCE_S, _tell_waiting, settings)
    try:
        async with quicbus.connect(
            *settings.url,
            credentials=settings.credentials_path,
            name=settings.name or name,
            engine=settings.engine,
            connect_timeout_s=settings.connect_timeout_s,
            stall_timeout_s=settings.stall_timeout_s,
            offline_buffer_size=settings.offline_buffer_size,
            qlog_dir=settings.qlog_dir,
        ) as bus:
            waiting.cancel()
            yield bus
    finally:
        waiting.cancel()


def _tell_waiting(settings: ClientSettings) -> None:
    if sys.stderr.isatty():
        where = ", ".join(settings.url)
        seconds = f"{settings.connect_timeout_s:g} s"
        click.echo(f"quicbus: no answer from {where} yet; tried for {seconds} (--connect-timeout)", err=True)


async def tell_events(bus: Any, note: Callable[[str], None]) -> None:
    """Tell people that messages may be missing, and when they come again; until the client is closed."""
    async for event in bus.events():
        match event:
            case Disconnected(reason=reason):
                note(f"connection lost ({reason}); connecting again")
            case Connected(url=url, reconnects=reconnects) if reconnects:
                note(f"connected again to {url}")
            case Gap(filter=filter):
                note(f"{filter}: what was published meanwhile is missing")
