"""The PINGs of one connection: which are under way, what the last one took, and those that press. Pure."""

from __future__ import annotations

from typing import Final

from quicbus.transport.path import AMPLIFICATION

__all__ = ["Pings"]

MAX_UNDER_WAY: Final = 64
SMALL_DATAGRAM_SIZE: Final = 256


class Pings:
    """Numbers only grow: an acknowledgement of a later one says as much as that of an earlier."""

    __slots__ = ("_is_pressing", "_sent_at", "next", "rtt_s")

    def __init__(self) -> None:
        self.next = 1
        self.rtt_s: float | None = None
        """Of the last acknowledged one."""
        self._sent_at: dict[int, float] = {}
        self._is_pressing = False

    def begin(self, now: float, *, is_pressing: bool = False) -> int:
        """Return the number of a PING that is sent now. `is_pressing`: `repeat` in its datagram's flight."""
        uid = self.next
        self.next += 1
        if len(self._sent_at) >= MAX_UNDER_WAY:
            del self._sent_at[next(iter(self._sent_at))]
        self._sent_at[uid] = now
        self._is_pressing = self._is_pressing or is_pressing
        return uid

    def acknowledged(self, uid: int, now: float) -> None:
        sent_at = self._sent_at.pop(uid, None)
        if sent_at is not None:
            self.rtt_s = now - sent_at

    def repeat(self, datagrams: list[bytes], full_size: int) -> None:
        """Add copies of the last datagram where a PING presses.

        A listener that sees us at a new address may answer with three times what came from there. Copies, which its
        engine takes for the duplicates that they are, allow it two datagrams of full size.
        """
        if self._is_pressing and datagrams:
            self._is_pressing = False
            ping = datagrams[-1]
            if len(ping) <= SMALL_DATAGRAM_SIZE:
                datagrams += [ping] * (2 * full_size // (AMPLIFICATION * len(ping)))
