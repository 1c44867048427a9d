"""Permissions in a mesh of processes: each node applies its own table, to its clients and to what others send it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

import quicbus
from quicbus.limits import LANES
from quicbus.testing.launcher import run_quicbus
from tests.system.buses import (
    DEADLINE_S,
    assert_broker_balances,
    assert_publisher_balances,
    final_statistics,
    stopped,
)
from tests.system.nodes import Nodes, linked, nodes_in, wait_members

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from quicbus.testing.launcher import BrokerProcess

STRICT = """
[permissions]
default = "deny"
[[permissions.role]]
name = "sensor"
match = ["sensor-*"]
publish = ["sensors/${name}/#"]
[[permissions.role]]
name = "reader"
match = ["reader"]
publish = ["square"]
subscribe = ["sensors/#", "open/#"]
"""
LOOSE = """
[permissions]
[[permissions.role]]
name = "sensor"
match = ["sensor-*"]
publish = ["sensors/#", "open/#"]
"""


@contextlib.asynccontextmanager
async def client(nodes: Nodes, node: BrokerProcess, name: str) -> AsyncIterator[quicbus.Client]:
    """A client of a node, with a certificate of this name."""
    credential = nodes.authority.issue_client(name)
    path = node.data_dir.parent / f"{name}.pem"
    path.write_bytes(credential.to_pem())
    async with quicbus.connect(node.url, credentials=path, engine=node.engine) as bus:
        yield bus


def topic_of_lane(topic: str) -> str:
    """Return a topic of sensor-1 that travels on the lane of another topic: what went before it there has come."""
    others = (f"sensors/sensor-1/{number}" for number in itertools.count())
    return next(other for other in others if crc32(other.encode()) % LANES == crc32(topic.encode()) % LANES)


async def reload(node: BrokerProcess, table: str) -> tuple[int, str, str]:
    """Write another table and have the node read it; returns exit code and what was printed."""
    (node.data_dir / "quicbus.toml").write_text(table)
    ended = await asyncio.to_thread(run_quicbus, "reload", "--data-dir", str(node.data_dir))
    return ended.code, ended.stdout, ended.stderr


async def start(nodes: Nodes, name: str, table: str, *seeds: BrokerProcess) -> BrokerProcess:
    (nodes.folder(name) / "quicbus.toml").write_text(table)
    return await nodes.start(name, *seeds)


async def test_nodes_with_different_tables_take_what_their_own_allows(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        strict = await start(nodes, "strict", STRICT)
        loose = await start(nodes, "loose", LOOSE, strict)
        await wait_members(strict, linked("loose"))
        async with (
            client(nodes, strict, "reader") as reader,
            client(nodes, loose, "anyone") as anyone,
            client(nodes, loose, "sensor-1") as sensor,
            reader.subscribe("sensors/#") as at_strict,
            reader.subscribe("open/#") as open_at_strict,
            anyone.subscribe("sensors/#") as at_loose,
        ):
            await asyncio.gather(*(each.wait_spread(DEADLINE_S) for each in (at_strict, open_at_strict, at_loose)))
            # Allowed everywhere, at the own node only, and nowhere.
            await sensor.publish("sensors/sensor-1/t", b"1")
            for number in (b"2", b"3"):
                await sensor.publish("sensors/sensor-2/t", number)
            with pytest.raises(quicbus.NotPermitted) as refused:
                await sensor.publish("other", b"4")
            await sensor.publish(last := topic_of_lane("sensors/sensor-2/t"), b"5")
            await sensor.flush()
            assert (refused.value.action, refused.value.topic) == ("publish", "other")
            assert {(await at_loose.next(DEADLINE_S)).payload for _ in range(4)} == {b"1", b"2", b"3", b"5"}
            got = [await at_strict.next(DEADLINE_S) for _ in range(2)]
            assert {(message.topic, message.payload) for message in got} == {("sensors/sensor-1/t", b"1"), (last, b"5")}

            # A request from the strict node, answered at the other one, whose answer comes back.
            @anyone.on("square")
            async def square(message: quicbus.Message) -> None:
                await message.reply(str(int(message.payload) ** 2))

            await anyone.wait_handlers()
            while True:
                with contextlib.suppress(quicbus.NoResponders):  # until the interest has come
                    assert (await reader.request("square", "7", timeout=DEADLINE_S)).text() == "49"
                    break
            with pytest.raises(quicbus.NotPermitted):
                await reader.subscribe("square")
            assert_publisher_balances(sensor.statistics())
        await assert_books(strict, dropped=2)
        await assert_books(loose, dropped=0)


async def assert_books(node: BrokerProcess, *, dropped: int) -> None:
    books = final_statistics(await stopped(node))["books"]
    assert_broker_balances(books)
    assert books["dropped"].get("not_permitted", 0) == dropped, books


async def test_a_reload_ends_what_is_no_longer_permitted_and_a_wrong_table_changes_nothing(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        node = await start(nodes, "node", STRICT)
        file = node.data_dir / "quicbus.toml"
        async with client(nodes, node, "reader") as reader, reader.subscribe("open/#") as messages:
            code, out, err = await reload(node, STRICT + "publsh = []\n")
            line = STRICT.count("\n") + 1
            assert (code, out) == (1, "")
            assert f"(from {file}:{line}): unknown key; did you mean publish?" in err
            await reader.ping()
            assert not messages.is_closed

            code, out, err = await reload(node, STRICT.replace('"open/#"', '"new/#"'))
            assert (code, err) == (0, "")
            assert out == f"reloaded permissions: 2 roles, default deny ({file})\n"
            with pytest.raises(quicbus.NotPermitted):
                await messages.next(DEADLINE_S)
            async with reader.subscribe("new/#"):
                pass

            file.write_text(STRICT)
            os.kill(node.pid, signal.SIGHUP)
            while True:
                await reader.ping()
                with contextlib.suppress(quicbus.NotPermitted):  # until it has read the file
                    async with reader.subscribe("open/#"):
                        break
        assert node.is_running
        await stopped(node)
        code, _, err = await reload(node, STRICT)
        assert code == 1
        assert "no broker runs with the data folder" in err
