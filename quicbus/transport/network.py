"""The seam between an endpoint and what carries its datagrams: UDP on Linux, UDP elsewhere, memory."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from quicbus.transport.connection import Address
    from quicbus.transport.counters import Counters

__all__ = ["DatagramReceiver", "DatagramSocket", "Network", "Path", "is_this_host", "plain_address", "source_address"]

MAPPED_PREFIX = "::ffff:"


class Path(NamedTuple):
    """One way to a peer. Paths are made by the socket and are cheap to compare."""

    address: Address
    """The peer's, as people see it."""
    peer: Any
    """The peer's, as the socket takes it."""
    local: Any = None
    """Where datagrams are to leave from, as the socket takes it; `None`: as the system chooses."""

    def is_same_peer(self, other: object) -> bool:
        return self is other or (isinstance(other, Path) and self.peer == other.peer)


class DatagramReceiver(Protocol):
    """What the socket calls; none of it raises."""

    def received(self, buffer: bytes, segment_size: int, path: Path) -> None:
        """Take a datagram, or (`segment_size` < its length) several of that size, the last possibly shorter."""
        ...

    def turn_ended(self, *, is_behind: bool = False) -> None:
        """All that is read in this turn has been handed over. `is_behind`: there was more, and it comes next."""
        ...

    def unreachable(self, peer: Any, reason: str) -> None:
        """The system says that nothing reaches `peer` (a `Path.peer`), and why. A hint: it can be forged."""
        ...


class DatagramSocket(Protocol):
    """A socket that is open. Nothing here waits; what fails is counted and never raised."""

    @property
    def address(self) -> Address:
        """What the socket is bound to."""
        ...

    def path_to(self, address: Address) -> Path:
        """Raises `OSError` where this socket cannot reach such an address."""
        ...

    def is_near(self, path: Path) -> bool:
        """Whether `path` stays on this host, so that datagrams of 8 KiB pass."""
        ...

    def source_towards(self, path: Path) -> str:
        """This host's address in datagrams that would leave for `path` now; empty where there is no way."""
        ...

    def send(self, path: Path, datagrams: list[bytes]) -> None: ...

    async def wait_sent(self) -> None:
        """Wait until the system has taken, or refused, all that was sent; send nothing after that."""
        ...

    def close(self) -> None:
        """May be called twice."""
        ...


class Network(Protocol):
    """Opens sockets."""

    async def open(self, bind: Address | None, receiver: DatagramReceiver, counters: Counters) -> DatagramSocket:
        """Bind and begin to receive. `None`: any port, for dialing. Raises `OSError`."""
        ...


def plain_address(sockaddr: tuple[Any, ...]) -> Address:
    """Return a socket address as people see it: an IPv4-mapped address as IPv4, a scope only where it matters."""
    host = str(sockaddr[0])
    if host.startswith(MAPPED_PREFIX) and "." in host:
        host = host[len(MAPPED_PREFIX) :]
    return host, int(sockaddr[1])


def is_this_host(host: str) -> bool:
    """Whether `host` is loopback or an address of this host: then the way there has the MTU of loopback."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if ip.is_loopback:
        return True
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return False
    # The source address that the system picks towards one of its own addresses is that address.
    return source_address((str(ip), 9)) == str(ip)


def source_address(sockaddr: tuple[Any, ...]) -> str:
    """Return the address that the system would send from to a socket address; empty where it knows no way there.

    It is asked by connecting a socket, which sends nothing.
    """
    plain = plain_address(sockaddr)  # Where sockets of IPv6 are not dual-stack they take no mapped address.
    family = socket.AF_INET6 if ":" in plain[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(sockaddr if family == socket.AF_INET6 else plain)
            return plain_address(probe.getsockname())[0]
    except OSError:
        return ""
