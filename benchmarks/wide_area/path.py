"""A wide-area path for a `with` block: what is started in one of its namespaces talks to the other through the link."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.wide_area import namespaces
from benchmarks.wide_area.forwarder import (
    BROKER_ADDRESS,
    CLIENT_ADDRESS,
    CLIENT_NETWORK,
    DEVICE,
    LOOPBACK_ADDRESS,
    PathSettings,
    routes_to_broker,
)
from quicbus.testing.launcher import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WideAreaPath", "open_path"]


class WideAreaPath:
    """Made by `open_path`."""

    broker_address = BROKER_ADDRESS
    loopback_address = LOOPBACK_ADDRESS
    """Leads to the broker's side from the client's side, too."""

    def __init__(self, process: Launched) -> None:
        ready = json.loads(process.wait_line('"ready"'))
        self.real_time: bool = ready["real_time"]
        """Whether the forwarder has real-time priority; without it delays are less exact on a busy machine."""
        self._process = process
        self._answers = 0
        self._client_addresses = ipaddress.ip_network(CLIENT_NETWORK).hosts()
        self._client_address = str(next(self._client_addresses))
        assert self._client_address == CLIENT_ADDRESS
        self.broker_side = namespaces.Namespace(f"/proc/{process.pid}/fd/{ready['broker']}")
        self.client_side = namespaces.Namespace(f"/proc/{process.pid}/fd/{ready['client']}")

    def change(self, settings: PathSettings) -> None:
        """Treat packets so from now on."""
        self._ask(msgspec.json.encode(settings))

    def statistics(self) -> dict[str, Any]:
        """Return packets by direction and fate, and in `late_us` how far the delays were exceeded."""
        return self._ask(b"")

    def move_client(self) -> str:
        """Give the client's side another address in place of the one that it has, as a change of network does."""
        before, self._client_address = self._client_address, str(next(self._client_addresses))
        with self.client_side.entered():
            namespaces.run(f"ip address add {self._client_address}/32 dev {DEVICE}")
            for command in routes_to_broker(self._client_address):
                namespaces.run(command)
            namespaces.run(f"ip address del {before}/32 dev {DEVICE}")
        return self._client_address

    def close(self) -> None:
        self.broker_side.close()
        self.client_side.close()

    def _ask(self, line: bytes) -> dict[str, Any]:
        self._process.write(line + b"\n")
        self._answers += 1
        answer: dict[str, Any] = json.loads(self._process.wait_lines(self._answer))
        return answer

    def _answer(self, lines: list[str]) -> str | None:
        answers = [line for line in lines if '"statistics"' in line]
        return answers[self._answers - 1] if len(answers) >= self._answers else None


@contextlib.contextmanager
def open_path(settings: PathSettings) -> Iterator[WideAreaPath]:
    """Make the namespaces and the link between them; all of it is gone after the block, or when this process is."""
    command = [sys.executable, "-m", "benchmarks.wide_area.forwarder", msgspec.json.encode(settings).decode()]
    with Launched(command, stdin=True, own_session=True) as process:
        path = WideAreaPath(process)
        try:
            yield path
        finally:
            path.close()
