"""The trust list at the edge: sessions of revoked keys are closed, and clients are told whom to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.identity.peer import ISSUE_CLIENT
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Trust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quicbus.identity.trust import Revocation, TrustStore
    from quicbus_broker.edge.session import Session

__all__ = ["EdgeTrust"]

TOLD_SIZE_PER_TICK = 4 * 1024 * 1024
"""Clients are told of a change so many bytes at a time: 10,000 of them would be sent two gigabytes at once."""


class EdgeTrust:
    """`signed` is what a client that comes in is told; empty: nothing."""

    def __init__(self) -> None:
        self.signed = b""
        self._untold: dict[Session, None] = {}

    def changed(self, trust: TrustStore, sessions: Iterable[Session]) -> None:
        """Go by this list from now on; `tick` tells the clients."""
        is_new = trust.raw != self.signed
        self.signed = trust.raw
        for session in list(sessions):
            revocation = trust.revocation(session.key_id) if session.key_id else None
            if revocation is not None:
                session.refuse(CloseCode.CREDENTIAL_REVOKED, _why(revocation))
            elif is_new and self.signed:
                self._untold[session] = None

    def tick(self) -> None:
        budget = TOLD_SIZE_PER_TICK
        while self._untold and budget > 0:
            session = next(iter(self._untold))
            del self._untold[session]
            session.tell_trust(Trust(signed=self.signed))
            budget -= len(self.signed)

    def forget(self, session: Session) -> None:
        """The session is closed."""
        self._untold.pop(session, None)


def _why(revocation: Revocation) -> str:
    return (
        f"the key of client {revocation.name} was revoked on {revocation.time:%Y-%m-%d %H:%M} UTC; whoever runs the "
        f"authority may give it a new one with {ISSUE_CLIENT}"
    )
