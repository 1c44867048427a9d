"""A UDP relay on loopback that changes the port it sends from, as a NAT does; and raw sockets for strangers."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus.transport.connection import Address

__all__ = ["RawSocket", "Relay"]

READ_SIZE = 65_535


def _socket(address: Address = ("127.0.0.1", 0)) -> socket.socket:
    udp = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    udp.bind(address)
    return udp


class Relay:
    """Between one dialer and one listener. `move()` gives it another port towards the listener."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._front = _socket()
        self._dialer: Address | None = None
        self._back = _socket()
        self._loop.add_reader(self._front, self._from_dialer)
        self._loop.add_reader(self._back, self._from_listener)
        self.address: Address = self._front.getsockname()
        self.seen: list[bytes] = []
        """What the dialer sent, newest last; kept to be replayed by strangers."""

    @classmethod
    @contextmanager
    def to(cls, target: Address) -> Iterator[Relay]:
        relay = cls(target)
        try:
            yield relay
        finally:
            for udp in (relay._front, relay._back):
                relay._loop.remove_reader(udp)
                udp.close()

    def move(self) -> Address:
        self._loop.remove_reader(self._back)
        self._back.close()
        self._back = _socket()
        self._loop.add_reader(self._back, self._from_listener)
        address: Address = self._back.getsockname()
        return address

    def _from_dialer(self) -> None:
        for _ in range(64):
            try:
                datagram, self._dialer = self._front.recvfrom(READ_SIZE)
                self.seen.append(datagram)
                self._back.sendto(datagram, self._target)
            except OSError:
                return

    def _from_listener(self) -> None:
        for _ in range(64):
            try:
                datagram = self._back.recv(READ_SIZE)
                if self._dialer is not None:
                    self._front.sendto(datagram, self._dialer)
            except OSError:
                return


class RawSocket:
    """A stranger: sends any bytes and counts what comes back."""

    def __init__(self, address: Address = ("127.0.0.1", 0)) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = _socket(address)
        self._arrived = asyncio.Event()
        self.address: Address = self._socket.getsockname()[:2]
        self.received: deque[bytes] = deque()
        self.sent_size = self.received_size = 0
        self._loop.add_reader(self._socket, self._on_readable)

    @classmethod
    @contextmanager
    def opened(cls, address: Address = ("127.0.0.1", 0)) -> Iterator[RawSocket]:
        raw = cls(address)
        try:
            yield raw
        finally:
            raw._loop.remove_reader(raw._socket)
            raw._socket.close()

    def send(self, datagram: bytes, target: Address) -> None:
        self.sent_size += len(datagram)
        self._socket.sendto(datagram, target)

    async def receive(self) -> bytes:
        async with asyncio.timeout(20):
            while not self.received:
                self._arrived.clear()
                await self._arrived.wait()
        return self.received.popleft()

    def _on_readable(self) -> None:
        try:
            datagram = self._socket.recv(READ_SIZE)
        except OSError:
            return
        self.received_size += len(datagram)
        self.received.append(datagram)
        self._arrived.set()
