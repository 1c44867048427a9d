"""The mesh's trust list beside a credential file, so that a client that is started anew knows who is revoked.

The list is signed and no secret. It stands in `NAME.trust` beside `NAME.pem`; beside the credential in a data folder it
is the list of the broker there, which keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TrustFile"]

SUFFIX = ".trust"
_FOLDER_FILES = ("credential.pem", "node.pem", "trust.bin")
"""Of a data folder (`quicbus.identity.folder_files`, which takes a while to load)."""


class TrustFile:
    """Of one credential file, which need not exist. Reads and writes block."""

    def __init__(self, credential: Path) -> None:
        folder = credential.parent
        own, node, trust = _FOLDER_FILES
        self.is_kept_by_broker = credential.name == own and (folder / node).exists()
        self.path = folder / trust if self.is_kept_by_broker else credential.with_suffix(SUFFIX)

    def read(self) -> bytes:
        """Return the list, unchecked; empty where there is none that can be read."""
        try:
            with self.path.open("rb") as file:
                return file.read(limits.MAX_TRUST_SIZE + 1)
        except OSError:
            return b""

    def write(self, signed: bytes) -> None:
        """Replace the list; raises `OSError`."""
        from quicbus.identity.files import write_file

        write_file(self.path, signed, private=False)
