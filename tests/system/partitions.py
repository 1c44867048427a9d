"""A UDP network on loopback between node processes, that loses datagrams and falls apart as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from quicbus.transport.connection import Address

__all__ = ["Partitions"]

READ_SIZE = 65_535
READS = 64
"""Datagrams that are taken from one socket in its turn."""


class Partitions:
    """Each node is dialed at a front of its own; behind it each dialer appears under an address of its own.

    `loss`: the share of datagrams that is lost, each way.
    """

    def __init__(self, rng: random.Random, *, loss: float = 0.0) -> None:
        self.loss = loss
        self.lost = self.cut = self.passed = 0
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._fronts: dict[str, socket.socket] = {}
        self._places: dict[str, Address] = {}
        self._names: dict[Address, str] = {}
        self._backs: dict[tuple[Address, str], socket.socket] = {}
        self._sides: list[frozenset[str]] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, rng: random.Random, *, loss: float = 0.0) -> Iterator[Partitions]:
        network = cls(rng, loss=loss)
        try:
            yield network
        finally:
            for udp in (*network._fronts.values(), *network._backs.values()):
                network._loop.remove_reader(udp)
                udp.close()

    def front(self, name: str) -> str:
        """Return where others dial a node, the same for ever."""
        udp = self._fronts.get(name)
        if udp is None:
            udp = self._fronts[name] = _udp()
            self._loop.add_reader(udp, self._from_dialers, name, udp)
        return "{}:{}".format(*udp.getsockname())

    def settle(self, name: str, address: str) -> None:
        """A node listens here from now on."""
        host, _, port = address.rpartition(":")
        for place in [place for place, known in self._names.items() if known == name]:
            del self._names[place]
        self._places[name] = (host, int(port))
        self._names[(host, int(port))] = name

    @contextlib.contextmanager
    def parted(self, *sides: Iterable[str]) -> Iterator[None]:
        """Nothing passes between nodes of different sides."""
        self._sides = [frozenset(side) for side in sides]
        try:
            yield
        finally:
            self._sides = []

    def _from_dialers(self, target: str, front: socket.socket) -> None:
        for _ in range(READS):
            try:
                datagram, dialer = front.recvfrom(READ_SIZE)
            except OSError:
                return
            if target not in self._places or not self._passes(dialer, target):
                continue
            back = self._backs.get((dialer, target))
            if back is None:
                back = self._backs[dialer, target] = _udp()
                self._loop.add_reader(back, self._from_target, dialer, target, back)
            with contextlib.suppress(OSError):
                back.sendto(datagram, self._places[target])

    def _from_target(self, dialer: Address, target: str, back: socket.socket) -> None:
        for _ in range(READS):
            try:
                datagram = back.recv(READ_SIZE)
            except OSError:
                return
            if self._passes(dialer, target):
                with contextlib.suppress(OSError):
                    self._fronts[target].sendto(datagram, dialer)

    def _passes(self, dialer: Address, target: str) -> bool:
        if any((self._names.get(dialer) in side) != (target in side) for side in self._sides):
            self.cut += 1
            return False
        if self._rng.random() < self.loss:
            self.lost += 1
            return False
        self.passed += 1
        return True


def _udp() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    udp.bind(("127.0.0.1", 0))
    return udp
