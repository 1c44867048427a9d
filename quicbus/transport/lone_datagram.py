"""How long the acknowledgement of a lone datagram may wait for something to go with. Pure; times in seconds."""

from __future__ import annotations

from typing import Final

__all__ = ["FAR_ROUND_TRIP_S", "LoneDatagram"]

ACKNOWLEDGE_WITHIN_S: Final = 0.005
"""A fifth of the 25 ms that both engines announce and senders allow for (RFC 9000 section 13.2.1). The engines' own
1 ms is over before most answers come."""
FAR_ROUND_TRIP_S: Final = 0.010
"""From here on an acknowledgement waits no longer than the engines themselves let it, 1 ms: over such paths datagrams
are lost, which senders notice by the acknowledgement of later ones."""
ACKNOWLEDGE_SIZE: Final = 2400
"""Bytes that are acknowledged at once: two datagrams of 1,200 bytes (section 13.2.2), or of the largest size that came.
That is the least window which a sender falls back to (RFC 9002 section 7.2), so that none waits for what is held back
here."""


class LoneDatagram:
    """What one connection received since its engine was asked for datagrams."""

    __slots__ = ("_acknowledge_size", "_is_fed", "acknowledge_at", "size")

    def __init__(self) -> None:
        self.size = 0
        """Bytes."""
        self.acknowledge_at = 0.0
        """Holds while there is a `size`."""
        self._acknowledge_size = ACKNOWLEDGE_SIZE
        self._is_fed = False

    def fed(self, size: int, is_several: bool, now: float) -> bool:
        """Count what was received; returns whether it is to be acknowledged at once, as it is not lone."""
        if not self.size:
            self.acknowledge_at = now + ACKNOWLEDGE_WITHIN_S
        self.size += size
        is_lone = not (self._is_fed or is_several)
        self._is_fed = True
        if is_lone and 2 * size > self._acknowledge_size:
            self._acknowledge_size = 2 * size
        return not is_lone or self.size >= self._acknowledge_size

    def end_turn(self) -> bool:
        """Return whether anything was received in this turn; another one begins."""
        was_fed, self._is_fed = self._is_fed, False
        return was_fed

    def asked(self) -> None:
        """The engine was asked for datagrams: it acknowledges with them what it wants to."""
        self.size = 0
        self._is_fed = False
