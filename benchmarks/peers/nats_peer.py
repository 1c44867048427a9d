"""NATS: nats-server with TLS, alone or as a cluster of two; nats-py by callback, its faster way."""

from __future__ import annotations

import contextlib
import ssl
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.peers.certificates import Certificates, write_certificates
from benchmarks.peers.programs import find_program, output_of, why_missing
from benchmarks.peers.seam import Bus, Peer, Server, Take, Where, free_port
from quicbus.testing.launcher import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["NatsBus", "nats_peers"]


def nats_peers() -> list[Peer]:
    missing, versions = why_missing({"nats-py": "nats"}, "nats-server"), {}
    if not missing:
        said = output_of("nats-server", "--version")
        versions = {"nats-server": said.split()[-1].removeprefix("v"), "nats-py": version("nats-py")}
    return [Peer(name="NATS/TLS", start=_start_one, start_two=_start_two, missing=missing, versions=versions)]


@contextlib.contextmanager
def _start_one(folder: Path) -> Iterator[list[Server]]:
    with _run(folder, "nats", write_certificates(folder), "") as server:
        yield [server]


@contextlib.contextmanager
def _start_two(folder: Path) -> Iterator[list[Server]]:
    """A route between them, TLS on clients and routes."""
    files = write_certificates(folder)
    ports = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            cluster = (
                f'cluster {{ name: bench, listen: "127.0.0.1:{port}", no_advertise: true, '
                f'routes: ["nats-route://127.0.0.1:{ports[1 - number]}"], '
                f'tls {{ cert_file: "{files.certificate}", key_file: "{files.key}", '
                f'ca_file: "{files.authority}" }} }}\n'
            )
            servers.append(stack.enter_context(_run(folder, f"nats{number}", files, cluster)))
        yield servers


@contextlib.contextmanager
def _run(folder: Path, name: str, files: Certificates, more: str) -> Iterator[Server]:
    program = find_program("nats-server")
    assert program is not None
    # The outbox of a subscriber may hold the whole load: NATS disconnects slow ones, and nothing shall be lost.
    (folder / f"{name}.conf").write_text(
        f"server_name: {name}\nhost: 127.0.0.1\nport: {free_port()}\nmax_pending: 2GB\nwrite_deadline: 60s\n"
        f'tls {{ cert_file: "{files.certificate}", key_file: "{files.key}" }}\n{more}'
    )
    begin = time.monotonic()
    with Launched([program, "-c", str(folder / f"{name}.conf")], own_session=True) as process:
        listening = process.wait_line("Listening for client connections on", stream="stderr")
        address = listening.rsplit(" ", 1)[-1].strip()
        process.wait_line("Server is ready", stream="stderr")
        where = Where(bus="benchmarks.peers.nats_peer:NatsBus", url=f"tls://{address}", authority=str(files.authority))
        yield Server(where, process, time.monotonic() - begin)


class NatsBus(Bus):
    separator = "."
    any_level = "*"

    async def open(self) -> None:
        import nats  # an extra: only the processes that use it need it

        context = ssl.create_default_context(cafile=self.where.authority)
        self._client: Any = await nats.connect(self.where.url, tls=context, connect_timeout=60)
        self.publish = self._client.publish  # type: ignore[method-assign]  # the same, without a call more

    async def close(self) -> None:
        await self._client.close()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload)

    async def flush(self) -> None:
        await self._client.flush(60)

    async def subscribe(self, topic: str, take: Take) -> None:
        async def on_message(message: Any) -> None:
            take(message.data)

        await self._subscribe(topic, on_message)

    async def forward(self, source: str, target: str) -> None:
        async def on_message(message: Any) -> None:
            await self._client.publish(target, message.data)

        await self._subscribe(source, on_message)

    async def serve(self, topic: str) -> None:
        async def on_message(message: Any) -> None:
            await message.respond(message.data)

        await self._subscribe(topic, on_message)

    async def request(self, topic: str, payload: bytes) -> bytes:
        reply = await self._client.request(topic, payload, timeout=10)
        return bytes(reply.data)

    async def _subscribe(self, topic: str, on_message: Any) -> None:
        # Without limits nats-py drops nothing here; by default it keeps 524,288 messages.
        await self._client.subscribe(topic, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0)
        await self._client.flush(60)
