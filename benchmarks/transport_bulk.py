"""One bulk stream between two processes on loopback: what the endpoint and an engine carry, without broker or client.

python -m benchmarks.transport_bulk qh3 qh3 --size 600 --datagram-size 1440
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus.identity import Authority
from quicbus.transport.endpoint import Endpoint, EndpointSettings, Listener
from quicbus.transport.engine import EngineConfiguration, Terminated
from quicbus.transport.engines import engine_named
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.connection import Connection as Pipe

    from quicbus.transport.connection import Connection

ALPN = "quicbus/1"
CHUNK_SIZE = 64 * 1024
WINDOW_SIZE = 8 * 1024 * 1024
REPORT_SIZE = 8


@dataclass(frozen=True)
class Job:
    engine: str
    size: int
    datagram_size: int | None
    uvloop: bool
    configuration: EngineConfiguration

    @property
    def settings(self) -> EndpointSettings:
        return EndpointSettings(max_datagram_size=self.datagram_size)


class Sink:
    """Counts what arrives and reports it every quarter of a window."""

    def __init__(self, connection: Connection, size: int) -> None:
        self.connection = connection
        self.size = size
        self.received = self.reported = 0
        self.ended = asyncio.Event()

    def negotiated(self) -> None: ...

    def connected(self, channel_binding: bytes) -> None:
        self.connection.allow_undelivered(2 * WINDOW_SIZE)
        self.reports = self.connection.open_stream()

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        self.received += len(data)

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None:
        unreported = self.received - self.reported
        if unreported >= WINDOW_SIZE // 4 or (unreported and self.received >= self.size):
            self.reported = self.received
            self.connection.send(self.reports, self.received.to_bytes(REPORT_SIZE, "big"))

    def closed(self, termination: Terminated) -> None:
        self.ended.set()


class Source(Sink):
    """Keeps a window of bytes on their way."""

    def connected(self, channel_binding: bytes) -> None:
        super().connected(channel_binding)
        self.chunk = os.urandom(CHUNK_SIZE)
        self.sent = self.taken = 0
        self.began_at = time.perf_counter()
        self.partial = b""
        self.connection.transmit_soon()

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        data = self.partial + data
        whole = len(data) - len(data) % REPORT_SIZE
        self.partial = data[whole:]
        if whole:
            self.taken = int.from_bytes(data[whole - REPORT_SIZE : whole], "big")
        if self.taken >= self.size:
            self.duration_s = time.perf_counter() - self.began_at
            self.connection.close(CloseCode.GOODBYE, "")

    def before_transmit(self) -> None:
        while hasattr(self, "chunk") and self.sent < self.size and self.sent - self.taken < WINDOW_SIZE:
            self.connection.send(self.reports, self.chunk)
            self.sent += CHUNK_SIZE


async def receive(job: Job, pipe: Pipe) -> None:
    sinks: list[Sink] = []
    arrived = asyncio.Event()

    def make(connection: Connection) -> Sink:
        sinks.append(Sink(connection, job.size))
        arrived.set()
        return sinks[-1]

    endpoint = await Endpoint.open(
        bind=("127.0.0.1", 0),
        engine=engine_named(job.engine),
        settings=job.settings,
        listener=Listener(job.configuration, make),
    )
    async with endpoint:
        pipe.send(endpoint.address)
        await arrived.wait()
        await sinks[0].ended.wait()


async def send(job: Job, pipe: Pipe) -> None:
    sources: list[Source] = []

    def make(connection: Connection) -> Source:
        sources.append(Source(connection, job.size))
        return sources[-1]

    async with await Endpoint.open(bind=None, engine=engine_named(job.engine), settings=job.settings) as endpoint:
        endpoint.dial(pipe.recv(), job.configuration, make)
        await sources[0].ended.wait()
    pipe.send(sources[0].duration_s)


def work(role: Callable[[Job, Pipe], Awaitable[None]], job: Job, pipe: Pipe) -> None:
    async def run() -> None:
        await role(job, pipe)

    if job.uvloop:
        import uvloop

        uvloop.run(run())
    else:
        asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dialer", choices=["aioquic", "qh3"])
    parser.add_argument("listener", choices=["aioquic", "qh3"])
    parser.add_argument("--size", type=int, default=200, help="megabytes")
    parser.add_argument("--datagram-size", type=int, default=None)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    authority = Authority.create()
    node = authority.issue_node("bench")
    listening = EngineConfiguration(
        is_client=False, alpn=ALPN, certificate_chain=node.chain_pem, private_key=node.private_key_pem
    )
    dialing = EngineConfiguration(
        is_client=True, alpn=ALPN, authority=authority.certificate_pem, server_name=node.server_name
    )
    size = options.size * 10**6
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    there, back = context.Pipe()
    common = (size, options.datagram_size, options.uvloop)
    sink = context.Process(target=work, args=(receive, Job(options.listener, *common, listening), far))
    source = context.Process(target=work, args=(send, Job(options.dialer, *common, dialing), back))
    sink.start()
    source.start()
    there.send(near.recv())
    duration_s = there.recv()
    for process in (sink, source):
        process.join()
    print(f"{options.dialer} to {options.listener}: {size / duration_s / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
