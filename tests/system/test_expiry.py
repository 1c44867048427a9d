"""Nodes whose certificate ends while they run, with real processes: what works, how they come back, what they say."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

import quicbus
from quicbus.identity import Credential, DataFolder, load_authority, prepare_node_folder
from quicbus.testing.launcher import BrokerProcess, run_quicbus
from tests.conftest import ENGINES
from tests.identity.aged import aged_folder
from tests.system.buses import DEADLINE_S
from tests.system.nodes import free_port, linked, on, wait_members

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC)
DAY_S = 86_400.0
LEFT_S = 6.0
"""Of the certificate's life when its node is started, which takes a second or two."""


def authority_folder(tmp_path: Path) -> Path:
    """Make the data folder of a first node whose authority is 100 days old."""
    folder = tmp_path / "first"
    DataFolder.open(folder, may_create_authority=True, now=NOW - dt.timedelta(days=100)).close()
    return folder


async def test_a_node_that_expires_while_it_runs_is_renewed_and_a_member_again_without_a_restart(
    tmp_path: Path,
) -> None:
    folder = authority_folder(tmp_path)
    authority, address = load_authority(folder), f"127.0.0.1:{free_port()}"
    lima_folder = tmp_path / "lima"
    prepare_node_folder(authority, "lima", lima_folder)
    with BrokerProcess(data_dir=lima_folder, engine=ENGINES[0], seeds=[address]) as lima:
        aged = aged_folder(authority, tmp_path / "tokyo", "tokyo", 30 - LEFT_S / DAY_S)
        with BrokerProcess(data_dir=aged, engine=ENGINES[-1], seeds=[lima.address]) as tokyo:
            async with (
                asyncio.timeout(DEADLINE_S),
                quicbus.connect(tokyo.url, credentials=authority.issue_client("alice")) as alice,
                alice.subscribe("a") as messages,
            ):
                await asyncio.to_thread(tokyo.wait_line, "the node certificate has expired", stream="stderr")
                with BrokerProcess(data_dir=folder, listen=address, engine=ENGINES[0]) as first:
                    await asyncio.to_thread(tokyo.wait_line, "node certificate was renewed", stream="stderr")
                    await wait_members(tokyo, linked("lima"))
                    async with on(first) as bus:
                        await wait_members(first, lambda members: {"lima", "tokyo"} <= set(members))
                        await bus.publish("a", "back")
                        assert (await messages.next(DEADLINE_S)).text() == "back"
                assert alice.statistics().reconnects == 0


async def test_a_node_that_expired_too_long_ago_says_what_to_do_and_a_token_gives_its_key_another_certificate(
    tmp_path: Path,
) -> None:
    folder = authority_folder(tmp_path)
    aged = aged_folder(load_authority(folder), tmp_path / "tokyo", "tokyo", 61)
    environment = {"QUICBUS_DATA_DIR": str(aged), "QUICBUS_CREDENTIALS": str(aged / "credential.pem")}
    with BrokerProcess(data_dir=folder, engine=ENGINES[0]) as first:
        alone = await asyncio.to_thread(run_quicbus, "broker", "--listen", "127.0.0.1:0", environment=environment)
        assert alone.code == 1
        assert "no other node is known that could renew it; name one with --seed HOST:PORT" in alone.stderr
        start = ("broker", "--listen", "127.0.0.1:0", "--seed", first.address)
        refused = await asyncio.to_thread(run_quicbus, *start, environment=environment)
        assert refused.code == 1
        assert "so it can't be renewed; join again with a token, made with `quicbus token create`" in refused.stderr
        doctor = await asyncio.to_thread(run_quicbus, "doctor", first.url, environment=environment)
        assert doctor.code == 1
        assert "too long ago to renew it" in doctor.stdout
        made = await asyncio.to_thread(run_quicbus, "token", "create", "--name", "tokyo", environment=first.environment)
        options = ["--join", made.stdout.strip()]
        node_id = Credential.from_pem(
            (aged / "node-key.pem").read_bytes()
            + (aged / "node.pem").read_bytes()
            + (aged / "authority.pem").read_bytes(),
            allow_expired=True,
        ).node_id
        with BrokerProcess(data_dir=aged, engine=ENGINES[-1], options=options) as tokyo:
            assert tokyo.node == node_id.hex()
            async with asyncio.timeout(DEADLINE_S):
                await wait_members(tokyo, linked(first.ready["name"]))
