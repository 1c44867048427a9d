"""Whom a client trusts: the authorities of its credential, and what its brokers tell of the mesh's trust list.

The list is kept as long as the client lives, not on disk: one that is started anew learns it from its first broker.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError

if TYPE_CHECKING:
    from quicbus.identity import Credential
    from quicbus.identity.trust import TrustStore

__all__ = ["ClientTrust"]

_log = logging.getLogger("quicbus.client")


class ClientTrust:
    """The `SessionTrust` of one client. `follow` its credential before anything else, and whenever it is another."""

    def __init__(self) -> None:
        self._store: TrustStore | None = None
        self._installed = b""

    def follow(self, credential: Credential) -> None:
        """Go by this credential from now on; what is known of its mesh stays known."""
        if self._store is not None and (credential.mesh, credential.authority_pem) == (
            self._store.mesh,
            self._installed,
        ):
            return
        from quicbus.identity.trust import TrustStore

        raw = self._store.raw if self._store is not None and self._store.mesh == credential.mesh else b""
        self._installed = credential.authority_pem
        self._store = TrustStore(credential.mesh, credential.authority_pem)
        if raw:
            self.learned(raw)

    @property
    def authority_pem(self) -> bytes:
        """The authorities to trust: those in the list, and those of the credential."""
        assert self._store is not None, "follow() comes first"
        if not self._store.version:
            return self._installed
        from quicbus.identity import pem

        own = pem.split(self._installed, "the credential").certificates
        return pem.join(dict.fromkeys((*self._store.authorities, *own)))

    def learned(self, signed: bytes) -> None:
        """A broker told the trust list: go by it if it is later, and of an authority that is trusted here."""
        if self._store is None or signed == self._store.raw:
            return
        try:
            self._store.take(signed, dt.datetime.now(dt.UTC))
        except CredentialError as error:
            _log.warning("= the broker told a trust list that is not to be believed: %s", error)

    def refusal(self, node: bytes) -> str:
        """Return why not to talk to a node; empty where nothing is against it."""
        revocation = self._store.revocation(node) if self._store is not None else None
        if revocation is None:
            return ""
        return f"node {revocation.name} ({node.hex()}) was revoked on {revocation.time:%Y-%m-%d %H:%M} UTC; use another"
