"""The demo's publisher: this machine's counters, one topic each, several times a second.

`python -m quicbus_cli.demo_publisher URL CREDENTIAL`. Ends at SIGTERM; its last line of stdout says what it published.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import quicbus
from quicbus.process import run_until_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROOT", "SENT_HEADER", "UNIT_HEADER"]

ROOT = "machine"
SENT_HEADER = "sent"
"""`time.monotonic_ns()` of the publisher; the subscribers run on the same machine."""
UNIT_HEADER = "unit"
INTERVAL_S = 0.2


class Counters:
    """Reads the machine's counters; rates are those since the last reading."""

    def __init__(self) -> None:
        psutil.cpu_percent(percpu=True)
        self._network = psutil.net_io_counters()
        self._at = time.monotonic()

    def read(self) -> Iterator[tuple[str, float, str]]:
        """Yield topic, value and unit."""
        cores = psutil.cpu_percent(percpu=True)
        yield f"{ROOT}/cpu", sum(cores) / len(cores), "%"
        for number, percent in enumerate(cores):
            yield f"{ROOT}/cpu/{number}", percent, "%"
        memory = psutil.virtual_memory()
        yield f"{ROOT}/memory/used", (memory.total - memory.available) / 2**20, "MiB"
        yield f"{ROOT}/memory/percent", memory.percent, "%"
        yield f"{ROOT}/load", psutil.getloadavg()[0], ""
        yield from self._network_rates()

    def _network_rates(self) -> Iterator[tuple[str, float, str]]:
        now, counters = time.monotonic(), psutil.net_io_counters()
        before, elapsed = self._network, max(1e-3, now - self._at)
        yield f"{ROOT}/network/received", (counters.bytes_recv - before.bytes_recv) / elapsed / 1024, "KiB/s"
        yield f"{ROOT}/network/sent", (counters.bytes_sent - before.bytes_sent) / elapsed / 1024, "KiB/s"
        self._network, self._at = counters, now


async def publish(stop: asyncio.Event, url: str, credential: Path) -> int:
    """Publish until `stop`, and return how many messages the broker has taken."""
    counters = Counters()
    published = 0
    loop = asyncio.get_running_loop()
    due = loop.time()
    async with quicbus.connect(url, credentials=credential, name="quicbus demo publisher") as bus:
        while not stop.is_set():
            for topic, value, unit in counters.read():
                headers = {UNIT_HEADER: unit, SENT_HEADER: str(time.monotonic_ns())}
                await bus.publish(topic, f"{value:.2f}", headers=headers)
                published += 1
            due += INTERVAL_S
            try:
                async with asyncio.timeout_at(due):
                    await stop.wait()
            except TimeoutError:
                pass
        await bus.flush()
    return published


if __name__ == "__main__":
    count = run_until_signal(lambda stop: publish(stop, sys.argv[1], Path(sys.argv[2])))
    print(json.dumps({"event": "published", "messages": count}))  # its report to the demo
