"""Whom a client trusts: the authorities of its credential, and what its brokers tell of the mesh's trust list.

The list is kept beside the credential file, where there is one that may be written beside: a client that is started
anew refuses a revoked node at once. Otherwise it learns of it from its first broker.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.client.trust_file import TrustFile
    from quicbus.identity import Credential
    from quicbus.identity.trust import TrustStore

__all__ = ["ClientTrust"]

_log = logging.getLogger("quicbus.client")


class ClientTrust:
    """The `SessionTrust` of one client. `follow` its credential before anything else, and whenever it is another.

    `on_learned` is called when there `is_to_keep` a list that was told; then call `keep`, in a thread.
    """

    def __init__(self, file: TrustFile | None = None) -> None:
        self.on_learned: Callable[[], None] = lambda: None
        self.is_to_keep = False
        self._store: TrustStore | None = None
        self._installed = b""
        self._file = file
        self._has_failed = False

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
        if self._file is not None and (stored := self._file.read()):
            with contextlib.suppress(CredentialError):  # of another mesh, or damaged: the first broker has it
                self._store = TrustStore(credential.mesh, credential.authority_pem, stored)
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
            if not self._store.take(signed, dt.datetime.now(dt.UTC)):
                return
        except CredentialError as error:
            _log.warning("= the broker told a trust list that is not to be believed: %s", error)
            return
        if self._file is not None and not self._file.is_kept_by_broker:
            self.is_to_keep = True
            self.on_learned()

    def keep(self) -> None:
        """Write the list down, unless another process has written a later one. Blocks; says once where it fails."""
        store, file = self._store, self._file
        if store is None or file is None:
            return
        from quicbus.identity.trust import TrustStore

        stored, signed = file.read(), store.raw
        with contextlib.suppress(CredentialError):
            if stored and TrustStore(store.mesh, self.authority_pem, stored).version >= store.version:
                return
        try:
            file.write(signed)
        except OSError as error:
            level, self._has_failed = logging.DEBUG if self._has_failed else logging.INFO, True
            why = error.strerror or error
            _log.log(level, "= who is revoked is not kept for the next start, %s can't be written: %s", file.path, why)

    def refusal(self, node: bytes) -> str:
        """Return why not to talk to a node; empty where nothing is against it."""
        revocation = self._store.revocation(node) if self._store is not None else None
        if revocation is None:
            return ""
        return f"node {revocation.name} ({node.hex()}) was revoked on {revocation.time:%Y-%m-%d %H:%M} UTC; use another"
