"""What a flood of Initials costs a broker with each setting of `retry`: `python -m benchmarks.flood`.

The flood comes from hundreds of addresses of the loopback range, each datagram a genuine first flight (so that it is
accepted where nothing is demanded), while one client publishes to itself and another connects again and again. The
broker's processor time is told for what it does, latencies for what its clients notice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import pull_quic_header
from rich import box
from rich.console import Console
from rich.table import Table

import quicbus
from quicbus.identity import Credential
from quicbus.process import ended_by_signals
from quicbus.testing.launcher import BrokerProcess
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.frames import ALPN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

ADDRESSES = 200
BURST_S = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5000, help="Initials a second; 0: none")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--engine", choices=["aioquic", "qh3"], action="append")
    parser.add_argument("--retry", choices=["always", "auto", "never"], action="append")
    parser.add_argument("--quiet", action="store_true", help="measure without a flood too")
    options = parser.parse_args()
    table = Table(
        "engine", "retry", "Initials/s", "CPU %", "p50 ms", "p99 ms", "connect ms", "answered", box=box.SIMPLE
    )
    with ended_by_signals():
        for engine in options.engine or ["qh3", "aioquic"]:
            for retry in options.retry or ["always", "auto", "never"]:
                for rate in [0, options.rate] if options.quiet else [options.rate]:
                    table.add_row(engine, retry, *asyncio.run(measure(engine, retry, rate, options.seconds)))
    Console().print(table)


async def measure(engine: str, retry: str, rate: int, seconds: float) -> list[str]:
    with (
        tempfile.TemporaryDirectory() as folder,
        BrokerProcess(data_dir=Path(folder) / "data", engine=engine, options=["--retry", retry]) as broker,
        flood(broker, rate) as sent,
    ):
        return await _measure(broker, seconds, sent)


async def _measure(broker: BrokerProcess, seconds: float, sent: list[int]) -> list[str]:
    url = f"quic://{broker.address}"
    process = psutil.Process(broker.pid)
    latencies: list[float] = []
    connects: list[float] = []
    async with quicbus.connect(url, credentials=broker.credential_path) as bus, bus.subscribe("probe") as messages:
        await asyncio.sleep(1.5)  # until a flood that has begun was noticed
        times = process.cpu_times()
        began = time.monotonic()
        connecting = asyncio.create_task(_connect_again_and_again(broker, connects))
        while time.monotonic() < began + seconds:
            at = time.perf_counter()
            await bus.publish("probe", bytes(128))
            await messages.next(30.0)
            latencies.append(1000 * (time.perf_counter() - at))
            await asyncio.sleep(0.002)
        passed = time.monotonic() - began
        used = process.cpu_times()
        connecting.cancel()
        await asyncio.wait((connecting,))
    cpu = 100 * (used.user + used.system - times.user - times.system) / passed
    cuts = statistics.quantiles(latencies, n=100)
    shown = f"{statistics.median(connects):.1f}" if connects else "none"
    return [
        f"{sent[0] if sent else 0:,}",
        f"{cpu:.0f}",
        f"{cuts[49]:.2f}",
        f"{cuts[98]:.2f}",
        shown,
        str(len(connects)),
    ]


async def _connect_again_and_again(broker: BrokerProcess, connects: list[float]) -> None:
    while True:
        at = time.perf_counter()
        with contextlib.suppress(quicbus.ConnectFailed):
            async with quicbus.connect(f"quic://{broker.address}", credentials=broker.credential_path):
                connects.append(1000 * (time.perf_counter() - at))
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def flood(broker: BrokerProcess, rate: int) -> Iterator[list[int]]:
    """Send Initials from a process of its own while inside; the list holds how many a second are asked for."""
    if not rate:
        yield []
        return
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    credential = str(broker.credential_path)
    sender = context.Process(target=send_initials, args=(broker.address, credential, rate, over), daemon=True)
    sender.start()
    try:
        yield [rate]
    finally:
        over.set()
        sender.join(10)


def send_initials(address: str, credential_path: str, rate: int, over: Event) -> None:
    host, port = address.rsplit(":", 1)
    credential = Credential.load(Path(credential_path))
    configuration = EngineConfiguration(
        is_client=True, alpn=ALPN, authority=credential.authority_pem, server_name=credential.server_name
    )
    sockets = []
    for number in range(ADDRESSES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((f"127.1.{number // 250}.{1 + number % 250}", 0))
        udp.setblocking(False)
        udp.connect((host, int(port)))
        sockets.append(udp)
    forger = InitialForger(configuration)
    began, count = time.monotonic(), 0
    while not over.is_set():
        due = int((time.monotonic() - began) * rate)
        for _ in range(due - count):
            with contextlib.suppress(OSError):
                sockets[count % ADDRESSES].send(forger.initial())
            count += 1
        time.sleep(BURST_S)


class InitialForger:
    """Makes genuine Initials, each with connection ids of its own and one and the same ClientHello: some 60 us each."""

    def __init__(self, configuration: EngineConfiguration) -> None:
        quic = engine_named("aioquic").dial(configuration)  # its ClientHello fits in one datagram
        quic.connect(0.0)
        flight = quic.datagrams_to_send(0.0)[0]
        buffer = Buffer(data=flight)
        header = pull_quic_header(buffer)
        crypto = CryptoPair()
        crypto.setup_initial(header.destination_cid, is_client=False, version=header.version or 1)
        self._header, self._payload, self._number = crypto.decrypt_packet(
            flight[: header.packet_length], buffer.tell(), 0
        )
        self._id_end = 6 + len(header.destination_cid)
        self._version = header.version or 1
        self._rest = flight[header.packet_length :]

    def initial(self) -> bytes:
        destination = os.urandom(self._id_end - 6)
        crypto = CryptoPair()
        crypto.setup_initial(destination, is_client=True, version=self._version)
        header = self._header[:6] + destination + self._header[self._id_end :]
        packet: bytes = crypto.encrypt_packet(header, self._payload, self._number)
        return packet + self._rest


if __name__ == "__main__":
    main()
