"""Finding nodes on the local network: over real multicast on loopback, and with a network that fails."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import InvalidSetting
from quicbus_broker import Broker, BrokerSettings, lan
from quicbus_broker.lan import SERVICE_TYPE, LanDiscovery, read_service
from tests.multicast import multicast_on_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MESH, OTHER_MESH = "ab" * 16, "cd" * 16
ME, PEER = b"\x01" * 16, b"\x02" * 16
SAID = {"mesh": MESH, "node": PEER.hex(), "v": "1", "name": "peer"}
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def multicast() -> None:
    if reason := multicast_on_loopback():
        pytest.skip(reason)


@pytest.fixture
def mesh() -> str:
    """A mesh of this test alone: others may run on this host at the same time."""
    return secrets.token_hex(16)


class Watched:
    """A node that looks for others on loopback, and what it found."""

    def __init__(self, mesh: str, port: int, *, is_dialed: bool = True) -> None:
        self.node = secrets.token_bytes(16)
        self.found: dict[bytes, tuple[str, ...]] = {}
        self._changed = asyncio.Event()
        self.discovery = LanDiscovery(
            mesh=mesh,
            node=self.node,
            name="n",
            bound=("127.0.0.1", port),
            on_found=self._on_found,
            is_dialed=is_dialed,
        )

    def _on_found(self, node: bytes, addresses: tuple[str, ...]) -> None:
        self.found[node] = addresses
        self._changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watched]:
        task = asyncio.create_task(self.discovery.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def wait_found(self, *others: Watched) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not {other.node for other in others} <= set(self.found):
                self._changed.clear()
                await self._changed.wait()


@pytest.mark.usefixtures("multicast")
async def test_two_nodes_of_a_mesh_find_each_other_and_nobody_else(mesh: str) -> None:
    elsewhere = secrets.token_hex(16)
    async with (
        Watched(mesh, 4001).running() as first,
        Watched(elsewhere, 4003).running() as stranger,
        Watched(elsewhere, 4004).running() as other_stranger,
        Watched(mesh, 4002).running() as second,
    ):
        await asyncio.gather(first.wait_found(second), second.wait_found(first))
        # By then these two have looked as long, and over the same sockets.
        await asyncio.gather(stranger.wait_found(other_stranger), other_stranger.wait_found(stranger))

        assert first.found == {second.node: ("127.0.0.1:4002",)}
        assert second.found == {first.node: ("127.0.0.1:4001",)}


@pytest.mark.usefixtures("multicast")
async def test_a_node_that_only_dials_finds_others_and_is_not_announced(mesh: str) -> None:
    async with (
        Watched(mesh, 4001, is_dialed=False).running() as client,
        Watched(mesh, 4002).running() as server,
        Watched(mesh, 4003).running() as third,
    ):
        await asyncio.gather(client.wait_found(server, third), third.wait_found(server), server.wait_found(third))

        assert client.node not in server.found
        assert client.node not in third.found


@pytest.mark.usefixtures("multicast")
async def test_what_was_found_is_offered_again(mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan, "REFRESH_S", 0.05)
    async with Watched(mesh, 4001).running() as first, Watched(mesh, 4002).running() as second:
        await first.wait_found(second)
        first.found.clear()
        await first.wait_found(second)


async def test_a_network_that_is_not_there_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = asyncio.Queue[None]()

    def fail(bound: str) -> None:
        tries.put_nowait(None)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(lan, "REFRESH_S", 0.01)
    monkeypatch.setattr(lan, "_open", fail)
    async with Watched(MESH, 4001).running(), asyncio.timeout(DEADLINE_S):
        for _ in range(4):
            await tries.get()

    (record,) = caplog.records
    assert "Network is unreachable" in record.getMessage()


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf.asyncio", None)

    with pytest.raises(InvalidSetting, match=r"discover: .*pip install 'quicbus\[lan\]'"):
        LanDiscovery(mesh=MESH, node=ME, name="n", bound=("127.0.0.1", 1), on_found=lambda *_: None)


async def test_a_broker_without_the_extra_makes_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf.asyncio", None)

    with pytest.raises(InvalidSetting, match=r"pip install 'quicbus\[lan\]'"):
        async with Broker(BrokerSettings(discover=True, data_dir=data_dir, listen="127.0.0.1:0")):
            pass
    assert not data_dir.exists()  # noqa: ASYNC240 (nothing else runs)


def test_a_node_of_this_mesh_is_read() -> None:
    read = read_service(SAID, ["192.168.1.7", "fd00::7", "fe80::7"], 4433, mesh=MESH, me=ME)

    assert read == (PEER, ("192.168.1.7:4433", "[fd00::7]:4433"))


@pytest.mark.parametrize(
    "changed",
    [
        {"mesh": OTHER_MESH},
        {"mesh": None},
        {"node": ME.hex()},
        {"node": "zz"},
        {"node": "ab"},
        {"node": None},
        {"v": "2"},
        {"v": ""},
    ],
)
def test_this_node_other_meshes_versions_and_nonsense_are_left_alone(changed: dict[str, str | None]) -> None:
    assert read_service({**SAID, **changed}, ["192.168.1.7"], 4433, mesh=MESH, me=ME) is None


@pytest.mark.parametrize(("addresses", "port"), [([], 1), (["0.0.0.0"], 1), (["::1"], None), (["::1"], 0), (["a"], 1)])
def test_a_service_that_cannot_be_dialed_is_left_alone(addresses: list[str], port: int | None) -> None:
    assert read_service(SAID, addresses, port, mesh=MESH, me=ME) is None


def test_the_type_of_the_service_is_one_of_dns_sd() -> None:
    application, protocol = SERVICE_TYPE.split(".")[:2]
    assert (len(application) <= 16, protocol) == (True, "_udp")  # RFC 6763, section 7
