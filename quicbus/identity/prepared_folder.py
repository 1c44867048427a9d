"""A data folder whose node has a key but no certificate yet: to join by a token, or by a request signed elsewhere.

The key is kept from one attempt to the next, so that a request that was answered in vain is answered the same again.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Self

from quicbus.exceptions import DataFolderError
from quicbus.identity import pem
from quicbus.identity.authority import authority_mesh
from quicbus.identity.credential import Credential
from quicbus.identity.folder_content import make_key
from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    CREDENTIAL_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    REQUEST_FILE,
    TRUST_FILE,
    exists,
    file_names,
    make_folder,
    one_error,
    tidy,
    undo,
    write,
)
from quicbus.identity.folder_lock import lock_folder
from quicbus.identity.keys import generate_key
from quicbus.identity.names import Role
from quicbus.identity.requests import make_request, request_to_pem
from quicbus.identity.trust import TrustStore

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity.folder_lock import FolderLock
    from quicbus.identity.issuing import Issued

__all__ = ["PreparedFolder"]


class PreparedFolder:
    """Opened and locked. `close` it, or use it in `with`; then `DataFolder.open` opens what was installed."""

    def __init__(
        self, path: Path, lock: FolderLock, key: ec.EllipticCurvePrivateKey, *, is_new: bool, before: Sequence[str]
    ) -> None:
        self.path = path
        self._lock = lock
        self._key = key
        self._is_new = is_new
        self._before = before
        self._local_key = generate_key()
        self.request = make_request(key)
        """The signing request of the node, DER."""
        self.local_request = make_request(self._local_key)
        """That of the credential for local applications, with a key that is new each time."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, again: bool = False) -> Self:
        """Make or lock the folder, and make the node's key where there is none; raises `DataFolderError`.

        A folder that has a node's certificate is refused: it is of a mesh already. `again`: that certificate is of the
        same mesh, and of no use any more.
        """
        folder = Path(path)
        with one_error(folder):
            if not again and exists(folder / NODE_FILE):
                raise DataFolderError(
                    str(folder), "it has a node's certificate already; start the broker without a token to use it"
                )
            if not again and exists(folder / AUTHORITY_FILE):
                raise DataFolderError(
                    str(folder), f"it has an authority already ({AUTHORITY_FILE}); name another folder with --data-dir"
                )
            is_new = make_folder(folder)
            before = file_names(folder)
            lock = lock_folder(folder, is_new)
            try:
                tidy(folder)
                return cls(folder, lock, make_key(folder, NODE_KEY_FILE), is_new=is_new, before=before)
            except BaseException:
                undo(folder, keep=before, remove_folder=is_new)
                lock.release()
                raise

    def write_request(self) -> Path:
        """Write the request as a file for `quicbus cert sign`, and return where; raises `DataFolderError`."""
        with one_error(self.path):
            write(self.path, REQUEST_FILE, request_to_pem(self.request))
        return self.path / REQUEST_FILE

    def install(self, issued: Issued, trusted: Sequence[bytes], now: dt.datetime | None = None) -> Credential:
        """Make it the data folder of a node with what was issued; raises `DataFolderError`.

        `trusted`: the authorities (DER) that are trusted before, which are those of the token. Others are taken only
        from the trust list that they have signed.
        """
        now = now or dt.datetime.now(dt.UTC)
        with one_error(self.path):
            anchors = [pem.certificate_from_der(der, "the token") for der in trusted]
            if issued.trust:
                trust = TrustStore(authority_mesh(anchors[0], "the token"), pem.join(anchors))
                trust.take(issued.trust, now)
                anchors = list(trust.authorities)
            node = Credential.from_issued(self._key, issued.chain, anchors)
            node.check("the certificate that was issued", role=Role.NODE, now=now)
            write(self.path, AUTHORITY_FILE, pem.join(anchors))
            if issued.trust:
                write(self.path, TRUST_FILE, issued.trust)
            if issued.local_chain:
                local = Credential.from_issued(self._local_key, issued.local_chain, anchors)
                local.check("the local credential that was issued", role=Role.CLIENT, now=now)
                write(self.path, CREDENTIAL_FILE, local.to_pem())
            write(self.path, NODE_FILE, node.chain_pem)  # last: a folder with it is one that a broker starts from
        return node

    def undo(self) -> None:
        """Leave the folder as it was found: what was made since goes. To be called before `close`; never raises."""
        undo(self.path, keep=self._before, remove_folder=self._is_new)

    def close(self) -> None:
        """Free the folder. May be called twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
