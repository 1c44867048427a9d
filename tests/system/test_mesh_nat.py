"""A node behind an address translator learns from others where it is reached, and says so to all; in one process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Literal

import pytest

from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.transport.connection import shown_address
from quicbus_broker import Broker, BrokerSettings, addresses, dial_back, reachability
from tests.conftest import ENGINES
from tests.system.buses import DEADLINE_S
from tests.waiting import eventually, eventually_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from quicbus.transport.connection import Address

Engine = Literal["aioquic", "qh3"]
PAIRINGS = [(outside, inside) for outside in ENGINES for inside in ENGINES]


class Translator:
    """A NAT before one host: it gets one port outside. Each outside host appears inside under an address of its own.

    `is_open`: whoever sends to that port gets through; otherwise only those that the inner host has sent to.
    """

    def __init__(self, first: Address, *, is_open: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_open = is_open
        self._inner: Address | None = None
        self._outer = _udp()
        self._inside_of: dict[Address, socket.socket] = {}
        self.outside: Address = self._outer.getsockname()
        self.refused = 0
        self._loop.add_reader(self._outer, self._from_outside)
        self.inside: Address = self._appear(first).getsockname()
        """Where the inner host finds `first`."""

    @classmethod
    @contextlib.contextmanager
    def before(cls, first: Address, *, is_open: bool) -> Iterator[Translator]:
        translator = cls(first, is_open=is_open)
        try:
            yield translator
        finally:
            for udp in (translator._outer, *translator._inside_of.values()):
                translator._loop.remove_reader(udp)
                udp.close()

    def _appear(self, host: Address) -> socket.socket:
        udp = self._inside_of[host] = _udp()
        self._loop.add_reader(udp, self._from_inside, udp, host)
        return udp

    def _from_inside(self, udp: socket.socket, host: Address) -> None:
        with contextlib.suppress(OSError):
            datagram, self._inner = udp.recvfrom(65_535)
            self._outer.sendto(datagram, host)

    def _from_outside(self) -> None:
        with contextlib.suppress(OSError):
            datagram, host = self._outer.recvfrom(65_535)
            if host not in self._inside_of and not self._is_open:
                self.refused += 1
                return
            udp = self._inside_of.get(host) or self._appear(host)
            if self._inner is not None:
                udp.sendto(datagram, self._inner)


def _udp() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind(("127.0.0.1", 0))
    return udp


@pytest.fixture(autouse=True)
def _loopback_is_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (addresses, reachability):
        monkeypatch.setattr(module, "is_for_others", lambda address: True)
    monkeypatch.setattr(reachability, "LOOK_AFTER_S", 0.1)


@contextlib.asynccontextmanager
async def node(folder: Path, authority: Authority, name: str, engine: Engine, *seeds: str) -> AsyncIterator[Broker]:
    prepare_node_folder(authority, name, folder / name)
    settings = BrokerSettings(data_dir=folder / name, listen="127.0.0.1:0", seed=seeds, engine=engine)
    async with Broker(settings) as broker:
        yield broker


async def wait_addresses(broker: Broker, name: str, expected: tuple[str, ...]) -> None:
    """Wait until a node says of another that these are its addresses."""
    await eventually_told(
        broker.bus.peers, lambda peers: {peer.name: peer.addresses for peer in peers}.get(name) == expected
    )


@pytest.mark.parametrize(("outside", "inside"), PAIRINGS)
async def test_a_node_that_is_reached_where_it_was_seen_says_so_to_all(
    outside: Engine, inside: Engine, tmp_path: Path
) -> None:
    authority = Authority.create()
    async with asyncio.timeout(DEADLINE_S), node(tmp_path, authority, "open", outside) as first:
        with Translator.before(first.address, is_open=True) as nat:
            async with node(tmp_path, authority, "hidden", inside, shown_address(nat.inside)) as hidden:
                expected = (shown_address(hidden.address), shown_address(nat.outside))
                await wait_addresses(first, "hidden", expected)
                assert hidden.advertised == expected


async def test_a_node_that_is_not_reached_there_does_not(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_back, "TIMEOUT_S", 0.5)
    authority = Authority.create()
    async with asyncio.timeout(DEADLINE_S), node(tmp_path, authority, "open", engine) as first:
        with Translator.before(first.address, is_open=False) as nat:
            async with node(tmp_path, authority, "hidden", engine, shown_address(nat.inside)) as hidden:
                await eventually(lambda: nat.refused)
                assert hidden.advertised == (shown_address(hidden.address),)
