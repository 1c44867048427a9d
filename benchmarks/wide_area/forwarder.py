"""The process that carries IP packets between two network namespaces: `python -m benchmarks.wide_area.forwarder`.

It makes both namespaces, a TUN device in each, and holds them open; once it ends, however it ends, the kernel removes
all of it. It ends when its stdin does, so with whoever started it. Its lines on stdout are JSON: `ready` with the open
files of the namespaces, then a `statistics` for each line on stdin. A line that holds settings puts them into force.

It runs with real-time priority, for the time at which a packet leaves must not depend on what else the machine does;
`late_us` in the statistics says how far it did.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import sys
import time
from dataclasses import asdict
from pathlib import Path

import msgspec

from benchmarks.wide_area import namespaces
from benchmarks.wide_area.link import Link, LinkSettings

__all__ = [
    "BROKER_ADDRESS",
    "CLIENT_ADDRESS",
    "CLIENT_NETWORK",
    "DEVICE",
    "LOOPBACK_ADDRESS",
    "PathSettings",
    "main",
    "routes_to_broker",
]

DEVICE = "wide0"
BROKER_ADDRESS = "10.77.1.1"
CLIENT_NETWORK = "10.77.2.0/24"
CLIENT_ADDRESS = "10.77.2.1"
LOOPBACK_ADDRESS = "127.0.0.1"
"""In the client's namespace this is not its own address but leads to the other side, too. So a server that listens
at loopback only, and whose certificate says so, is reached through the path as it is."""
MTU = 1500
DEVICE_QUEUE = 10_000
"""Packets that wait in a device until they are read: bursts must overflow the link's queue, which is counted."""
READS = 32
"""Packets read from a device before those that are due go out."""
LATE_STEP_US = 10
LATE_STEPS = 10_000


class PathSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Both directions, and the seed of their chance."""

    to_broker: LinkSettings = LinkSettings()
    to_client: LinkSettings = LinkSettings()
    seed: int = 0


class Lateness:
    """A histogram of how long after their time packets left."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * LATE_STEPS

    def add(self, late_ns: int) -> None:
        self._counts[min(late_ns // (1000 * LATE_STEP_US), LATE_STEPS - 1)] += 1

    def percentile_us(self, fraction: float) -> int:
        """Return the upper end of the step that holds this share of all."""
        wanted = sum(self._counts) * fraction
        for step, count in enumerate(self._counts):
            wanted -= count
            if wanted <= 0:
                return (step + 1) * LATE_STEP_US
        return LATE_STEPS * LATE_STEP_US


class Forwarder:
    """Two links between two TUN devices."""

    def __init__(self, settings: PathSettings, broker_tun: int, client_tun: int) -> None:
        self._links = {
            client_tun: Link(settings.to_broker, random.Random(f"{settings.seed} to broker")),
            broker_tun: Link(settings.to_client, random.Random(f"{settings.seed} to client")),
        }
        self._names = {client_tun: "to_broker", broker_tun: "to_client"}
        self._outputs = {client_tun: broker_tun, broker_tun: client_tun}
        self._late = Lateness()

    def run(self, stdin: int) -> None:
        """Forward until `stdin` ends."""
        files = [stdin, *self._links]
        while True:
            ready, _, _ = select.select(files, [], [], self._send_due())
            for file in ready:
                if file != stdin:
                    self._read(file)
                elif line := os.read(stdin, 65_536):
                    self._obey(line)
                else:
                    return

    def _send_due(self) -> float | None:
        """Write what is due, and return the seconds until something else is."""
        wait = None
        for source, link in self._links.items():
            output = self._outputs[source]
            now = time.monotonic_ns()
            for due, packet in link.due(now):
                with contextlib.suppress(OSError):  # the device is being taken down, or out of buffers
                    os.write(output, packet)
                self._late.add(time.monotonic_ns() - due)
            if (due_next := link.next_due) is not None:
                left = max(0.0, (due_next - time.monotonic_ns()) / 1e9)
                wait = left if wait is None else min(wait, left)
        return wait

    def _read(self, file: int) -> None:
        link = self._links[file]
        try:
            for _ in range(READS):
                packet = os.read(file, MTU)
                if packet[0] >> 4 == 4:  # the kernel speaks some IPv6 for itself
                    link.take(packet, time.monotonic_ns())
        except BlockingIOError:
            pass

    def _obey(self, line: bytes) -> None:
        if line.strip():
            settings = msgspec.json.decode(line, type=PathSettings)
            for file, link in self._links.items():
                link.change(getattr(settings, self._names[file]))
        links = {self._names[file]: asdict(link.counters) for file, link in self._links.items()}
        late = {f"p{round(share * 1000) / 10:g}": self._late.percentile_us(share) for share in (0.5, 0.99, 0.999)}
        report(event="statistics", **links, late_us=late)


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=PathSettings)
    broker_namespace = namespaces.new_namespace()
    broker_tun = namespaces.open_tun(DEVICE)
    _set_up(f"ip address add {BROKER_ADDRESS}/32 dev {DEVICE}", f"ip route add {CLIENT_NETWORK} dev {DEVICE}")
    client_namespace = namespaces.new_namespace()
    client_tun = namespaces.open_tun(DEVICE)
    _set_up(
        f"ip address add {CLIENT_ADDRESS}/32 dev {DEVICE}",
        "ip address del 127.0.0.1/8 dev lo",
        *routes_to_broker(CLIENT_ADDRESS),
    )
    real_time = _take_priority()
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    report(event="ready", broker=broker_namespace, client=client_namespace, real_time=real_time)
    Forwarder(settings, broker_tun, client_tun).run(sys.stdin.fileno())


def routes_to_broker(source: str) -> list[str]:
    """Return the commands after which the client's side reaches the broker's with this address as its own."""
    targets = BROKER_ADDRESS, LOOPBACK_ADDRESS
    return [f"ip route replace {target}/32 dev {DEVICE} src {source}" for target in targets]


def report(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _set_up(*commands: str) -> None:
    namespaces.run("ip link set lo up")
    namespaces.run(f"ip link set {DEVICE} addrgenmode none")
    namespaces.run(f"ip link set {DEVICE} mtu {MTU} txqueuelen {DEVICE_QUEUE} up")
    Path(f"/proc/sys/net/ipv4/conf/{DEVICE}/route_localnet").write_text("1")
    for command in commands:
        namespaces.run(command)


def _take_priority() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:  # a container without CAP_SYS_NICE
        return False
    return True


if __name__ == "__main__":
    main()
