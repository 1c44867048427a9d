"""When a connection agrees on its next key. Pure."""

from __future__ import annotations

__all__ = ["KeyUpdates"]


class KeyUpdates:
    """After every `packets` packets; not again before a packet with the present key is acknowledged (RFC 9001 section
    6.1), which a PING finds out.
    """

    __slots__ = ("_packets", "_ping", "count", "due_at")

    def __init__(self, packets: int) -> None:
        self.count = 0
        self.due_at = packets
        """Packets sent by when `begin` is to be called."""
        self._packets = packets
        self._ping: int | None = None

    def begin(self, sent: int, ping: int) -> bool:
        """PING `ping` goes out after `sent` packets. Returns whether a new key is to be agreed on before."""
        if self._ping is not None:  # Any later PING will do: the first one was lost, or the path is slow.
            self.due_at = sent + self._packets // 16 + 1
            return False
        self.count += 1
        self._ping = ping
        self.due_at = sent + self._packets
        return True

    def acknowledged(self, ping: int) -> None:
        if self._ping is not None and ping >= self._ping:
            self._ping = None
