"""What a broker is and whom it trusts: its identity, out of its data folder or out of the files that its settings name.

What stands in the files may be replaced while the broker runs: `look` reads it, in a thread, and `adopt` goes by it, in
the event loop. The trust list that counts here is `trust`: whichever is later, that in the files or the mesh's.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from quicbus.exceptions import CredentialError
from quicbus.identity import Credential, Issuer, Verifier
from quicbus.identity.data_folder import DataFolder
from quicbus.identity.peer import ISSUE_NODE
from quicbus.identity.trust import TrustStore
from quicbus.logs import logger_for
from quicbus_broker.identity_files import FolderFiles, NamedFiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quicbus.logs import NodeAdapter
    from quicbus_broker.identity_files import IdentityFiles
    from quicbus_broker.settings import BrokerSettings

__all__ = ["Adopted", "NodeIdentity"]


class Adopted(msgspec.Struct, frozen=True):
    """What is other than before."""

    certificate: bool = False
    authorities: bool = False
    trust: bool = False
    """The trust list."""

    def __bool__(self) -> bool:
        return self.certificate or self.authorities or self.trust


class NodeIdentity:
    """Opened by the constructor, which locks the data folder; `close` frees it. May be closed twice.

    Its certificate may have expired: then it is to be renewed before it is used.
    Raises `DataFolderError` and `CredentialError`, which name the remedy.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.data_dir: Path = settings.folder
        self._folder: DataFolder | None = None
        self._files: IdentityFiles
        self._busy = threading.Lock()
        """Files are read and written by one thread at a time."""
        if settings.certificate and settings.private_key and settings.authority:
            named = NamedFiles(settings.certificate, settings.private_key, settings.authority)
            named.read_trust(self.data_dir / f"trust-{named.credential.node_id.hex()[:8]}.bin")
            self._files = named
            self.boot = int(time.time() * 1000)
        else:
            # Who names a seed wants to join a mesh: a new one, made here, could never be part of it.
            self._folder = DataFolder.open(
                self.data_dir,
                may_create_authority=settings.makes_authority and not settings.seed,
                node_name=settings.name or None,
                may_be_expired=True,
            )
            try:
                self.boot = self._folder.next_boot()
            except BaseException:
                self._folder.close()
                raise
            self._files = FolderFiles(self._folder)
        self.credential = self._files.credential
        try:
            self._open_trust()
        except BaseException:
            self.close()
            raise

    trust: TrustStore
    """Changed in the event loop only."""

    def _open_trust(self) -> None:
        credential = self.credential
        self._installed = self._files.authorities_pem
        try:
            self.trust = TrustStore(credential.mesh, self._installed, self._files.trust or None)
        except CredentialError as error:
            raise CredentialError(
                f"the trust list in {self.data_dir}: {error.why}; remove the file: the other nodes have the list, too"
            ) from None
        self.credential = self._trusting(credential)
        pem = self.trust.authorities_pem
        self._verifier = Verifier(pem, credential.mesh, self.trust.revocation)
        self._node_verifier = Verifier(pem, credential.mesh)
        if why := self.revoked():
            raise CredentialError(why)

    @property
    def credential_path(self) -> Path | None:
        """What local applications connect with; `None` where settings name the files."""
        return None if self._folder is None else self._folder.credential_path

    @property
    def may_be_first(self) -> bool:
        """Whether its mesh may have been made here; not where the folder was written by `quicbus cert issue --node`."""
        return self._folder is None or self._folder.authority is not None

    @property
    def issuer(self) -> Issuer | None:
        """What issues certificates, where the authority's key is in the data folder."""
        if self._folder is None or self._folder.authority is None:
            return None
        return Issuer(self._folder.path, self._folder.authority)

    def verifier(self) -> Verifier:
        """Return what proves clients: they hold certificates of a trusted authority, and are not revoked. It follows
        changes."""
        return self._verifier

    def node_verifier(self) -> Verifier:
        """Return what proves nodes: likewise, but the mesh refuses those that are revoked, which it tells so first."""
        return self._node_verifier

    def revoked(self) -> str:
        """Return a sentence where this very node is revoked."""
        found = self.trust.revocation(self.credential.node_id)
        if found is None:
            return ""
        return (
            f"the key of this node, {self.credential.name} ({self.credential.node_id.hex()}), was revoked on "
            f"{found.time:%Y-%m-%d %H:%M} UTC: it is no member of its mesh any more; to run a broker here make it "
            f"a new node with {ISSUE_NODE} on the machine with the authority, in a new data folder"
        )

    # --- in a thread ---

    def look(self) -> bool:
        """Read again what was replaced on disk, and tell whether `adopt` has something to do.

        Raises `QuicbusError` once for what can't be taken; then, too, `adopt` may have something to do.
        """
        with self._busy:
            return self._files.reload()

    def renew(self) -> bool:
        """Issue the node's certificate anew when its time has come, where this folder has the authority's key.

        Returns whether it has changed; then `adopt` it. Reads and writes files.
        """
        with self._busy:
            return self._folder is not None and self._folder.renew()

    def install(self, chain: Sequence[bytes], trust: bytes) -> None:
        """Write down a certificate (DER, its own first) that was renewed elsewhere, and the trust list with it, if any.

        Then `adopt` it. Raises `QuicbusError` where it is not this node's, or can't be written.
        """
        with self._busy:
            self._files.install(chain, trust)

    def local(self) -> Credential | None:
        """Return the credential of local applications, expired or not; raises `CredentialError`."""
        path = self.credential_path
        if path is None or not path.exists():
            return None
        return Credential.from_pem(path.read_bytes(), source=str(path), allow_expired=True)

    def install_local(self, renewed: Credential) -> None:
        """Write down the renewed credential of local applications; raises `QuicbusError`."""
        assert self._folder is not None  # `local` was read from there
        with self._busy:
            self._folder.install_credential(renewed)

    def keep_trust(self) -> None:
        """Write the trust list down; raises `QuicbusError`."""
        signed = self.trust.raw
        with self._busy:
            if signed and signed != self._files.trust:
                self._files.keep(signed)

    # --- in the event loop ---

    def adopt(self) -> Adopted:
        """Go by what `look` and `renew` found."""
        version, authorities = self.trust.version, self.trust.authorities_pem
        files = self._files
        try:
            if files.trust and files.trust != self.trust.raw:
                self.trust.take(files.trust, dt.datetime.now(dt.UTC))
            elif not files.trust and files.authorities_pem != self._installed:
                self.trust.install(files.authorities_pem)
        except CredentialError as error:
            self._log.warning("= the trust list on disk can't be taken: %s", error)
        self._installed = files.authorities_pem
        before = self.credential
        self._follow()
        return Adopted(
            certificate=before.chain_pem != self.credential.chain_pem,
            authorities=authorities != self.trust.authorities_pem,
            trust=version != self.trust.version,
        )

    def take_trust(self, signed: bytes) -> bool:
        """Go by a trust list that another node brought, if it is later; raises `CredentialError`."""
        if signed == self.trust.raw or not self.trust.take(signed, dt.datetime.now(dt.UTC)):
            return False
        self._follow()
        return True

    def _follow(self) -> None:
        pem = self.trust.authorities_pem
        self.credential = self._trusting(self._files.credential)
        self._verifier.trust(pem)
        self._node_verifier.trust(pem)

    def _trusting(self, credential: Credential) -> Credential:
        """Return the credential with the authorities that are trusted now."""
        if credential.authority_pem == self.trust.authorities_pem:
            return credential
        try:
            return Credential.from_issued(
                credential.private_key, credential.chain_der, self.trust.authorities, "the node's certificate"
            )
        except CredentialError as error:
            self._log.error("= the mesh does not trust the authority of this node any more: %s", error)
            return credential

    @property
    def _log(self) -> NodeAdapter:
        return logger_for("quicbus_broker", node=self.credential.node_id.hex())

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()
