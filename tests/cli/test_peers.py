"""`quicbus peers`: the table, the JSON, and what `--watch` tells."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING

from rich.console import Console

from quicbus import Peer
from quicbus_cli.peers import changes_between, json_list, peers_table, short_ids
from tests.cli.commands import quicbus, start

if TYPE_CHECKING:
    from quicbus.testing.launcher import BrokerProcess

TOKYO = Peer(
    node="0a" * 16,
    name="tokyo",
    url="quic://tokyo:4433",
    state="alive",
    rtt_ms=None,
    linked=False,
    mode="hybrid",
    boot=1,
    addresses=("tokyo:4433",),
    is_self=True,
)
OSAKA = dataclasses.replace(
    TOKYO, node="0b" * 16, name="osaka", url="quic://osaka:4433", rtt_ms=1.234, linked=True, is_self=False
)
TWIN = dataclasses.replace(OSAKA, node="0b" * 6 + "0c" * 10, state="suspect", rtt_ms=None, linked=False, url="")


def shown(*peers: Peer) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(peers_table(peers))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def row(lines: list[str], text: str) -> list[str]:
    (line,) = (line for line in lines if text in line)
    return line.split()


def test_table_shows_the_answering_node_first_and_marked() -> None:
    lines = shown(OSAKA, TOKYO)
    assert row(lines, "tokyo:4433") == ["*", "tokyo", "0a0a0a0a", "quic://tokyo:4433", "alive", "hybrid"]
    assert row(lines, "osaka:4433") == ["osaka", "0b0b0b0b", "quic://osaka:4433", "alive", "1.23", "yes", "hybrid"]
    assert lines.index(next(line for line in lines if "tokyo" in line)) < lines.index(
        next(line for line in lines if "osaka" in line)
    )


def test_two_nodes_with_one_name_are_marked_and_told_apart() -> None:
    lines = shown(TOKYO, OSAKA, TWIN)
    assert row(lines, "suspect")[:3] == ["osaka", "!", "0b0b0b0b0b0b0c"]
    assert row(lines, "osaka:4433")[:3] == ["osaka", "!", "0b0b0b0b0b0b0b"]
    assert row(lines, "tokyo:4433")[1] == "tokyo"


def test_a_name_is_no_markup() -> None:
    assert row(shown(dataclasses.replace(TOKYO, name="[red]x[/]")), "4433")[1] == "[red]x[/]"


def test_what_a_member_says_of_itself_moves_no_cursor() -> None:
    line = row(shown(dataclasses.replace(TOKYO, url="quic://\x1b[2J:4433")), "4433")
    assert line[3] == r"quic://\x1b[2J:4433"


def test_short_ids_are_as_long_as_it_takes() -> None:
    assert short_ids([TOKYO, OSAKA]) == {"0a" * 16: "0a0a0a0a", "0b" * 16: "0b0b0b0b"}
    assert {len(short) for short in short_ids([OSAKA, TWIN]).values()} == {14}


def test_json_is_a_list_of_objects_with_all_that_is_known() -> None:
    first, second = json.loads(json_list([OSAKA, TOKYO]))
    assert first["is_self"]
    assert second == {
        "node": "0b" * 16,
        "name": "osaka",
        "url": "quic://osaka:4433",
        "state": "alive",
        "rtt_ms": 1.234,
        "linked": True,
        "mode": "hybrid",
        "boot": 1,
        "addresses": ["tokyo:4433"],
        "is_self": False,
    }


def test_changes_are_told_by_name_and_id_and_round_trips_are_none() -> None:
    assert list(changes_between([], [TOKYO, OSAKA])) == [
        "tokyo 0a0a0a0a alive, hybrid, quic://tokyo:4433, answers here",
        "osaka 0b0b0b0b alive, hybrid, quic://osaka:4433, linked, 1.23 ms",
    ]
    assert list(changes_between([TOKYO, OSAKA], [TOKYO, dataclasses.replace(OSAKA, rtt_ms=9.0)])) == []
    gone = dataclasses.replace(OSAKA, state="failed", linked=False, rtt_ms=None)
    assert list(changes_between([TOKYO, OSAKA], [TOKYO, gone])) == ["osaka 0b0b0b0b alive -> failed, no longer linked"]
    back = dataclasses.replace(OSAKA, boot=2, url="quic://osaka:4434", mode="server")
    (line,) = changes_between([TOKYO, gone], [TOKYO, back])
    moved = "quic://osaka:4433 -> quic://osaka:4434"
    assert line == f"osaka 0b0b0b0b failed -> alive, started again, {moved}, linked, hybrid -> server"
    assert list(changes_between([TOKYO, OSAKA], [TOKYO])) == ["osaka 0b0b0b0b forgotten"]
    assert list(changes_between([TOKYO], [TOKYO])) == []
    elsewhere = [dataclasses.replace(TOKYO, is_self=False), dataclasses.replace(OSAKA, is_self=True)]
    assert list(changes_between([TOKYO, OSAKA], elsewhere)) == ["osaka 0b0b0b0b answers here"]


def test_a_broker_that_is_alone_shows_itself(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "peers", shared_broker.url, "--json")
    assert ended.code == 0, ended.stderr
    (me,) = json.loads(ended.stdout)
    assert (me["node"], me["state"], me["mode"], me["is_self"]) == (shared_broker.node, "alive", "hybrid", True)
    ended = quicbus(shared_broker, "peers", shared_broker.url)
    assert ended.code == 0, ended.stderr
    assert shared_broker.node[:8] in ended.stdout


def test_watch_without_a_terminal_prints_lines_and_ends_well_at_ctrl_c(shared_broker: BrokerProcess) -> None:
    with start(shared_broker, "peers", shared_broker.url, "--watch") as process:
        process.wait_line("answers here")
        process.interrupt()
        ended = process.wait()
    assert ended.code == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 1


def test_watch_as_json_prints_a_list_a_line(shared_broker: BrokerProcess) -> None:
    with start(shared_broker, "peers", shared_broker.url, "--watch", "--json") as process:
        process.wait_line("is_self")
        process.interrupt()
        ended = process.wait()
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)[0]["node"] == shared_broker.node


def test_no_broker_is_one_line_and_exit_code_1(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "peers", "quic://127.0.0.1:1", "--connect-timeout", "0.5")
    assert ended.code == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "quic://127.0.0.1:1" in ended.stderr


def test_something_that_is_no_url_is_wrong_usage(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "peers", "localhost:4433")
    assert ended.code == 2
    assert "'localhost:4433' is not a URL" in ended.stderr
