"""Redis pub/sub with TLS, through redis-py with hiredis."""

from __future__ import annotations

import contextlib
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.peers.certificates import write_certificates
from benchmarks.peers.programs import find_program, output_of, wait_port, why_missing
from benchmarks.peers.seam import Bus, Peer, Server, Take, Where, free_port
from quicbus.testing.launcher import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["RedisBus", "redis_peers"]

_PIPELINE_MESSAGES = 256
_PIPELINE_SIZE = 256 * 1024
_POOL_CONNECTIONS = 8


def redis_peers() -> list[Peer]:
    missing, versions = why_missing({"redis": "redis", "hiredis": "hiredis"}, "redis-server"), {}
    if not missing:
        said = output_of("redis-server", "--version").split()
        number = next((word[2:] for word in said if word.startswith("v=")), "unknown")
        versions = {"redis-server": number, "redis-py": version("redis"), "hiredis": version("hiredis")}
    return [Peer(name="Redis/TLS", start=_start, missing=missing, versions=versions)]


@contextlib.contextmanager
def _start(folder: Path) -> Iterator[list[Server]]:
    program = find_program("redis-server")
    assert program is not None
    files = write_certificates(folder)
    port = free_port()
    # Subscribers that fall behind are not cut off; nothing is written to the disk.
    (folder / "redis.conf").write_text(
        f'bind 127.0.0.1\nport 0\ntls-port {port}\ntls-auth-clients no\nsave ""\nappendonly no\ndir {folder}\n'
        f"tls-ca-cert-file {files.authority}\ntls-cert-file {files.certificate}\ntls-key-file {files.key}\n"
        "client-output-buffer-limit pubsub 0 0 0\nmaxclients 12000\n"
    )
    begin = time.monotonic()
    with Launched([program, str(folder / "redis.conf")], own_session=True) as process:
        wait_port(process, port)
        where = Where(
            bus="benchmarks.peers.redis_peer:RedisBus",
            url="127.0.0.1",
            port=port,
            authority=str(files.authority),
        )
        yield [Server(where, process, time.monotonic() - begin)]


class RedisBus(Bus):
    """PUBLISH has an answer: many are published in a pipeline, single ones by themselves. Redis has no levels."""

    separator = ":"
    any_level = "*"

    async def open(self) -> None:
        from redis import asyncio as redis  # an extra: only the processes that use it need it

        # Each call takes a connection: with no bound, fifty requests at once would open fifty.
        pool = redis.BlockingConnectionPool(
            max_connections=_POOL_CONNECTIONS,
            timeout=60,
            connection_class=redis.SSLConnection,
            host=self.where.url,
            port=self.where.port,
            ssl_ca_certs=self.where.authority,
            socket_timeout=60,
            socket_connect_timeout=60,
        )
        self._client: Any = redis.Redis.from_pool(pool)
        await self._client.ping()
        self._pipeline: Any = self._client.pipeline(transaction=False)
        self._waiting = self._waiting_size = 0
        self._reader: Any = None

    async def close(self) -> None:
        await self.end_tasks()
        await self._client.aclose()

    async def publish(self, topic: str, payload: bytes) -> None:
        self._pipeline.publish(topic, payload)
        self._waiting += 1
        self._waiting_size += len(payload)
        if self._waiting >= _PIPELINE_MESSAGES or self._waiting_size >= _PIPELINE_SIZE:
            await self.flush()

    async def publish_now(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload)

    async def flush(self) -> None:
        if self._waiting:
            self._waiting = self._waiting_size = 0
            await self._pipeline.execute()

    async def subscribe(self, topic: str, take: Take) -> None:
        def on_message(message: Any) -> None:
            take(message["data"])

        is_first = self._reader is None
        if is_first:
            self._reader = self._client.pubsub(ignore_subscribe_messages=True)
        if self.any_level in topic:
            await self._reader.psubscribe(**{topic: on_message})
        else:
            await self._reader.subscribe(**{topic: on_message})
        if is_first:
            self.start(self._read())

    async def _read(self) -> None:
        async for _ in self._reader.listen():
            pass  # handlers have taken it
