"""Gives memory back to the system after a flood.

Connections of both engines are cycles, which Python's collector finds only once many objects have been made after them,
and glibc keeps what was freed. A broker that held a thousand half-open handshakes stays at 138 MiB for good where 80
do (measured, tests/abuse).
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Any

from quicbus_broker.collecting import collect_all

__all__ = ["FreedMemory", "give_back"]

CONNECTION_SIZE = 64 * 1024
SUBSCRIPTION_SIZE = 1024
"""What one takes, roughly; idle connections 40 to 90 KB by engine (measured)."""
WORTH_SIZE = 16 * 1024 * 1024
"""Freed since the last time: giving back takes the allocator's lock for 0.2 ms a MiB, so it is not done for less."""
QUIET_S = 12.0
"""So long nothing more was closed: the flood is over, and no timer holds its connections any more."""


async def give_back() -> None:
    """Collect what is unreachable, then have the C library give back what is free.

    The first holds up the loop as Python's own full collections do, for 10 to 20 ms in a small broker; the second runs
    in a thread. Cancelling it leaves that to end by itself.
    """
    collect_all()
    try:
        trim: Any = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return
    trim.argtypes = [ctypes.c_size_t]
    await asyncio.to_thread(trim, 0)


class FreedMemory:
    """Tells when giving back is worth it. Pure."""

    def __init__(self) -> None:
        self._peak = 0
        self._last = 0
        self._fell_at = 0.0

    def is_worth_it(self, connections: int, subscriptions: int, now: float) -> bool:
        """Call it every now and then with what there is; `True` once after each flood, a little after its end."""
        size = connections * CONNECTION_SIZE + subscriptions * SUBSCRIPTION_SIZE
        if size < self._last:
            self._fell_at = now
        self._last = size
        self._peak = max(self._peak, size)
        if self._peak - size < WORTH_SIZE or now - self._fell_at < QUIET_S:
            return False
        self._peak = size
        return True
