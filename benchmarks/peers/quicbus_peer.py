"""quicbus: a broker on one of its engines, with the default settings."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks.peers.seam import Bus, Peer, Server, Take, Where
from quicbus.compiled import is_compiled
from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.testing.launcher import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import quicbus

__all__ = ["QuicbusBus", "quicbus_peers"]

# All clients of a crowd come from 127.0.0.1: the bounds of one address are not what is measured.
_CROWD = ("--max-connections-per-address", "10000", "--max-handshakes-per-address", "10000")


def quicbus_peers() -> list[Peer]:
    """Both engines, and both with smaller datagrams than loopback takes."""
    return [
        _peer("quicbus qh3", "qh3", None),
        _peer("quicbus aioquic", "aioquic", None),
        _peer("quicbus qh3, 1,440-byte datagrams", "qh3", 1440, cases="datagrams held"),
        _peer("quicbus aioquic, 1,200-byte datagrams", "aioquic", 1200, cases="datagrams held"),
    ]


def _peer(name: str, engine: str, datagram_size: int | None, cases: str = "") -> Peer:
    is_there = importlib.util.find_spec(engine) is not None

    def start(folder: Path) -> contextlib.AbstractContextManager[Sequence[Server]]:
        return _run(folder, engine, datagram_size, 1)

    def start_two(folder: Path) -> contextlib.AbstractContextManager[Sequence[Server]]:
        return _run(folder, engine, datagram_size, 2)

    def start_crowd(folder: Path) -> contextlib.AbstractContextManager[Sequence[Server]]:
        return _run(folder, engine, datagram_size, 1, _CROWD)

    return Peer(
        name=name,
        start=start,
        start_two=start_two,
        start_crowd=start_crowd,
        missing="" if is_there else f"{engine} is not installed (pip install '.[fast]')",
        versions={package: version(package) for package in ("quicbus", engine, "uvloop") if _has(package)}
        | {"quicbus modules": "compiled" if is_compiled() else "not compiled"},
        cases=cases,
    )


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@contextlib.contextmanager
def _run(
    folder: Path, engine: str, datagram_size: int | None, count: int, options: Sequence[str] = ()
) -> Iterator[list[Server]]:
    """Run `count` brokers of one mesh. Certificates are made before, as those of the other peers are."""
    authority = Authority.create()
    held = ["--max-datagram-size", str(datagram_size)] if datagram_size else []
    servers: list[Server] = []
    with contextlib.ExitStack() as stack:
        seeds: list[str] = []
        for number in range(count):
            data_dir = folder / f"node-{number}"
            prepare_node_folder(authority, f"node-{number}", data_dir)
            begin = time.monotonic()
            broker = stack.enter_context(
                BrokerProcess(
                    engine=engine, data_dir=data_dir, own_session=True, seeds=seeds, options=[*held, *options]
                )
            )
            started_s = time.monotonic() - begin
            seeds.append(broker.address)
            where = Where(
                bus="benchmarks.peers.quicbus_peer:QuicbusBus",
                url=broker.url,
                authority=str(broker.credential_path),
                options={"engine": engine, "datagram_size": str(datagram_size or "")},
            )
            servers.append(Server(where, broker, started_s))
        yield servers


class QuicbusBus(Bus):
    """Read by `async for`, back-pressure up to the publisher."""

    async def open(self) -> None:
        import quicbus
        from quicbus.transport import endpoint

        if size := self.where.options["datagram_size"]:
            # There is no such setting of clients: what their path takes they find out.
            endpoint.NEAR_DATAGRAM_SIZE = int(size)
        self._client = await quicbus.connect(
            self.where.url,
            credentials=self.where.authority,
            engine=self.where.options["engine"],
            connect_timeout_s=60,
        )
        self.publish = self._client.publish  # type: ignore[method-assign]  # the same, without a call more
        self._subscriptions = contextlib.AsyncExitStack()

    async def close(self) -> None:
        await self.end_tasks()
        await self._client.close()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload)

    async def flush(self) -> None:
        await self._client.flush()

    async def subscribe(self, topic: str, take: Take) -> None:
        subscription = await self._entered(topic)

        async def read() -> None:
            async for message in subscription:
                take(message.payload)

        self.start(read())

    async def forward(self, source: str, target: str) -> None:
        subscription = await self._entered(source)

        async def read() -> None:
            async for message in subscription:
                await self._client.publish(target, message.payload)

        self.start(read())

    async def serve(self, topic: str) -> None:
        subscription = await self._entered(topic)

        async def read() -> None:
            async for message in subscription:
                await message.reply(message.payload)

        self.start(read())

    async def request(self, topic: str, payload: bytes) -> bytes:
        return (await self._client.request(topic, payload)).payload

    async def _entered(self, topic: str) -> quicbus.Subscription:
        return await self._subscriptions.enter_async_context(self._client.subscribe(topic, overflow="block"))
