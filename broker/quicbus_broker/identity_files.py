"""Where the identity of a broker is on disk: a data folder, or files that its settings name, and what is new in them.

All of it reads and writes files: call it in a thread while the broker runs.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Protocol

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import Credential, Role
from quicbus.identity.files import FileStamp, file_stamp, write_file
from quicbus.identity.trust import TrustStore
from quicbus.limits import MAX_TRUST_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quicbus.identity.data_folder import DataFolder

__all__ = ["FolderFiles", "IdentityFiles", "NamedFiles"]

Stamps = tuple[FileStamp | None, ...]


class IdentityFiles(Protocol):
    """What was read last. `reload` reads again what was replaced, and leaves what it was where that can't be taken."""

    @property
    def credential(self) -> Credential: ...

    @property
    def trust(self) -> bytes:
        """The trust list, signed; empty where there is none."""
        ...

    @property
    def authorities_pem(self) -> bytes: ...

    def reload(self) -> bool:
        """Return whether something may be new. Raises `QuicbusError` once for each state of the files."""
        ...

    def keep(self, trust: bytes) -> None:
        """Write down a later trust list; raises `QuicbusError`."""
        ...

    def install(self, chain: Sequence[bytes], trust: bytes) -> None:
        """Write down a certificate that was renewed elsewhere, and the trust list that came with it, if any.

        Raises `QuicbusError`; a certificate that is good but can't be written counts until the broker stops.
        """
        ...


class FolderFiles:
    """A data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    @property
    def credential(self) -> Credential:
        return self._folder.node

    @property
    def trust(self) -> bytes:
        return self._folder.trust.raw

    @property
    def authorities_pem(self) -> bytes:
        return self._folder.trust.authorities_pem

    def reload(self) -> bool:
        return bool(self._folder.reload())

    def keep(self, trust: bytes) -> None:
        self._folder.take_trust(trust)

    def install(self, chain: Sequence[bytes], trust: bytes) -> None:
        self._folder.install_node(chain, trust=trust)


class NamedFiles:
    """Three files that the settings name, and one for the trust list, `trust_path`, that may be missing."""

    def __init__(self, certificate: Path, private_key: Path, authority: Path, trust_path: Path | None = None) -> None:
        """Raises `CredentialError`."""
        self._paths = (certificate, private_key, authority)
        self._stamps = _stamps(*self._paths)
        self.credential = self._read(may_be_expired=True)
        self.authorities_pem = self.credential.authority_pem
        self._trust_path = trust_path
        self.trust = b""

    def read_trust(self, path: Path) -> None:
        """Keep the trust list there from now on; raises `CredentialError` where it can't be read."""
        self._trust_path = path
        self._stamps = _stamps(*self._paths, path)
        self.trust = _read_trust(path)

    def reload(self) -> bool:
        paths = self._paths if self._trust_path is None else (*self._paths, self._trust_path)
        stamps = _stamps(*paths)
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        if self._trust_path is not None:
            self.trust = _read_trust(self._trust_path) or self.trust
        credential = self._read()
        if (credential.node_id, credential.mesh) != (self.credential.node_id, self.credential.mesh):
            raise CredentialError(
                f"certificate {self._paths[0]}: it is of another node or mesh now ({credential.name}, "
                f"{credential.node_id.hex()}); restart the broker to become that one, or put the old files back"
            )
        self.credential = credential
        self.authorities_pem = credential.authority_pem
        return True

    def keep(self, trust: bytes) -> None:
        if self._trust_path is None:
            return
        self.trust = trust
        try:
            self._trust_path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._trust_path, trust, private=False)
        except OSError as error:
            raise DataFolderError(str(self._trust_path), f"it can't be written: {error.strerror or error}") from error

    def install(self, chain: Sequence[bytes], trust: bytes) -> None:
        now = dt.datetime.now(dt.UTC)
        trusted = TrustStore(self.credential.mesh, self.authorities_pem, self.trust or None)
        if trust and trusted.take(trust, now):
            self.keep(trust)
        source = "the renewed certificate"
        renewed = Credential.from_issued(self.credential.private_key, chain, trusted.authorities, source)
        renewed.check(source, role=Role.NODE, now=now)
        self.credential = renewed
        path = self._paths[0]
        try:
            write_file(path.resolve(), renewed.chain_pem, private=False)
        except OSError as error:
            raise CredentialError(
                f"certificate {path}: it was renewed and can't be written: {error.strerror or error}; make it writable "
                "for the broker, or the next start has the old one"
            ) from error

    def _read(self, *, may_be_expired: bool = False) -> Credential:
        certificate, private_key, authority = self._paths
        now = dt.datetime.now(dt.UTC)
        return Credential.from_files(
            certificate, private_key, authority, role=Role.NODE, now=now, allow_expired=may_be_expired
        )


def _read_trust(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TRUST_SIZE + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CredentialError(f"trust list {path}: can't be read: {error.strerror or error}") from None


def _stamps(*paths: Path) -> Stamps:
    return tuple(map(file_stamp, paths))
