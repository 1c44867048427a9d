"""Trust in a mesh of processes: keys are revoked and an authority follows another while nodes run, hang or are away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.identity.data_folder import load_authority, prepare_node_folder
from quicbus.testing.launcher import BrokerProcess, run_quicbus
from quicbus.wire.close_codes import CloseCode
from tests.conftest import ENGINES
from tests.system.buses import DEADLINE_S
from tests.system.nodes import free_port, linked, on, wait_members
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from quicbus.identity import Credential


class TrustedMesh:
    """The first node holds the authority; `cert` runs a command beside it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.nodes: dict[str, BrokerProcess] = {}

    @property
    def first(self) -> BrokerProcess:
        return self.nodes["first"]

    def client(self, name: str) -> Credential:
        return load_authority(self._folder / "first").issue_client(name)

    async def start(self, name: str, *seeds: str, listen: str = "127.0.0.1:0") -> BrokerProcess:
        path = self._folder / name
        if name != "first" and not path.exists():
            prepare_node_folder(load_authority(self._folder / "first"), name, path, issued_by=self._folder / "first")
        process = await asyncio.to_thread(
            BrokerProcess,
            data_dir=path,
            listen=listen,
            engine=ENGINES[len(self.nodes) % 2],
            seeds=list(seeds),
            options=["--name", name],
        )
        self.nodes[name] = self._stack.enter_context(process)
        return process

    async def cert(self, *arguments: str) -> None:
        ended = await asyncio.to_thread(run_quicbus, "cert", *arguments, "--data-dir", str(self._folder / "first"))
        assert ended.code == 0, ended.stderr


@contextlib.asynccontextmanager
async def trusted_mesh(folder: Path) -> AsyncIterator[TrustedMesh]:
    with contextlib.ExitStack() as stack:
        mesh = TrustedMesh(folder, stack)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await mesh.start("first")
                yield mesh
        except BaseException:
            for name, node in mesh.nodes.items():
                print(name, "".join(node.stderr_lines[-20:]))
            raise


async def test_a_revoked_client_loses_its_sessions_at_every_broker(tmp_path: Path) -> None:
    async with trusted_mesh(tmp_path) as mesh:
        second = await mesh.start("second", mesh.first.address)
        await wait_members(second, linked("first"))
        credential = mesh.client("alice")
        credential.save(tmp_path / "alice.pem")
        async with (
            quicbus.connect(second.url, credentials=mesh.client("bob")) as bob,
            quicbus.connect(second.url, credentials=credential) as alice,
            alice.subscribe("news") as messages,
        ):
            await mesh.cert("revoke", str(tmp_path / "alice.pem"))
            with pytest.raises(quicbus.CredentialRefused, match="the key of client alice was revoked") as refused:
                await messages.next(DEADLINE_S)
            assert refused.value.code == CloseCode.CREDENTIAL_REVOKED
            assert await bob.ping(DEADLINE_S) >= 0
            assert bob.statistics().reconnects == 0
        for node in mesh.nodes.values():
            with pytest.raises(quicbus.CredentialRefused, match="revoked"):
                await quicbus.connect(node.url, credentials=tmp_path / "alice.pem")


async def test_a_node_that_was_away_refuses_a_revoked_one_that_kept_running(tmp_path: Path) -> None:
    async with trusted_mesh(tmp_path) as mesh:
        address = f"127.0.0.1:{free_port()}"
        away = await mesh.start("away", mesh.first.address, listen=address)
        rogue = await mesh.start("rogue", mesh.first.address, address)
        await wait_members(rogue, linked("first", "away"))
        away.kill()
        await asyncio.to_thread(away.wait)
        os.kill(rogue.pid, signal.SIGSTOP)
        await mesh.cert("revoke", "node/rogue")
        await wait_members(mesh.first, lambda members: "rogue" not in members)

        away = await mesh.start("away", mesh.first.address, listen=address)
        await wait_members(away, linked("first"))
        await wait_members(away, lambda members: "rogue" not in members)
        mesh.first.kill()
        os.kill(rogue.pid, signal.SIGCONT)
        ended = await asyncio.to_thread(rogue.wait, DEADLINE_S)
        assert ended.code == 1
        assert "the key of this node, rogue" in ended.stderr
        assert set(await wait_members(away, bool)) == {"first", "away"}


async def test_one_authority_follows_another_and_nothing_is_lost(tmp_path: Path) -> None:
    async with trusted_mesh(tmp_path) as mesh:
        second = await mesh.start("second", mesh.first.address)
        await wait_members(second, linked("first"))
        async with on(mesh.first) as there, on(second) as here, there.subscribe("count") as messages:
            await messages.wait_spread()
            is_over = asyncio.Event()

            async def publish() -> int:
                sent = 0
                while not is_over.is_set():
                    await here.publish("count", b"%d" % sent)
                    sent += 1
                    await asyncio.sleep(0.01)  # its rate
                await here.flush()
                return sent

            publishing = asyncio.create_task(publish())
            await mesh.cert("rotate", "--overlap", "0")
            authorities = tmp_path / "second" / "authority.pem"
            await eventually(lambda: authorities.read_bytes().count(b"BEGIN CERTIFICATE") == 2)
            newer = mesh.client("newer")
            third = await mesh.start("third", second.address)
            await wait_members(third, linked("first", "second"))
            async with quicbus.connect(second.url, credentials=newer) as bus:
                assert await bus.ping(DEADLINE_S) >= 0
            is_over.set()
            sent = await publishing
            got = [int((await messages.next(DEADLINE_S)).payload) for _ in range(sent)]
            assert got == list(range(sent))
            assert [bus.statistics().reconnects for bus in (there, here)] == [0, 0]
