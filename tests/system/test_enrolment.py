"""Joining by token and renewing over the network, with real processes: as README shows it, and where it can't work."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.identity import Authority, Credential, DataFolder, IssuedLog, load_authority, prepare_node_folder
from quicbus.testing.launcher import BrokerProcess, Ended, run_quicbus
from tests.conftest import ENGINES
from tests.identity.aged import aged_folder
from tests.system.buses import DEADLINE_S
from tests.system.nodes import linked, on, wait_members
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC)
FIRST_ENGINE, SECOND_ENGINE = ENGINES[0], ENGINES[-1]


@pytest.fixture
def first(tmp_path: Path) -> Iterator[BrokerProcess]:
    """The first broker of a mesh, which has the authority's key; the authority is 100 days old."""
    folder = tmp_path / "first"
    DataFolder.open(folder, may_create_authority=True, now=NOW - dt.timedelta(days=100)).close()
    with BrokerProcess(data_dir=folder, engine=FIRST_ENGINE) as process:
        yield process


def token(first: BrokerProcess, *options: str) -> str:
    """Make a token as people do, beside the broker that runs."""
    ended = run_quicbus("token", "create", *options, environment=first.environment)
    assert ended.code == 0, ended
    return ended.stdout.strip()


def enroll(text: str, cwd: Path, *options: str, engine: str = FIRST_ENGINE) -> Ended:
    return run_quicbus("cert", "enroll", text, *options, cwd=cwd, environment={"QUICBUS_ENGINE": engine})


def joining(folder: Path, given: str) -> Ended:
    """Run a broker that joins, where it ends by itself."""
    return run_quicbus("broker", "--data-dir", str(folder), "--listen", "127.0.0.1:0", "--join", given)


async def test_a_machine_joins_in_three_commands_and_a_client_enrols_at_it(
    first: BrokerProcess, tmp_path: Path
) -> None:
    text, file = token(first, "--name", "tokyo"), tmp_path / "token"
    file.write_text(text + "\n")
    options = ["--join", str(file)]
    with BrokerProcess(data_dir=tmp_path / "second", engine=SECOND_ENGINE, options=options) as second:
        assert second.ready["name"] == "tokyo"
        assert second.ready["seeds"] == [first.address]
        assert second.ready["entered"].startswith("joined mesh ")
        async with asyncio.timeout(DEADLINE_S):
            await wait_members(second, linked(first.ready["name"]))
            of_client = token(first, "--role", "client", "--name", "alice", "--seed", second.address)
            ended = await asyncio.to_thread(enroll, of_client, tmp_path, "--json", engine=SECOND_ENGINE)
            assert ended.code == 0, ended
            assert json.loads(ended.stdout)["brokers"][0] == second.url
            async with on(first) as there, there.subscribe("sensors/#") as messages:
                await messages.wait_spread()
                async with quicbus.connect(second.url, credentials=tmp_path / "alice.pem") as bus:
                    await bus.publish("sensors/kitchen", "21.5")
                    message = await messages.next(DEADLINE_S)
                    assert (message.text(), message.publisher) == ("21.5", "alice")
        again = enroll(of_client, tmp_path, "--out", "again.pem")
        assert again.code == 1
        assert "the join token was good for joining once and is used up" in again.stderr
        assert not (tmp_path / "again.pem").exists()
    third = joining(tmp_path / "third", text)
    assert (third.code, "is used up; ask for another one" in third.stderr) == (1, True), third
    assert not (tmp_path / "third").exists(), "the folder is left as it was found"
    # Its folder is that of a node now: the token, used up as it is, does not stand in the way of a further start.
    environment = {"QUICBUS_JOIN": text}
    with BrokerProcess(data_dir=tmp_path / "second", engine=SECOND_ENGINE, environment=environment) as second:
        assert "of node tokyo of this mesh already" in second.ready["entered"]
    other = tmp_path / "other"
    prepare_node_folder(Authority.create(), "lima", other)
    refused = joining(other, text)
    assert refused.code == 1
    assert "name another folder with --data-dir, or start without --join" in refused.stderr


async def test_without_the_authority_it_is_said_and_works_when_it_is_back(first: BrokerProcess, tmp_path: Path) -> None:
    with BrokerProcess(
        data_dir=tmp_path / "second", engine=SECOND_ENGINE, options=["--join", token(first, "--name", "tokyo")]
    ) as second:
        async with asyncio.timeout(DEADLINE_S):
            await wait_members(second, linked(first.ready["name"]))
            text = token(first, "--role", "client", "--name", "alice", "--seed", second.address)
            await asyncio.to_thread(first.stop)
            ended = await asyncio.to_thread(enroll, text, tmp_path)
            assert ended.code == 1
            assert "no node with the authority's key can be reached now; start the broker that has it" in ended.stderr
            with BrokerProcess(data_dir=first.data_dir, listen=first.address, engine=FIRST_ENGINE) as back:
                await wait_members(second, linked(back.ready["name"]))
                while (await asyncio.to_thread(enroll, text, tmp_path)).code:
                    await wait_members(second, linked(back.ready["name"]))
    assert Credential.load(tmp_path / "alice.pem").name == "alice"


def lives(path: Path) -> bool:
    certificate = Credential.from_pem(path.read_bytes(), allow_expired=True)
    return certificate.not_after > NOW + dt.timedelta(days=29)


async def test_nodes_renew_their_certificates_also_one_that_has_expired(first: BrokerProcess, tmp_path: Path) -> None:
    authority = load_authority(first.data_dir)
    expired = aged_folder(authority, tmp_path / "expired", "tokyo", 40)
    due = aged_folder(authority, tmp_path / "due", "lima", 29)
    with (
        BrokerProcess(data_dir=expired, engine=SECOND_ENGINE, seeds=[first.address]) as tokyo,
        BrokerProcess(data_dir=due, engine=FIRST_ENGINE, seeds=[first.address]) as lima,
    ):
        async with asyncio.timeout(DEADLINE_S):
            await eventually(lambda: all(lives(each / "credential.pem") for each in (expired, due)))
            await wait_members(tokyo, linked(first.ready["name"]))
            issued = IssuedLog(first.data_dir)
            await eventually(lambda: issued.find(tokyo.node) and issued.find(lima.node))


async def test_a_small_bound_on_messages_keeps_nobody_from_joining_and_renewing(
    first: BrokerProcess, tmp_path: Path
) -> None:
    small = ["--max-message-size", "20"]
    first.stop()
    due = aged_folder(load_authority(first.data_dir), tmp_path / "due", "lima", 29)
    with (
        BrokerProcess(data_dir=first.data_dir, engine=FIRST_ENGINE, options=small) as strict,
        BrokerProcess(data_dir=due, engine=SECOND_ENGINE, options=small, seeds=[strict.address]) as lima,
    ):
        async with asyncio.timeout(DEADLINE_S):
            await eventually(lambda: lives(due / "credential.pem"))
            await wait_members(lima, linked(strict.ready["name"]))
            text = token(strict, "--role", "client", "--name", "alice", "--seed", lima.address)
            ended = await asyncio.to_thread(enroll, text, tmp_path, engine=SECOND_ENGINE)
    assert ended.code == 0, ended
    assert Credential.load(tmp_path / "alice.pem").name == "alice"


@pytest.mark.parametrize("age_days", [29, 40], ids=["due", "expired"])
async def test_a_client_rewrites_its_file_while_its_session_goes_on(
    first: BrokerProcess, tmp_path: Path, age_days: int
) -> None:
    path = tmp_path / "alice.pem"
    old = load_authority(first.data_dir).issue_client("alice", days=30, now=NOW - dt.timedelta(days=age_days))
    old.save(path)
    async with asyncio.timeout(DEADLINE_S):
        connecting = quicbus.connect(first.url, credentials=path, engine=SECOND_ENGINE)
        async with connecting as bus, bus.events() as events, bus.subscribe("a") as messages:
            await eventually(lambda: lives(path))
            await eventually(lambda: (bus.statistics().cert_expires_in_seconds or 0) > 29 * 86_400)
            await bus.publish("a", "still here")
            assert (await messages.next(DEADLINE_S)).text() == "still here"
            assert bus.statistics().reconnects == 0
        told = [event async for event in events]
        assert not [event for event in told if isinstance(event, quicbus.Gap | quicbus.Disconnected)]
        if age_days == 29:
            (renewed,) = [event for event in told if isinstance(event, quicbus.CredentialRenewed)]
            assert renewed.path == str(path)
    assert Credential.load(path).node_id == old.node_id
