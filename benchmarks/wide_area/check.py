"""Measures the path itself with plain sockets, and compares it with what it was told to be."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.wide_area.forwarder import PathSettings
from benchmarks.wide_area.link import LinkSettings
from benchmarks.wide_area.path import WideAreaPath, open_path
from quicbus_cli.bench_workers import percentile

if TYPE_CHECKING:
    from benchmarks.wide_area.namespaces import Namespace

__all__ = ["Finding", "check_path"]

PORT = 7007
SO_RCVBUFFORCE = 33
"""Linux, asm-generic/socket.h: above the limit of the system, as root may."""
SILENCE_S = 1.0
"""After this long without a packet the rest is lost."""
BURST = 20
CHECKED_PACKETS_PER_S = 20_000
CHECKED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One measurement: what it should be, what it is, and whether that is near enough."""

    name: str
    wanted: str
    measured: str
    is_good: bool


def check_path() -> list[Finding]:
    """Measure a path in about twenty seconds."""
    return [*_check_round_trips(), *_check_loss(), *_check_order(), *_check_rate(), *_check_packets()]


def _check_round_trips() -> list[Finding]:
    link = LinkSettings(delay_ms=20)
    with open_path(PathSettings(to_broker=link, to_client=link)) as path:
        before = _round_trips(path, 50, path.broker_address)
        path.move_client()
        after = _round_trips(path, 50, path.loopback_address)
        late = path.statistics()["late_us"]
    good = all(40.0 <= percentile(times, 0.5) < 41.5 for times in (before, after))
    shown = " and ".join(f"{percentile(times, 0.5):.2f} ms" for times in (before, after))
    return [
        Finding(
            "round trip of 2 x 20 ms, median, and to loopback once the client has moved", "40 to 41.5 ms", shown, good
        ),
        Finding("delay exceeded, p99", "< 1,000 us", f"{late['p99']:,} us", late["p99"] < 1000),
    ]


def _check_loss() -> list[Finding]:
    count = 10_000
    with open_path(PathSettings(to_broker=LinkSettings(delay_ms=1, loss=0.03), seed=1)) as path:
        arrived = len(_one_way(path, count, packets_per_s=10_000))
        counters = path.statistics()["to_broker"]
    lost = count - arrived
    agrees = lost == counters["lost"] and not counters["overflowed"]
    wanted = "2.5 to 3.5 %, all counted"
    return [Finding("loss of 3 %", wanted, f"{lost / count:.2%}", agrees and 0.025 < lost / count < 0.035)]


def _check_order() -> list[Finding]:
    count = 4_000
    findings = []
    for reorder in (0.0, 0.02):
        link = LinkSettings(delay_ms=5, jitter_ms=5, reorder=reorder)
        with open_path(PathSettings(to_broker=link, seed=1)) as path:
            numbers = _one_way(path, count, packets_per_s=5_000)
        highest, late = -1, 0
        for number in numbers:
            late += number < highest
            highest = max(highest, number)
        share = late / count
        good = len(numbers) == count and (share == 0.0 if reorder == 0.0 else 0.012 < share < 0.028)
        findings.append(Finding(f"reordering of {reorder:.0%}, jitter 5 ms", f"{reorder:.0%}", f"{share:.1%}", good))
    return findings


def _check_rate() -> list[Finding]:
    findings = []
    for megabits in (10, 50):
        link = LinkSettings(delay_ms=5, rate_mbit=megabits)
        with open_path(PathSettings(to_broker=link, to_client=link)) as path:
            measured = _tcp_megabits(path, 3.0)
        # A TCP segment of 1,448 bytes is an IP packet of 1,500.
        good = 0.8 * megabits < measured < megabits
        findings.append(Finding(f"TCP through {megabits} Mbit/s", f"{0.96 * megabits:.1f}", f"{measured:.1f}", good))
    return findings


def _check_packets() -> list[Finding]:
    link = LinkSettings(delay_ms=20, rate_mbit=0)
    count = int(CHECKED_PACKETS_PER_S * CHECKED_SECONDS)
    with open_path(PathSettings(to_broker=link)) as path:
        arrived = len(_one_way(path, count, packets_per_s=CHECKED_PACKETS_PER_S))
        late = path.statistics()["late_us"]
    good = arrived == count and late["p99"] < 2_000
    shown = f"{arrived / count:.1%}, {late['p99']:,} us late at p99"
    return [Finding(f"{CHECKED_PACKETS_PER_S:,} packets/s", "100 %, < 2,000 us late at p99", shown, good)]


def _round_trips(path: WideAreaPath, count: int, address: str) -> list[float]:
    with _udp(path.broker_side, address) as far, _udp(path.client_side) as near:

        def answer() -> None:
            for _ in range(count):
                far.sendto(*far.recvfrom(2048))

        thread = _start(answer)
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            near.sendto(b"ping", (address, PORT))
            near.recv(2048)
            times.append((time.perf_counter() - begin) * 1000)
        thread.join()
    return sorted(times)


def _one_way(path: WideAreaPath, count: int, *, packets_per_s: float) -> list[int]:
    """Send numbered datagrams to the broker's side and return the numbers that arrived, as they came."""
    numbers: list[int] = []
    with _udp(path.broker_side, path.broker_address) as far, _udp(path.client_side) as near:

        def receive() -> None:
            far.settimeout(SILENCE_S)
            try:
                while True:
                    numbers.append(int.from_bytes(far.recv(2048)[:4]))
            except TimeoutError:
                pass

        thread = _start(receive)
        begin = time.perf_counter()
        for number in range(count):
            near.sendto(number.to_bytes(4).ljust(100), (path.broker_address, PORT))
            if number % BURST == 0:
                time.sleep(max(0.0, begin + number / packets_per_s - time.perf_counter()))
        thread.join()
    return numbers


def _tcp_megabits(path: WideAreaPath, seconds: float) -> float:
    """Send to the broker's side for some seconds and return the rate at which it came, the first second left out."""
    with path.broker_side.entered():
        listener = socket.create_server((path.broker_address, PORT))
    with path.client_side.entered():
        near = socket.create_connection((path.broker_address, PORT))
    far, _ = listener.accept()
    stop = time.monotonic() + seconds

    def send() -> None:
        block = bytes(65_536)
        while time.monotonic() < stop:
            near.sendall(block)
        near.shutdown(socket.SHUT_WR)

    thread = _start(send)
    counted, first = 0, 0.0
    while chunk := far.recv(1 << 20):
        now = time.monotonic()
        if now > stop:
            continue
        if now > stop - seconds + 1.0:
            first = first or now
            counted += len(chunk)
    thread.join()
    for each in (near, far, listener):
        each.close()
    return counted * 8 / 1e6 / max(1e-9, stop - first)


def _udp(side: Namespace, address: str = "0.0.0.0") -> socket.socket:
    with side.entered():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    udp.settimeout(10.0)
    udp.bind((address, PORT))
    return udp


def _start(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread
