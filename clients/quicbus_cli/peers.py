"""`quicbus peers`: the brokers of the mesh, as one of them sees them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from quicbus.exceptions import WaitTimeout
from quicbus.logs import harmless
from quicbus.process import Interrupted, run
from quicbus_cli.connecting import connect, connection_options, load_client_settings, split_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quicbus import Client, Peer

__all__ = ["changes_between", "peers", "peers_table", "short_ids", "sorted_peers"]

SHORT_ID_SIZE = 8
PIPED_WIDTH = 200
"""Without a terminal: no line is folded."""
_STATE_STYLES = {"alive": "green", "suspect": "yellow", "failed": "red", "left": "dim"}


@click.command(short_help="Show the brokers of the mesh.")
@click.argument("arguments", nargs=-1, metavar="[URL]")
@click.option("--watch", "-w", is_flag=True, help="Go on and show what changes, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.05), default=1.0, show_default=True, metavar="S")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list; with --watch one a line, at each change.")
@connection_options
def peers(
    arguments: tuple[str, ...], watch: bool, interval: float, timeout: float, as_json: bool, **options: Any
) -> int:
    """Ask a broker which brokers are in its mesh: alive, suspect (no answer, may refute), failed or left.

    `*` marks the one that answers. `linked`: it holds a link to that one; round trips are measured over links. Names
    that several nodes have are marked with `!`: the ids tell them apart.
    """
    urls, rest = split_urls(arguments)
    if rest:
        raise click.UsageError(f"{rest[0]!r} is not a URL: quic://HOST:PORT", click.get_current_context())
    settings = load_client_settings(options, urls)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)

    async def work() -> None:
        async with connect(settings, "quicbus peers") as bus:
            if watch:
                await _watch(bus, console, interval, timeout, as_json=as_json)
            elif as_json:
                click.echo(json_list(await bus.peers(timeout), indent=2))
            else:
                found = await bus.peers(timeout)
                console.print(peers_table(found))
                for note in _notes(found):
                    console.print(Text(note), soft_wrap=True)

    try:
        run(work())
    except Interrupted:
        if not watch:
            raise
    return 0


def json_list(found: Sequence[Peer], indent: int | None = None) -> str:
    return json.dumps([dataclasses.asdict(peer) for peer in sorted_peers(found)], indent=indent, ensure_ascii=False)


def sorted_peers(found: Sequence[Peer]) -> list[Peer]:
    """Return the one that answers, then the others by name."""
    return sorted(found, key=lambda peer: (not peer.is_self, peer.name, peer.node))


def short_ids(found: Sequence[Peer]) -> dict[str, str]:
    """Return the shortest beginnings of the ids that tell all of them apart, of one length."""
    size = SHORT_ID_SIZE
    ids = {peer.node for peer in found}
    while len({node[:size] for node in ids}) < len(ids):
        size += 1
    return {node: node[:size] for node in ids}


def peers_table(found: Sequence[Peer], title: str | None = None) -> Table:
    short = short_ids(found)
    names = Counter(peer.name for peer in found)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "name", "node", "url", "state", "rtt ms", "linked", "mode"):
        table.add_column(heading, justify="right" if heading == "rtt ms" else "left", no_wrap=heading != "url")
    for peer in sorted_peers(found):
        table.add_row(
            "*" if peer.is_self else "",
            Text(harmless(f"{peer.name} !" if names[peer.name] > 1 else peer.name)),
            short[peer.node],
            Text(harmless(peer.url or "-"), overflow="fold"),
            Text(peer.state, style=_STATE_STYLES.get(peer.state, "")),
            "" if peer.rtt_ms is None else f"{peer.rtt_ms:.2f}",
            "yes" if peer.linked else "",
            Text(harmless(peer.mode)),
        )
    return table


def changes_between(before: Sequence[Peer], after: Sequence[Peer]) -> Iterator[str]:
    """Yield a line for each node that is new, changed or forgotten; round trips are no change."""
    short = short_ids([*before, *after])
    known = {peer.node: peer for peer in before}
    for peer in sorted_peers(after):
        old = known.pop(peer.node, None)
        if old is None:
            yield f"{peer.name} {short[peer.node]} {_described(peer)}"
        elif changed := list(_changes(old, peer)):
            yield f"{peer.name} {short[peer.node]} {', '.join(changed)}"
    for peer in sorted_peers(list(known.values())):
        yield f"{peer.name} {short[peer.node]} forgotten"


def _described(peer: Peer) -> str:
    facts = [peer.state, peer.mode, peer.url or "not dialed"]
    if peer.linked:
        facts.append("linked" if peer.rtt_ms is None else f"linked, {peer.rtt_ms:.2f} ms")
    if peer.is_self:
        facts.append("answers here")
    return ", ".join(facts)


def _changes(old: Peer, new: Peer) -> Iterator[str]:
    if old.state != new.state:
        yield f"{old.state} -> {new.state}"
    if old.boot != new.boot:
        yield "started again"
    if old.url != new.url:
        yield f"{old.url or 'nowhere'} -> {new.url or 'nowhere'}"
    if old.linked != new.linked:
        yield "linked" if new.linked else "no longer linked"
    if old.mode != new.mode:
        yield f"{old.mode} -> {new.mode}"
    if new.is_self and not old.is_self:
        yield "answers here"


def _notes(found: Sequence[Peer]) -> Iterator[str]:
    short = short_ids(found)
    names = Counter(peer.name for peer in found)
    for name, count in sorted(names.items()):
        if count > 1:
            ids = ", ".join(sorted(short[peer.node] for peer in found if peer.name == name))
            yield f"! {count} nodes have the name {name}: {ids}"


async def _watch(bus: Client, console: Console, interval: float, timeout: float, *, as_json: bool) -> None:
    is_live = console.is_terminal and not as_json
    before: list[Peer] = []
    is_lost = False
    with Live(console=console, auto_refresh=False) if is_live else contextlib.nullcontext() as live:
        while True:
            try:
                found = await bus.peers(timeout)
            except WaitTimeout:
                if not is_lost and not is_live:
                    click.echo(f"no broker answers within {timeout:g} s", err=True)
                is_lost = True
                if live is not None:
                    live.update(peers_table(before, f"no broker answers within {timeout:g} s"), refresh=True)
                continue
            is_lost = False
            lines = list(changes_between(before, found))
            if live is not None:
                live.update(peers_table(found, time.strftime("%H:%M:%S")), refresh=True)
            elif as_json and lines:
                click.echo(json_list(found))
            else:
                for line in lines:
                    click.echo(f"{time.strftime('%H:%M:%S')} {harmless(line)}")
            before = found
            await asyncio.sleep(interval)
