"""How many bytes a peer makes a connection hold below its streams. Pure.

Whoever leaves out the first byte of a stream has everything after it kept, and no event tells of it. So the bytes of
datagrams fed in are counted up and the stream bytes that come out are counted down.
"""

from __future__ import annotations

from typing import Final

from quicbus import limits

__all__ = ["UndeliveredBytes"]

DELIVERED_SHARE: Final = 8
SENT_SHARE: Final = 16
QUIET_BYTES_PER_S: Final = 128
DATAGRAM_OVERHEAD: Final = 80
"""What a peer sends besides stream bytes: headers and repetitions (under an eighth of the stream bytes),
acknowledgements (under a sixteenth of what they acknowledge, and in every datagram, however small: header, tag and ACK
frame), PINGs. It piles up nowhere, and without this allowance a subscriber that receives gigabytes, or a publisher of
single small messages, would be closed for acknowledgements and headers."""


class UndeliveredBytes:
    """The count of one connection, and its bound. `fed` and `delivered` are on the hot path."""

    __slots__ = ("_acknowledged_at", "_acknowledged_sent", "_count", "_datagrams", "_is_proven", "allowed")

    def __init__(self, now: float, allowed: int = limits.UNDELIVERED_BEFORE_PROOF) -> None:
        self.allowed = allowed
        self._is_proven = False
        self._count = 0
        self._acknowledged_at = now
        self._acknowledged_sent = 0
        self._datagrams = 0

    def allow(self, size: int) -> None:
        """The peer has proved who it is: it may make the connection hold more."""
        self.allowed = size
        self._is_proven = True

    def fed(self, size: int) -> None:
        self._count += size

    def delivered(self, size: int) -> None:
        count = self._count - size - size // DELIVERED_SHARE
        self._count = max(count, 0)

    def excess(self, bytes_sent: int, datagrams_received: int, now: float) -> int | None:
        """Return the count when it is over the bound. `bytes_sent` and `datagrams_received` count from the beginning.

        For strangers nothing but stream bytes counts as delivered.
        """
        if self._count <= self.allowed:
            return None
        if self._is_proven:
            acknowledgements = (bytes_sent - self._acknowledged_sent) // SENT_SHARE
            quiet = int((now - self._acknowledged_at) * QUIET_BYTES_PER_S)
            overhead = (datagrams_received - self._datagrams) * DATAGRAM_OVERHEAD
            self._count = max(self._count - acknowledgements - quiet - overhead, 0)
            self._acknowledged_sent, self._acknowledged_at = bytes_sent, now
            self._datagrams = datagrams_received
        return self._count if self._count > self.allowed else None
