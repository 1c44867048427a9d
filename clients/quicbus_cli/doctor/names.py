"""Checks of a broker's name: does it resolve, to which addresses, and is there a way to them from here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from quicbus.transport.connection import shown_address
from quicbus_cli.doctor.finding import Finding, failure, ok, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.client.urls import BrokerUrl
    from quicbus.transport.connection import Address

__all__ = ["check_name", "resolve", "route_error"]


async def resolve(url: BrokerUrl, timeout_s: float) -> tuple[list[Address], str]:
    """Return the addresses of a URL's host, as clients try them, or none and why."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
    except TimeoutError:
        return [], f"no answer from the name servers within {timeout_s:g} s"
    except (OSError, UnicodeError) as error:
        return [], str(getattr(error, "strerror", None) or error).lower()
    return list(dict.fromkeys((str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found)), ""


def check_name(url: BrokerUrl, addresses: Sequence[Address], why: str) -> Finding:
    """Judge what `resolve` returned."""
    if not addresses:
        return failure("name", f"{url.host} has no address: {why}", "check the name, or put the address into the URL")
    no_way = {address: error for address in addresses if (error := route_error(address))}
    shown = ", ".join(shown_address(address) for address in addresses)
    if len(no_way) == len(addresses):
        first = next(iter(no_way.values()))
        return failure("name", f"{url.host} is {shown}; there is no way there: {first}", "check this machine's network")
    if no_way:
        lost = ", ".join(f"{shown_address(address)} ({error})" for address, error in no_way.items())
        return warning(
            "name",
            f"{url.host} is {shown}; no way from here to {lost}",
            "clients try the other addresses too, after a short while; name the one that works to save it",
        )
    families = " and ".join(
        name
        for name, is_v6 in (("IPv6", True), ("IPv4", False))
        if any((":" in host) == is_v6 for host, _ in addresses)
    )
    return ok("name", f"{url.host} is {shown} ({families})")


def route_error(address: Address) -> str:
    """Return why this machine has no way to an address, else an empty text. Sends nothing."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as udp:
            udp.connect(socket.getaddrinfo(*address, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0][4])
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno and error.errno in errno.errorcode else str(error)
    return ""
