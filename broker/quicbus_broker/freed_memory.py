"""Gives memory back to the system after a flood: glibc keeps what thousands of connections have freed.

A broker that held a thousand half-open handshakes, or fifty thousand subscriptions, keeps most of that memory resident
for good, though none of it is in use: 138 MiB where 80 do (measured, tests/abuse).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FreedMemory", "trim_function"]

CONNECTION_SIZE = 64 * 1024
SUBSCRIPTION_SIZE = 2 * 1024
"""What one takes, roughly; idle connections 40 to 90 KB by engine (measured)."""
WORTH_SIZE = 16 * 1024 * 1024
"""Freed since the last time: giving back takes the allocator's lock for 0.2 ms a MiB, so it is not done for less."""
QUIET_S = 3.0
"""So long nothing more was freed: the flood is over."""


def trim_function() -> Callable[[], object] | None:
    """Return what gives freed memory back, where the C library has it: glibc's `malloc_trim`."""
    try:
        trim: Any = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)


class FreedMemory:
    """Tells when giving back is worth it. Pure."""

    def __init__(self) -> None:
        self._peak = 0
        self._last = 0
        self._fell_at = 0.0

    def is_worth_trimming(self, connections: int, subscriptions: int, now: float) -> bool:
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
