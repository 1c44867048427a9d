"""Datagrams within one process, with latency, loss and faults at will: for tests, and for brokers that are embedded.

Time and timers are the event loop's, so a loop with virtual time makes the network run in it. With one seed and the
same traffic every run is the same.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus.transport.network import Path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quicbus.transport.connection import Address
    from quicbus.transport.counters import Counters
    from quicbus.transport.network import DatagramReceiver

__all__ = ["Link", "MemoryNetwork", "MemorySocket"]

FIRST_PORT = 40_000
DEFAULT_HOST = "127.0.0.1"
WILDCARDS = frozenset({"::", "0.0.0.0"})  # noqa: S104 (no network at all)


@dataclass(slots=True, eq=False)
class _Fault:
    """Of one `with` block. `matches` picks datagrams; `left` says how many more it concerns."""

    loss: float = 0.0
    delay_s: float = 0.0
    matches: Callable[[bytes], bool] | None = None
    left: int | None = None

    def concerns(self, datagram: bytes) -> bool:
        if self.left == 0 or not (self.matches is None or self.matches(datagram)):
            return False
        if self.left is not None:
            self.left -= 1
        return True


class MemoryNetwork:
    """A `Network` to pass to `Endpoint.open`. All endpoints that shall meet are opened on the same one."""

    def __init__(
        self,
        *,
        seed: int = 0,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        is_near: bool = True,
    ) -> None:
        """`latency_s` is one way; up to `jitter_s` comes on top, which reorders. `is_near`: datagrams of 8 KiB pass."""
        self.is_near = is_near
        self.delivered = 0
        self.dropped = 0
        self._random = random.Random(seed)  # noqa: S311 (faults that can be repeated)
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._loss = loss
        self._sockets: dict[Address, MemorySocket] = {}
        self._faults: dict[tuple[Address, Address], list[_Fault]] = {}
        self._next_port = FIRST_PORT
        self._under_way: list[tuple[float, int, Path, Address, bytes]] = []
        self._sent = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0

    async def open(self, bind: Address | None, receiver: DatagramReceiver, counters: Counters) -> MemorySocket:
        host, port = (DEFAULT_HOST, 0) if bind is None else bind
        address = (host, port or self._free_port(host))
        if address in self._sockets:
            raise OSError(errno.EADDRINUSE, f"{host} port {port} is in use on this memory network")
        opened = self._sockets[address] = MemorySocket(self, address, receiver, counters)
        return opened

    def link(self, one: Address, other: Address) -> Link:
        """Return both directions between two addresses, to put faults on."""
        return Link(self._faults, [(one, other), (other, one)])

    def one_way(self, source: Address, destination: Address) -> Link:
        """Return one direction, to put faults on."""
        return Link(self._faults, [(source, destination)])

    def move(self, address: Address, *, to_host: str = "") -> Address:
        """Give the socket at `address` another port, as a NAT that forgot it would; return its new address.

        The socket does not notice, unless its host gets another address, too. What is sent to the old address is lost.
        """
        moved = self._sockets.pop(address)
        moved.source = to_host or moved.source
        host = to_host or address[0]
        moved.seen_as = (host, self._free_port(host))
        self._sockets[moved.seen_as] = moved
        return moved.seen_as

    # --- for sockets ------------------------------------------------------------------------------------------------

    def carry(self, source: MemorySocket, path: Path, datagrams: list[bytes]) -> None:
        now = asyncio.get_running_loop().time()
        faults = self._faults.get((source.seen_as, path.address), ())
        for datagram in datagrams:
            delay_s = self._latency_s + (self._random.random() * self._jitter_s if self._jitter_s else 0.0)
            is_lost = self._loss > 0 and self._random.random() < self._loss
            for fault in faults:
                if fault.concerns(datagram):
                    is_lost = is_lost or (fault.loss > 0 and self._random.random() < fault.loss)
                    delay_s += fault.delay_s
            if is_lost:
                self.dropped += 1
                continue
            self._sent += 1
            heapq.heappush(self._under_way, (now + delay_s, self._sent, path, source.seen_as, datagram))
        self._arm()

    def forget(self, gone: MemorySocket) -> None:
        if self._sockets.get(gone.seen_as) is gone:
            del self._sockets[gone.seen_as]
        if not self._sockets:
            self._under_way.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    # --- inside -----------------------------------------------------------------------------------------------------

    def _free_port(self, host: str) -> int:
        while (host, self._next_port) in self._sockets:
            self._next_port += 1
        self._next_port += 1
        return self._next_port - 1

    def _arm(self) -> None:
        if not self._under_way:
            return
        loop = asyncio.get_running_loop()
        when = self._under_way[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        due = when <= loop.time()
        self._timer = loop.call_soon(self._deliver) if due else loop.call_at(when, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        touched: dict[MemorySocket, None] = {}
        # What the receivers send meanwhile waits for the next call: the loop gets its turn.
        last = self._sent
        while self._under_way and self._under_way[0][0] <= now and self._under_way[0][1] <= last:
            _, _, path, source, datagram = heapq.heappop(self._under_way)
            destination = self._find(path.address)
            if destination is None:
                self.dropped += 1
                self._tell_unreachable(source, path)
                continue
            self.delivered += 1
            destination.receiver.received(datagram, len(datagram), Path(source, source))
            touched[destination] = None
        for destination in touched:
            if not destination.is_closed:
                destination.receiver.turn_ended()
        self._arm()

    def _find(self, address: Address) -> MemorySocket | None:
        found = self._sockets.get(address)
        if found is None:
            found = next((self._sockets[host, address[1]] for host in sorted(WILDCARDS)
                          if (host, address[1]) in self._sockets), None)  # fmt: skip
        return found

    def _tell_unreachable(self, source: Address, path: Path) -> None:
        sender = self._sockets.get(source)
        if sender is not None:
            sender.receiver.unreachable(path.peer, "connection refused")


class Link:
    """Faults between two addresses; each lasts as long as its `with` block, and they add up."""

    def __init__(
        self, faults: dict[tuple[Address, Address], list[_Fault]], directions: list[tuple[Address, Address]]
    ) -> None:
        self._faults = faults
        self._directions = directions

    def reversed(self) -> Link:
        """Return what goes the other way."""
        return Link(self._faults, [(destination, source) for source, destination in self._directions])

    @contextmanager
    def dropping(self, matches: Callable[[bytes], bool] | None = None, *, count: int | None = None) -> Iterator[None]:
        """Drop all datagrams, or those that `matches` picks, or the next `count` of them."""
        with self._with(_Fault(loss=1.0, matches=matches, left=count)):
            yield

    @contextmanager
    def losing(self, fraction: float) -> Iterator[None]:
        """Drop datagrams at random."""
        with self._with(_Fault(loss=fraction)):
            yield

    @contextmanager
    def delayed(self, delay_s: float) -> Iterator[None]:
        """Hold up every datagram this much longer."""
        with self._with(_Fault(delay_s=delay_s)):
            yield

    @contextmanager
    def _with(self, fault: _Fault) -> Iterator[None]:
        for direction in self._directions:
            self._faults.setdefault(direction, []).append(fault)
        try:
            yield
        finally:
            for direction in self._directions:
                self._faults[direction].remove(fault)


class MemorySocket:
    """A `DatagramSocket` on a memory network."""

    def __init__(
        self, network: MemoryNetwork, address: Address, receiver: DatagramReceiver, counters: Counters
    ) -> None:
        self.receiver = receiver
        self.seen_as = address
        """Where others see it: `MemoryNetwork.move` changes that, `address` stays."""
        self.is_closed = False
        self._network = network
        self.source = address[0]
        """What this side knows its address to be; empty where it has none."""
        self._address = address
        self._counters = counters

    @property
    def address(self) -> Address:
        return self._address

    def path_to(self, address: Address) -> Path:
        return Path(address, address)

    def is_near(self, path: Path) -> bool:
        return self._network.is_near

    def source_towards(self, path: Path) -> str:
        return self.source

    def send(self, path: Path, datagrams: list[bytes]) -> None:
        if not self.is_closed:
            self._network.carry(self, path, datagrams)

    async def wait_sent(self) -> None:
        """The network takes everything at once."""

    def close(self) -> None:
        self.is_closed = True
        self._network.forget(self)
