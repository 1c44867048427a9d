"""Names of hosts to addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus.transport.connection import Address

__all__ = ["addresses_of"]


async def addresses_of(address: str) -> list[Address]:
    """Return the addresses of `HOST:PORT` for UDP, each once; raises `OSError` and `ValueError`."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    return list(dict.fromkeys((str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found))
