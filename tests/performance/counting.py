"""Instruments: they count what the code does between `begin` and `end`, in this process."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quicbus
import quicbus_broker
from quicbus.transport import udp_socket
from quicbus.transport.endpoint_connection import EndpointConnection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

    import pytest

__all__ = ["Traffic", "count_calls", "count_peak", "count_traffic"]

OWN_CODE = tuple(str(Path(str(package.__file__)).parent) for package in (quicbus, quicbus_broker))


@dataclass
class Traffic:
    """Of all endpoints of this process since `clear`. System calls are those of the socket."""

    transmits: int = 0
    """Times that an engine was asked for datagrams."""
    datagrams: int = 0
    size: int = 0
    system_calls: int = 0

    def clear(self) -> None:
        self.transmits = self.datagrams = self.size = self.system_calls = 0

    def counts(self) -> dict[str, float]:
        return {
            "datagrams": self.datagrams,
            "kilobytes": self.size / 1000,
            "transmits": self.transmits,
            "system calls": self.system_calls,
        }


def count_traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    """Count what every endpoint that is opened from here on sends and receives."""
    traffic = Traffic()
    datagrams_to_send = EndpointConnection.datagrams_to_send
    bind_udp = udp_socket.bind_udp

    def counted(connection: EndpointConnection, now: float) -> Any:
        groups = datagrams_to_send(connection, now)
        traffic.transmits += 1
        for _, datagrams in groups:
            traffic.datagrams += len(datagrams)
            traffic.size += sum(map(len, datagrams))
        return groups

    class CountedSocket(socket.socket):
        def sendmsg(self, *arguments: Any, **options: Any) -> int:
            traffic.system_calls += 1
            return super().sendmsg(*arguments, **options)

        def sendto(self, *arguments: Any) -> int:
            traffic.system_calls += 1
            return super().sendto(*arguments)

        def recvmsg(self, *arguments: Any, **options: Any) -> Any:
            traffic.system_calls += 1
            return super().recvmsg(*arguments, **options)

    def bind_counted(bind: Any) -> socket.socket:
        udp = bind_udp(bind)
        counted_socket = CountedSocket(udp.family, udp.type, udp.proto, udp.detach())
        counted_socket.setblocking(False)
        return counted_socket

    monkeypatch.setattr(EndpointConnection, "datagrams_to_send", counted)
    monkeypatch.setattr(udp_socket, "bind_udp", bind_counted)
    return traffic


@contextlib.contextmanager
def count_calls() -> Iterator[list[int]]:
    """Count the calls of quicbus' own functions, and those out of them of functions in C, into the list's one item."""
    calls = [0]
    is_own: dict[CodeType, bool] = {}

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" or event == "c_call":
            code = frame.f_code
            own = is_own.get(code)
            if own is None:
                own = is_own[code] = code.co_filename.startswith(OWN_CODE)
            if own:
                calls[0] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def count_peak() -> Iterator[list[int]]:
    """Find the most bytes that Python held at a time beyond what it held before, into the list's one item."""
    peak = [0]
    gc.collect()
    tracemalloc.start()
    try:
        yield peak
        peak[0] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
