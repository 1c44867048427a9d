"""Where a connection's datagrams go while its engine sees one constant address. Pure.

A qh3 listener follows three changes of address and is deaf to the fourth, so the engine never learns of any. When
datagrams come from a new address the connection asks for an acknowledgement (a PING), and only an acknowledgement that
came *from there* makes it the address: what is merely copied or forged cannot divert the connection. Until then
datagrams go to the new address only while the old one stays silent.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

__all__ = ["AMPLIFICATION", "CANDIDATE_TIMEOUT_S", "PathMap"]

AMPLIFICATION = 3
"""RFC 9000 section 8: bytes sent to an address that is not validated, per byte received from it."""
CANDIDATE_TIMEOUT_S = 30.0
"""A candidate that has not answered by then is forgotten; the peer's next datagram makes it one again. An engine whose
datagrams were lost for seconds takes seconds until it tries again, so that this is about an idle time-out."""

FUNDED_SIZE = 1200
"""A PING may share its datagram with data that was lost, which the bytes from a new address must pay for."""
PROBE_INTERVAL_S = 0.1
"""PINGs may be lost, qh3 does not repeat them, and a window full of lost data lets none out for a while."""


class _Path(Protocol):
    def is_same_peer(self, other: object, /) -> bool: ...


P = TypeVar("P", bound=_Path)


class _Candidate(Generic[P]):
    __slots__ = ("expires_at", "leads", "path", "probe", "probed_at", "received", "sent")

    def __init__(self, path: P, probe: int, now: float, received: int) -> None:
        self.path = path
        self.probe = probe
        self.expires_at = now + CANDIDATE_TIMEOUT_S
        self.probed_at = now
        self.leads = True
        """Nothing came on the active path since the last datagram from here."""
        self.received = received
        self.sent = 0

    @property
    def allowance(self) -> int:
        return AMPLIFICATION * self.received - self.sent


class PathMap(Generic[P]):
    """The path in use and at most one candidate."""

    __slots__ = ("_candidate", "active", "changes", "is_fixed")

    def __init__(self, path: P, *, is_fixed: bool) -> None:
        self.active = path
        self.is_fixed = is_fixed
        """A dialer's: a listener does not move (RFC 9000 section 9), what comes from elsewhere is not for it."""
        self.changes = 0
        self._candidate: _Candidate[P] | None = None

    @property
    def has_candidate(self) -> bool:
        return self._candidate is not None

    def received(self, path: P, size: int, now: float, probe: int) -> bool:
        """Count bytes from a path that is not the active one. Returns whether PING `probe` is to be sent.

        The numbers of PINGs only grow: any one from the first probe on, acknowledged from there, will do.
        """
        candidate = self._candidate
        if candidate is None or candidate.expires_at <= now or not candidate.path.is_same_peer(path):
            self._candidate = _Candidate(path, probe, now, size)
            return True
        was_funded = candidate.allowance >= FUNDED_SIZE
        candidate.received += size
        is_funded = candidate.allowance >= FUNDED_SIZE and not was_funded
        asks_again = is_funded or not candidate.leads or now >= candidate.probed_at + PROBE_INTERVAL_S
        candidate.leads = True
        if asks_again:
            candidate.probed_at = now
        return asks_again

    def acknowledged(self, probe: int, path: P) -> bool:
        """PING `probe` was acknowledged out of a datagram from `path`. Returns whether the active path changed."""
        candidate = self._candidate
        if candidate is None or candidate.probe > probe or not candidate.path.is_same_peer(path):
            return False
        self.active = candidate.path
        self._candidate = None
        self.changes += 1
        return True

    def heard_on_active(self, now: float) -> None:
        """Datagrams came on the active path: it is alive, and the candidate perhaps not the peer."""
        candidate = self._candidate
        if candidate is not None:
            candidate.leads = False
            if candidate.expires_at <= now:
                self._candidate = None

    def split(self, datagrams: list[bytes], now: float) -> list[tuple[P, list[bytes]]]:
        """Say where `datagrams` go: to the candidate as far as its bytes allow, the rest where they always went.

        The old address is likely dead, so that all of a retransmission has to try the new one first.
        """
        candidate = self._candidate
        if candidate is not None and candidate.expires_at <= now:
            self._candidate = candidate = None
        if candidate is None or not candidate.leads:
            return [(self.active, datagrams)]
        allowance = candidate.allowance
        there = 0
        for datagram in datagrams:
            if len(datagram) > allowance:
                break
            allowance -= len(datagram)
            candidate.sent += len(datagram)
            there += 1
        parts = []
        if there:
            parts.append((candidate.path, datagrams[:there]))
        if there < len(datagrams):
            parts.append((self.active, datagrams[there:]))
        return parts
