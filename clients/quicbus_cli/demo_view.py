"""How the demo looks: the mesh and the counters beside each other, plain lines without a terminal, a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

from quicbus_cli.demo_books import Row

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from quicbus_cli.demo_books import Books, Seen

__all__ = ["PlainView", "live_view", "summary_table"]

_STYLES = {"alive": "green", "suspect": "yellow", "failed": "red", "left": "dim"}
_STORY_LINES = 6


def live_view(books: Books) -> RenderableType:
    story = "\n".join(f"{at:5.1f} s  {what}" for at, what in books.story[-_STORY_LINES:])
    return Group(Columns([_counters(books), _mesh(books)], padding=(0, 2)), Text(story))


def _counters(books: Books) -> Table:
    table = Table(title="this machine, live over QUIC", title_justify="left")
    table.add_column("topic", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("")
    for seen in books.subscribers:
        table.add_column(f"{_place(seen)}\nmessages", justify="right")
        table.add_column("\nms", justify="right")
    for topic in sorted(books.steady.rows | books.moving.rows):
        rows = [seen.rows.get(topic, Row()) for seen in books.subscribers]
        newest = max(rows, key=lambda row: row.sent_ns)
        cells = [cell for row in rows for cell in (str(row.count), f"{row.latency_ms:.2f}")]
        table.add_row(topic, newest.value, newest.unit, *cells)
    return table


def _mesh(books: Books) -> Table:
    table = Table(title=f"the mesh, as {books.steady.broker} sees it", title_justify="left")
    for heading in ("broker", "state", "linked", "rtt ms", "delivered"):
        table.add_column(heading, justify="right" if heading in ("rtt ms", "delivered") else "left", no_wrap=True)
    known = {peer.node: peer for peer in books.peers}
    for node, name in books.names.items():
        peer = known.get(node)
        state = peer.state if peer else ""
        table.add_row(
            f"{name} (killed)" if name == books.killed else name,
            Text(state, style=_STYLES.get(state, "")),
            "yes" if peer and peer.linked else "",
            f"{peer.rtt_ms:.2f}" if peer and peer.rtt_ms is not None else "",
            str(sum(seen.by_broker[name] for seen in books.subscribers)),
        )
    return table


def _place(seen: Seen) -> str:
    if seen.now == seen.broker:
        return f"at {seen.broker}"
    return f"{seen.broker} → {seen.now or '…'}"


class PlainView:
    """Without a terminal: what happens to the mesh when it does, and the counters as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = 0
        self._states: dict[str, str] = {}

    def show(self, books: Books) -> None:
        for at, what in books.story[self._told :]:
            self._console.print(f"{at:.1f} s: {what}", soft_wrap=True)
        self._told = len(books.story)
        states = {books.names.get(peer.node, peer.name): peer.state for peer in books.peers}
        if states != self._states:
            self._states = states
            line = ", ".join(f"{name} {state}" for name, state in sorted(states.items()))
            self._console.print(f"mesh: {line}", soft_wrap=True)
        for topic, row in sorted(books.steady.rows.items()):
            self._console.print(f"{topic} {row.value} {row.unit}".rstrip(), soft_wrap=True)


def summary_table(books: Books) -> Table:
    summary = books.summary()
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["dropped_by_reason"].items() if count)
    table = Table(title="summary", title_justify="left", show_header=False)
    table.add_row("published", f"{summary['published']} messages on {summary['topics']} topics")
    for seen in summary["subscribers"]:
        books_of = f"{seen['received']} received + {seen['dropped']} dropped + {seen['missed']} missed"
        table.add_row(f"at {seen['broker']}", f"{books_of} = {_sum(seen)}; {_told(seen)}")
    for broker in summary["brokers"]:
        table.add_row(broker["name"], _broker_line(broker, books.killed))
    table.add_row("rate", f"{summary['deliveries_per_s']:g} deliveries a second")
    table.add_row("latency", f"p50 {summary['latency_p50_ms']:g} ms, p99 {summary['latency_p99_ms']:g} ms")
    table.add_row("dropped", f"{reasons or '0'} for the subscribers")
    return table


def _broker_line(broker: dict[str, Any], killed: str) -> str:
    line = f"{broker['state']}, delivered {broker['delivered']}"
    books, mesh = broker["books"], broker["mesh"]
    if not books or not mesh:
        return line  # it was killed
    line += f"; took {books['accepted']} from publishers, sent {mesh['sent']} bundles to other brokers"
    dropped = {reason: count for reason, count in (books["dropped"] | mesh["dropped"]).items() if count}
    if killed and (lost := dropped.pop("possibly_lost", 0)):
        line += f"; {lost} messages possibly lost with {killed}"
    shown = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    return f"{line}; dropped {shown}" if shown else line


def _sum(seen: dict[str, int]) -> int:
    return seen["received"] + seen["dropped"] + seen["missed"]


def _told(seen: dict[str, object]) -> str:
    if not seen["gaps"]:
        return "no gap"
    return f"a gap of {seen['gap_s']:g} s, told as {seen['gaps']} Gap events; went on at {seen['ended_at']}"
