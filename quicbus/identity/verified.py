"""Chains that a listener has verified: who comes again with the same certificate need not have it verified again.

That a chain leads to an authority does not change while the authorities stay and all its certificates are valid. What
may change, whether the key was revoked, and what is of one connection, the proof, is not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quicbus import limits

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity.peer import Peer

__all__ = ["VerifiedChains"]


class _Verified(msgspec.Struct, frozen=True):
    peer: Peer
    public_key: ec.EllipticCurvePublicKey
    since: dt.datetime
    until: dt.datetime


class VerifiedChains:
    """Of one set of authorities; make another when these change. The one that was used longest ago goes first."""

    __slots__ = ("_authorities", "_known")

    def __init__(self, authorities: Sequence[x509.Certificate]) -> None:
        self._authorities = authorities
        self._known: dict[tuple[bytes, ...], _Verified] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, chain_der: tuple[bytes, ...], now: dt.datetime) -> tuple[Peer, ec.EllipticCurvePublicKey] | None:
        """Return whom a chain is for and the key in it; `None` where it is to be verified."""
        known = self._known.pop(chain_der, None)
        if known is None or not known.since <= now <= known.until:
            return None
        self._known[chain_der] = known
        return known.peer, known.public_key

    def keep(
        self,
        chain_der: tuple[bytes, ...],
        chain: Sequence[x509.Certificate],
        peer: Peer,
        public_key: ec.EllipticCurvePublicKey,
        now: dt.datetime,
    ) -> None:
        """Remember a chain that was verified as of `now`, until one of the certificates that it may rest on ends."""
        if sum(map(len, chain_der)) > limits.MAX_KEPT_CHAIN_SIZE:
            return
        rests_on = [*chain, *(one for one in self._authorities if _is_valid(one, now))]
        since = max(one.not_valid_before_utc for one in rests_on)
        until = min(one.not_valid_after_utc for one in rests_on)
        self._known[chain_der] = _Verified(peer, public_key, since, until)
        if len(self._known) > limits.MAX_KEPT_CHAINS:
            del self._known[next(iter(self._known))]


def _is_valid(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
