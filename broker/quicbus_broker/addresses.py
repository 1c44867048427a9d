"""Where a node says that it may be dialed: the settings' addresses, else this host's and those seen by others."""

from __future__ import annotations

import ipaddress
import math
import socket
from typing import TYPE_CHECKING, NamedTuple

import psutil

from quicbus.transport.connection import shown_address
from quicbus_broker.host_port import parse_host_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.transport.connection import Address
    from quicbus_broker.settings import BrokerSettings

__all__ = [
    "MAX_ADDRESSES",
    "AdvertisedAddresses",
    "Interface",
    "ObservedAddresses",
    "host_addresses",
    "interfaces_up",
    "is_for_others",
]

MAX_ADDRESSES = 8
"""Who wants to reach a node tries them in turn, and every member keeps them of all others."""
MAX_OBSERVED = 4
OBSERVED_LIFETIME_S = 3600.0
"""A NAT forgets, and a provider gives another address: what nobody confirms any more is no longer said."""
_INNER = ("docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "cni", "flannel", "podman", "lxc", "lxdbr")
"""Interfaces between this host and its own guests: other hosts have ones with the very same addresses."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Interface(NamedTuple):
    """A network interface that is up, with its addresses as text."""

    name: str
    addresses: tuple[str, ...]


class AdvertisedAddresses:
    """What the own record says, asked for again now and then: interfaces come and go, `observed` grows."""

    def __init__(
        self, settings: BrokerSettings, bound: Address, interfaces: Callable[[], Sequence[Interface]] | None = None
    ) -> None:
        """`bound`: what the socket is bound to, with the port that it got."""
        self._fixed = settings.advertise
        self._is_dialed = settings.mode != "client"
        self._bound = bound
        self._interfaces = interfaces or interfaces_up
        self.observed = ObservedAddresses()

    def current(self, now: float = 0.0) -> tuple[str, ...]:
        """Return `HOST:PORT` of each, best first; none in mode `client`. Asks the system, which is quick."""
        if not self._is_dialed:
            return ()
        if self._fixed:
            return self._fixed[:MAX_ADDRESSES]
        host, port = self._bound
        own = [shown_address((each, port)) for each in host_addresses(host, self._interfaces())]
        observed = self.observed.addresses(now)
        room = MAX_ADDRESSES - len([each for each in observed if each not in own])
        return tuple(dict.fromkeys([*own[:room], *observed]))


class ObservedAddresses:
    """Addresses under which others see this node. What a NAT shows is said to others only once it was dialed."""

    def __init__(self) -> None:
        self._confirmed_at: dict[str, float] = {}

    def confirm(self, address: str, now: float) -> bool:
        """A node dialed this node at `HOST:PORT` and reached it; return whether that is new.

        What no other host can dial (link-local, loopback, no address at all) is ignored.
        """
        if not is_for_others(address):
            return False
        known = self.addresses(now)
        self._confirmed_at.pop(address, None)
        self._confirmed_at[address] = now
        while len(self._confirmed_at) > MAX_OBSERVED:
            del self._confirmed_at[next(iter(self._confirmed_at))]
        return address not in known

    def refute(self, address: str) -> bool:
        """Dialing it failed; return whether it was said to others until now."""
        return self._confirmed_at.pop(address, -math.inf) > -math.inf

    def addresses(self, now: float) -> tuple[str, ...]:
        """Return those that were confirmed lately, the last one first."""
        oldest = now - OBSERVED_LIFETIME_S
        return tuple(address for address, at in reversed(self._confirmed_at.items()) if at >= oldest)


def host_addresses(bound: str, interfaces: Sequence[Interface]) -> list[str]:
    """Return the IP addresses that a socket bound to `bound` is reached at, best first.

    Public before private, IPv4 before IPv6, interfaces towards guests last; loopback only where there is nothing else.
    Link-local ones mean nothing without the name of an interface, which differs between hosts.
    """
    ip = ipaddress.ip_address(bound)
    if not ip.is_unspecified:
        return [bound]
    found = [
        (each.is_loopback, interface.name.startswith(_INNER), not each.is_global, each.version, str(each))
        for interface in interfaces
        for each in map(_usable, interface.addresses)
        if each is not None and (each.version == 4 or ip.version == 6)
    ]
    found.sort(key=lambda rank: rank[:-1])
    outside = [rank for rank in found if not rank[0]]
    return list(dict.fromkeys(rank[-1] for rank in outside or found))


def _usable(text: str) -> _Ip | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if ip.is_link_local or ip.is_unspecified or ip.is_multicast else ip


def is_for_others(address: str) -> bool:
    """Return whether another host may dial `HOST:PORT`: not loopback, link-local, or no IP address at all."""
    try:
        ip = _usable(parse_host_port(address)[0])
    except ValueError:
        return False
    return ip is not None and not ip.is_loopback


def interfaces_up() -> list[Interface]:
    """Return the interfaces of this host; none where the system does not tell."""
    try:
        of_interfaces = psutil.net_if_addrs()
        states = psutil.net_if_stats()
    except OSError:
        return []
    families = (socket.AF_INET, socket.AF_INET6)
    return [
        Interface(name, tuple(each.address for each in addresses if each.family in families))
        for name, addresses in of_interfaces.items()
        if name not in states or states[name].isup
    ]
