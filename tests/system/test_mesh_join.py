"""Processes that become one mesh: through seeds dead and alive, from memory, behind a port forward; and who may not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from quicbus.identity import Authority
from quicbus.testing.launcher import BrokerProcess, run_quicbus
from quicbus.wire.close_codes import CloseCode
from tests.multicast import multicast_on_loopback
from tests.system.buses import DEADLINE_S, stopped
from tests.system.nodes import free_port, linked, nodes_in, on, wait_members
from tests.system.stranger import endpoint_and_broker, hello
from tests.transport.relay import RawSocket, Relay
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity import Credential


async def assert_carries(publisher: BrokerProcess, subscriber: BrokerProcess) -> None:
    """What is published at one node reaches a subscriber at another, once its interest has got there."""
    async with on(publisher) as here, on(subscriber) as there, there.subscribe("carried/#") as messages:
        got = asyncio.create_task(messages.next(DEADLINE_S))
        try:
            while not got.done():
                await here.publish("carried/it", b"")
                await asyncio.wait([got], timeout=0.05)
            assert (await got).topic == "carried/it"
        finally:
            got.cancel()


async def test_one_seed_is_enough_to_know_everyone(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        first = await nodes.start("first")
        second = await nodes.start("second", first)
        third = await nodes.start("third", second)

        members = await wait_members(first, linked("second", "third"))
        assert {name: peer.node for name, peer in members.items()} == {
            "first": first.node,
            "second": second.node,
            "third": third.node,
        }
        assert members["third"].url == third.url
        assert {peer.mode for peer in members.values()} == {"hybrid"}
        await wait_members(third, linked("first", "second"))
        await assert_carries(first, third)
        await assert_carries(third, first)


async def test_a_node_tells_who_it_is_when_it_is_ready(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        first = await nodes.start("first", options=["--mode", "server"])
        second = await nodes.start("second", first, options=["--advertise", "second.example:1234"])

        assert first.ready["name"] == "first"
        assert first.ready["mode"] == "server"
        assert first.ready["advertised"] == [first.address]
        assert first.ready["seeds"] == []
        assert second.ready["advertised"] == ["second.example:1234"]
        assert second.ready["seeds"] == [first.address]


async def test_one_of_several_seeds_that_answers_is_enough(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes, contextlib.AsyncExitStack() as stack:
        silent = stack.enter_context(RawSocket.opened())
        first = await nodes.start("first")
        closed, deaf = f"127.0.0.1:{free_port()}", f"127.0.0.1:{silent.address[1]}"
        second = await nodes.start("second", closed, deaf, "nobody.invalid", first)

        await wait_members(second, linked("first"))
        assert silent.received


async def test_a_node_waits_for_a_seed_that_comes_later(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        address = f"127.0.0.1:{free_port()}"
        second = await nodes.start("second", address)
        line = await asyncio.to_thread(second.wait_line, "no seed has answered", stream="stderr")
        assert f"{address} (connection refused" in line
        await nodes.start("first", listen=address)

        await wait_members(second, linked("first"))


async def test_a_seed_may_be_a_name_with_several_addresses(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        # `localhost` is ::1 as well, where nobody answers.
        first = await nodes.start("first", listen="127.0.0.1:0")
        second = await nodes.start("second", f"quic://localhost:{first.address.rpartition(':')[2]}")

        await wait_members(second, linked("first"))


async def test_a_node_whose_seed_is_itself_is_a_mesh_of_one(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        address = f"127.0.0.1:{free_port()}"
        first = await nodes.start("first", address, listen=address)
        second = await nodes.start("second", first)

        await wait_members(first, linked("second"))
        await assert_carries(second, first)
        assert first.stderr_lines == []


async def test_a_restarted_node_finds_the_mesh_when_every_seed_is_gone(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        seed = await nodes.start("seed")
        stays = await nodes.start("stays", seed)
        comes_back = await nodes.start("comes-back", seed)
        await wait_members(comes_back, linked("seed", "stays"))
        await stopped(comes_back)
        seed.kill()
        await asyncio.to_thread(seed.wait)
        assert stays.node in (comes_back.data_dir / "members.json").read_text()

        again = await nodes.start("comes-back", seed)
        assert again.node == comes_back.node
        await wait_members(again, linked("stays"))
        await wait_members(stays, lambda members: members["comes-back"].url == again.url)
        await assert_carries(again, stays)


async def test_members_outlive_a_crash(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        first = await nodes.start("first")
        second = await nodes.start("second", first)
        await wait_members(second, linked("first"))
        path = second.data_dir / "members.json"
        await eventually(path.exists)
        second.kill()
        await asyncio.to_thread(second.wait)

        (entry,) = json.loads(path.read_text())["members"]
        assert (entry["node"], entry["name"], entry["addresses"]) == (first.node, "first", [first.address])
        again = await nodes.start("second")
        await wait_members(again, linked("first"))


async def test_a_broken_file_of_members_is_named_and_does_not_stop_a_node(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        path = nodes.folder("first") / "members.json"
        path.write_text("{")
        first = await nodes.start("first")

        line = await asyncio.to_thread(first.wait_line, str(path), stream="stderr")
        assert "WARNING" in line


# --- who may not join -------------------------------------------------------------------------------------------------


async def test_a_node_of_another_mesh_is_refused_and_told_why(tmp_path: Path) -> None:
    async with nodes_in(tmp_path / "a") as nodes, nodes_in(tmp_path / "b") as others:
        first = await nodes.start("first")
        stranger = await others.start("stranger", first)

        line = await asyncio.to_thread(stranger.wait_line, first.address, stream="stderr")
        assert "no node of this mesh" in line
        assert "authority" in line
        assert set(await wait_members(first, bool)) == {"first"}
        assert set(await wait_members(stranger, bool)) == {"stranger"}


def test_a_client_certificate_does_not_make_a_node(tmp_path: Path) -> None:
    authority = Authority.create()
    credential = authority.issue_client("alice")
    for name, content in (
        ("certificate", credential.chain_pem),
        ("private-key", credential.private_key_pem),
        ("authority", authority.certificate_pem),
    ):
        (tmp_path / name).write_bytes(content)
    options = [word for name in ("certificate", "private-key", "authority") for word in (f"--{name}", tmp_path / name)]
    ended = run_quicbus("broker", "--seed", "127.0.0.1:9", "--data-dir", str(tmp_path / "d"), *map(str, options))

    assert ended.code == 1
    assert "credential of client alice" in ended.stderr
    assert "quicbus cert issue --node" in ended.stderr


@pytest.mark.parametrize(
    ("credential", "code", "sentence"),
    [
        (Authority.create().issue_node("stranger"), CloseCode.CREDENTIAL_OTHER_MESH, "mesh"),
        (None, CloseCode.CREDENTIAL_WRONG_ROLE, "can't open a node session"),
    ],
    ids=["of another mesh", "of a client"],
)
async def test_who_says_it_is_a_node_is_refused_with_the_remedy(
    credential: Credential | None, code: CloseCode, sentence: str, tmp_path: Path
) -> None:
    async with nodes_in(tmp_path) as nodes:
        first = await nodes.start("first")
        async with endpoint_and_broker(first, first.engine) as dial:
            stranger = dial()
            await stranger.wait_connected()
            shown = hello(credential or nodes.authority.issue_client("alice"), stranger.binding, kind="node")
            stranger.write(msgspec.structs.replace(shown, boot=1))
            termination = await stranger.wait_closed()

        assert termination.code == code
        assert sentence in termination.reason
        assert "quicbus cert issue --node" in termination.reason
        assert set(await wait_members(first, bool)) == {"first"}


# --- the local network ------------------------------------------------------------------------------------------------


async def test_nodes_of_one_mesh_find_each_other_on_the_local_network(tmp_path: Path) -> None:
    if reason := multicast_on_loopback():
        pytest.skip(reason)
    async with nodes_in(tmp_path / "a") as nodes, nodes_in(tmp_path / "b") as others:
        first = await nodes.start("first", options=["--discover"])
        stranger = await others.start("stranger", options=["--discover"])
        second = await nodes.start("second", options=["--discover", "--mode", "client"])

        await wait_members(first, linked("second"))
        await wait_members(second, linked("first"))
        assert set(await wait_members(stranger, bool)) == {"stranger"}


# --- modes and addresses ----------------------------------------------------------------------------------------------


async def test_a_node_behind_a_port_forward_is_dialed_where_it_says(tmp_path: Path) -> None:
    inside = free_port()
    with Relay.to(("127.0.0.1", inside)) as forward:
        outside = f"127.0.0.1:{forward.address[1]}"
        async with nodes_in(tmp_path) as nodes:
            # It dials nobody: who gets to it went the way that it advertises, or knows its own address, as `first`.
            hidden = await nodes.start(
                "hidden", listen=f"127.0.0.1:{inside}", options=["--mode", "server", "--advertise", outside]
            )
            first = await nodes.start("first", hidden)
            second = await nodes.start("second", first)

            members = await wait_members(second, linked("first", "hidden"))
            assert members["hidden"].url == f"quic://{outside}"
            assert forward.seen
            await assert_carries(second, hidden)


async def test_a_server_dials_nobody_and_nobody_dials_a_client(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        server = await nodes.start("server", options=["--mode", "server"])
        client = await nodes.start("client", server, options=["--mode", "client"])
        other = await nodes.start("other", server, options=["--mode", "client"])
        hybrid = await nodes.start("hybrid", server)

        members = await wait_members(server, linked("client", "other", "hybrid"))
        assert {name: peer.mode for name, peer in members.items()} == {
            "server": "server",
            "client": "client",
            "other": "client",
            "hybrid": "hybrid",
        }
        assert {name for name, peer in members.items() if not peer.addresses} == {"client", "other"}
        await wait_members(client, linked("server", "hybrid"))
        assert not (await wait_members(client, lambda members: "other" in members))["other"].linked
        await wait_members(hybrid, linked("server", "client", "other"))
        # Neither can dial the other: what goes between them goes through a common neighbour.
        await assert_carries(client, other)


async def test_two_nodes_that_only_accept_meet_through_one_that_dials_both(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        left = await nodes.start("left", options=["--mode", "server"])
        right = await nodes.start("right", options=["--mode", "server"])
        await nodes.start("between", left, right)

        members = await wait_members(left, lambda members: {"between", "right"} <= set(members))
        assert not members["right"].linked
        await assert_carries(left, right)


async def test_seeds_of_a_server_are_doubted_in_the_log(tmp_path: Path) -> None:
    async with nodes_in(tmp_path) as nodes:
        server = await nodes.start("server", "127.0.0.1:9", options=["--mode", "server"])

        assert "dials nobody" in await asyncio.to_thread(server.wait_line, "WARNING", stream="stderr")
