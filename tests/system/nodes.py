"""What the tests of a mesh of processes share: node folders of one authority, nodes, and waits for what members see."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from typing import TYPE_CHECKING, Any

import quicbus
from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.testing.launcher import BrokerProcess
from tests.conftest import ENGINES
from tests.system.buses import DEADLINE_S
from tests.waiting import eventually_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from quicbus.client.peers import Peer

__all__ = ["Nodes", "free_port", "linked", "nodes_in", "on", "wait_members"]


class Nodes:
    """Node processes of one mesh; the engines are given out in turn, so that they are mixed."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.create()
        self._folder = folder
        self._engines = itertools.cycle(ENGINES)
        self._stack = contextlib.ExitStack()

    def folder(self, name: str) -> Path:
        """The data folder of a node, with its certificate."""
        path = self._folder / name
        if not path.exists():
            prepare_node_folder(self.authority, name, path)
        return path

    async def start(
        self, name: str, *seeds: str | BrokerProcess, options: Sequence[str] = (), listen: str = "127.0.0.1:0"
    ) -> BrokerProcess:
        """Start a node, or start it again; without seeds it is the first of the mesh."""
        addresses = [seed if isinstance(seed, str) else seed.address for seed in seeds]
        process = await asyncio.to_thread(
            BrokerProcess,
            data_dir=self.folder(name),
            listen=listen,
            engine=next(self._engines),
            seeds=addresses,
            options=options,
        )
        return self._stack.enter_context(process)

    def close(self) -> None:
        self._stack.close()


@contextlib.asynccontextmanager
async def nodes_in(folder: Path) -> AsyncIterator[Nodes]:
    """Node processes below a folder, and `DEADLINE_S` for all that is done with them."""
    nodes = Nodes(folder)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield nodes
    finally:
        nodes.close()


@contextlib.asynccontextmanager
async def on(node: BrokerProcess, **options: Any) -> AsyncIterator[quicbus.Client]:
    """A client of a node, and of no other."""
    async with quicbus.connect(node.url, credentials=node.credential_path, engine=node.engine, **options) as bus:
        yield bus


async def wait_members(node: BrokerProcess, condition: Callable[[dict[str, Peer]], object]) -> dict[str, Peer]:
    """Ask a node for its members, by name, until `condition` holds for them."""

    async def members() -> dict[str, Peer]:
        return {peer.name: peer for peer in await bus.peers()}

    async with on(node) as bus:
        return await eventually_told(members, condition)


def linked(*names: str) -> Callable[[dict[str, Peer]], bool]:
    """A condition: these are alive, and the node that is asked has a link to each of them."""
    return lambda members: all(
        name in members and members[name].linked and members[name].state == "alive" for name in names
    )


def free_port() -> int:
    """Return a UDP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port: int = udp.getsockname()[1]
        return port
