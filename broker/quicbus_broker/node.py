"""What a broker is: its identity, out of its data folder or out of the files that its settings name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quicbus.identity import Credential, Role, Verifier
from quicbus.identity.data_folder import DataFolder

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus_broker.settings import BrokerSettings

__all__ = ["NodeIdentity"]


class NodeIdentity:
    """Opened by the constructor, which locks the data folder; `close` frees it. May be closed twice.

    Raises `DataFolderError` and `CredentialError`, which name the remedy.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.data_dir: Path = settings.folder
        self._folder: DataFolder | None = None
        if settings.certificate and settings.private_key and settings.authority:
            self.credential = Credential.from_files(
                settings.certificate, settings.private_key, settings.authority, role=Role.NODE
            )
            self.boot = int(time.time() * 1000)
        else:
            # Who names a seed wants to join a mesh: a new one, made here, could never be part of it.
            self._folder = DataFolder.open(
                self.data_dir, may_create_authority=not settings.seed, node_name=settings.name or None
            )
            try:
                self.boot = self._folder.next_boot()
            except BaseException:
                self._folder.close()
                raise
            self.credential = self._folder.node

    @property
    def credential_path(self) -> Path | None:
        """What local applications connect with; `None` where settings name the files."""
        return None if self._folder is None else self._folder.credential_path

    @property
    def may_be_first(self) -> bool:
        """Whether its mesh may have been made here; not where the folder was written by `quicbus cert issue --node`."""
        return self._folder is None or self._folder.authority is not None

    def verifier(self) -> Verifier:
        """Return what proves clients: they hold certificates of the same authority."""
        return Verifier(self.credential.authority_pem, self.credential.mesh)

    def renew(self) -> bool:
        """Issue the node's certificate anew when its time has come, where this folder has the authority's key.

        Returns whether `credential` has changed. Reads and writes files.
        """
        if self._folder is None or not self._folder.renew():
            return False
        self.credential = self._folder.node
        return True

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()
