"""zenoh: its router in a process of its own, over TCP, TLS and QUIC; no shared memory, nothing may be dropped."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.peers.certificates import write_certificates
from benchmarks.peers.programs import why_missing
from benchmarks.peers.seam import Bus, Peer, Server, Take, Where, free_port
from quicbus.testing.launcher import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["ZenohBus", "zenoh_peers"]


def zenoh_peers() -> list[Peer]:
    missing = why_missing({"eclipse-zenoh": "zenoh"})
    versions = {} if missing else {"eclipse-zenoh": version("eclipse-zenoh")}
    return [
        Peer(
            name=f"zenoh/{protocol.upper()}",
            start=functools.partial(_start, protocol, 1),
            start_two=functools.partial(_start, protocol, 2),
            missing=missing,
            versions=versions,
        )
        for protocol in ("tcp", "tls", "quic")
    ]


@contextlib.contextmanager
def _start(protocol: str, count: int, folder: Path) -> Iterator[Sequence[Server]]:
    files = write_certificates(folder)
    tls = {
        "root_ca_certificate": str(files.authority),
        "listen_certificate": str(files.certificate),
        "listen_private_key": str(files.key),
    }
    servers: list[Server] = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            port = free_port(socket.SOCK_DGRAM if protocol == "quic" else socket.SOCK_STREAM)
            url = f"{protocol}/localhost:{port}"
            endpoints = {"listen": [f"{protocol}/127.0.0.1:{port}"], "connect": [s.where.url for s in servers]}
            command = [sys.executable, "-m", "benchmarks.peers.zenoh_router", _config("router", endpoints, tls)]
            begin = time.monotonic()
            router = stack.enter_context(Launched(command, own_session=True))
            router.wait_line("ready")
            started_s = time.monotonic() - begin
            where = Where(bus="benchmarks.peers.zenoh_peer:ZenohBus", url=url, authority=str(files.authority))
            servers.append(Server(where, router, started_s))
        yield servers


def _config(mode: str, endpoints: dict[str, list[str]], tls: dict[str, str]) -> str:
    config = {
        "mode": mode,
        **{way: {"endpoints": urls} for way, urls in endpoints.items()},
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
        "transport": {
            "shared_memory": {"enabled": False},
            "unicast": {"max_sessions": 12_000, "accept_pending": 1000},  # 1,000 and 100 by default
            "link": {"tls": tls},
        },
    }
    return json.dumps(config)


class ZenohBus(Bus):
    any_level = "*"

    async def open(self) -> None:
        import zenoh  # an extra: only the processes that use it need it

        self._zenoh: Any = zenoh
        tls = {"root_ca_certificate": self.where.authority}
        config = zenoh.Config.from_json5(_config("client", {"connect": [self.where.url]}, tls))
        self._session: Any = await asyncio.to_thread(zenoh.open, config)
        self._publishers: dict[str, Any] = {}
        self._declared: list[Any] = []
        self.put = self._put

    async def close(self) -> None:
        await asyncio.to_thread(self._session.close)

    async def prepare(self, topics: Sequence[str]) -> None:
        """Declare publishers, zenoh's way to publish often."""
        for topic in topics:
            self._publisher(topic)

    def _publisher(self, topic: str) -> Any:
        # By default zenoh drops what a full queue does not take.
        block = self._zenoh.CongestionControl.BLOCK
        put = self._publishers[topic] = self._session.declare_publisher(topic, congestion_control=block)
        return put

    def _put(self, topic: str, payload: bytes) -> None:
        publisher = self._publishers.get(topic) or self._publisher(topic)
        publisher.put(payload)

    async def publish(self, topic: str, payload: bytes) -> None:
        self._put(topic, payload)

    async def subscribe(self, topic: str, take: Take) -> None:
        def on_sample(sample: Any) -> None:
            take(sample.payload.to_bytes())

        self._declared.append(self._session.declare_subscriber(topic, on_sample))

    async def serve(self, topic: str) -> None:
        def on_query(query: Any) -> None:
            query.reply(topic, query.payload.to_bytes())

        self._declared.append(self._session.declare_queryable(topic, on_query))

    async def request(self, topic: str, payload: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def on_reply(reply: Any) -> None:
            if reply.ok is not None:
                loop.call_soon_threadsafe(_settle, answer, reply.ok.payload.to_bytes())

        self._session.get(topic, on_reply, payload=payload)
        return await asyncio.wait_for(answer, 10)


def _settle(answer: asyncio.Future[bytes], value: bytes) -> None:
    if not answer.done():
        answer.set_result(value)
