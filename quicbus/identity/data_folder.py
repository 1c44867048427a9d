"""The data folder of a node: its keys, certificates, the local credential and the boot counter.

```
authority.pem       the authority's certificate
authority-key.pem   its key; only in the folder of the node that made the mesh (or was given it)
node.pem            this node's certificate
node-key.pem        its key: the node's id is a hash of it
credential.pem      what local applications connect with; named after the local user
boot                the last boot number, in decimal
members.json        members of the mesh that a restarted broker dials besides its seeds
lock                locked while a broker uses the folder; holds its process id
```

The folder has mode 0700, what is secret 0600. Files are written whole, keys before the certificates made for them, so
that a first start that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Self

from quicbus.exceptions import DataFolderError
from quicbus.identity.authority import CERTIFICATE_DAYS, Authority
from quicbus.identity.files import PRIVATE_FOLDER_MODE, write_file
from quicbus.identity.folder_content import (
    make_authority,
    make_credential,
    make_node,
    read_authority,
    renewed_node,
)
from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    BOOT_FILE,
    CREDENTIAL_FILE,
    LOCK_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    exists,
    file_names,
    make_folder,
    one_error,
    tidy,
    undo,
    write,
)
from quicbus.identity.folder_lock import FolderInUse, FolderLock
from quicbus.identity.peer import ISSUE_NODE

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from quicbus.identity.credential import Credential

__all__ = ["DataFolder", "load_authority", "prepare_node_folder"]


def load_authority(path: str | os.PathLike[str]) -> Authority:
    """Read the authority of a data folder, to issue certificates; raises `DataFolderError`.

    Takes no lock: `quicbus cert issue` works beside a running broker.
    """
    folder = Path(path)
    with one_error(folder):
        authority = read_authority(folder)
    if authority is None:
        raise DataFolderError(
            str(folder),
            f"no authority in it ({AUTHORITY_FILE} and {AUTHORITY_KEY_FILE}); certificates are issued on the machine "
            "where the mesh was made: the first `quicbus broker`, started without --seed",
        )
    return authority


def prepare_node_folder(
    authority: Authority, name: str, out: str | os.PathLike[str], *, days: float = CERTIFICATE_DAYS
) -> Credential:
    """Write the data folder of a further node, without the authority's key; raises `DataFolderError`.

    `out` must be missing or empty. It appears whole or not at all, and holds secrets: copy it over a safe way.
    """
    folder = Path(out)
    node, local = authority.issue_node(name, days=days), authority.issue_client(name, days=days)
    with one_error(folder):
        if folder.exists() and any(folder.iterdir()):
            raise DataFolderError(str(folder), "it exists and is not empty; name another folder with --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        existed = folder.exists()
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        try:
            folder.chmod(PRIVATE_FOLDER_MODE)
            write(folder, AUTHORITY_FILE, authority.certificate_pem)
            write(folder, NODE_KEY_FILE, node.private_key_pem)
            write(folder, CREDENTIAL_FILE, local.to_pem())
            # Last, since a folder with it is one that a broker starts from.
            write(folder, NODE_FILE, node.chain_pem)
        except BaseException:
            undo(folder, keep=(), remove_folder=not existed)
            raise
    return node


class DataFolder:
    """An opened, locked data folder. `close` it, or use it in `with`."""

    def __init__(self, path: Path, lock: FolderLock, authority: Authority | None, node: Credential) -> None:
        self.path = path
        self.authority = authority
        """With its key, where the folder has it; then this node can issue certificates."""
        self.node = node
        """The node's credential: what it listens with."""
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        may_create_authority: bool,
        node_name: str | None = None,
        now: dt.datetime | None = None,
    ) -> Self:
        """Lock the folder and load it; on the first start of a mesh, make it. Raises `DataFolderError`.

        `may_create_authority`: no seed is named, so a missing authority means a new mesh. Otherwise a folder without
        a node certificate is an error and is left as it was. `node_name` is used when a node certificate is made; the
        host's name unless given.
        """
        folder = Path(path)
        now = now or dt.datetime.now(dt.UTC)
        with one_error(folder):
            if not may_create_authority and not exists(folder / NODE_FILE):
                raise DataFolderError(
                    str(folder),
                    "no node certificate in it, so this node can't join a mesh; write one on the machine with the "
                    f"authority with {ISSUE_NODE} and start with --data-dir DIR, or use `quicbus broker --join`",
                )
            is_new = make_folder(folder)
            lock = _lock(folder, is_new)
            before: list[str] | None = None
            try:
                before = [name for name in file_names(folder) if not (is_new and name == LOCK_FILE)]
                tidy(folder)
                authority = make_authority(folder, may_create_authority, now)
                node = make_node(folder, authority, node_name, now)
                make_credential(folder, authority, node, now)
            except BaseException:
                # What this start made is taken back; what an earlier one made stays.
                if before is not None:
                    undo(folder, keep=before, remove_folder=is_new)
                lock.release()
                raise
            return cls(folder, lock, authority, node)

    @property
    def mesh(self) -> str:
        return self.node.mesh

    @property
    def node_id(self) -> bytes:
        return self.node.node_id

    @property
    def credential_path(self) -> Path:
        """Where local applications find their credential; the file may be missing in a folder of a further node."""
        return self.path / CREDENTIAL_FILE

    def next_boot(self, now: dt.datetime | None = None) -> int:
        """Return this start's boot number and keep it; raises `DataFolderError`.

        It is larger than all before, also when the clock steps back; as it follows the clock (milliseconds) where it
        can, also after the folder was restored from a copy.
        """
        path = self.path / BOOT_FILE
        now = now or dt.datetime.now(dt.UTC)
        with one_error(self.path):
            previous = 0
            if path.exists():
                text = path.read_text("ascii", errors="replace").strip()
                if not text.isdecimal() or len(text) > 19:
                    raise DataFolderError(
                        str(self.path), f"the file {BOOT_FILE} holds no number; remove it if the clock is right"
                    )
                previous = int(text)
            boot = max(previous + 1, int(now.timestamp() * 1000))
            write_file(path, f"{boot}\n".encode(), private=False)
        return boot

    def renew(self, now: dt.datetime | None = None) -> bool:
        """Issue anew what is in the last quarter of its life, and tell whether `node` has changed.

        Only with the authority's key here; keys, ids and names stay. Call it daily in a broker that runs for long.
        """
        if self.authority is None:
            return False
        now = now or dt.datetime.now(dt.UTC)
        with one_error(self.path):
            node = renewed_node(self.path, self.authority, self.node, now)
            make_credential(self.path, self.authority, node, now)
        changed, self.node = node is not self.node, node
        return changed

    def close(self) -> None:
        """Free the folder for others. May be called twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(folder: Path, is_new: bool) -> FolderLock:
    try:
        return FolderLock(folder / LOCK_FILE)
    except FolderInUse as error:
        by = "another process" if error.process_id is None else f"process {error.process_id}"
        raise DataFolderError(
            str(folder), f"it is in use by {by}; stop that broker, or name another folder with --data-dir"
        ) from None
    except OSError:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
