"""The data folder of a node: its keys, certificates, the local credential and the boot counter.

```
authority.pem       the authority's certificate
authority-key.pem   its key; only in the folder of the node that made the mesh (or was given it)
node.pem            this node's certificate
node-key.pem        its key: the node's id is a hash of it
credential.pem      what local applications connect with; named after the local user
boot                the last boot number, in decimal
lock                locked while a broker uses the folder; holds its process id
```

The folder has mode 0700, what is secret 0600. Files are written whole, keys before the certificates made for them, so
that a first start that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import logging
import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Self

import platformdirs

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import pem
from quicbus.identity.authority import CLOCK_SKEW, Authority
from quicbus.identity.credential import Credential
from quicbus.identity.files import PRIVATE_FILE_MODE, PRIVATE_FOLDER_MODE, TEMPORARY_SUFFIX, write_file
from quicbus.identity.folder_lock import FolderInUse, FolderLock
from quicbus.identity.keys import generate_key, key_from_pem, key_to_pem
from quicbus.identity.names import MAX_NAME_SIZE, Role
from quicbus.identity.peer import ISSUE_NODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "AUTHORITY_FILE",
    "AUTHORITY_KEY_FILE",
    "BOOT_FILE",
    "CREDENTIAL_FILE",
    "LOCK_FILE",
    "NODE_FILE",
    "NODE_KEY_FILE",
    "DataFolder",
    "default_data_dir",
    "load_authority",
    "prepare_node_folder",
]

AUTHORITY_FILE = "authority.pem"
AUTHORITY_KEY_FILE = "authority-key.pem"
NODE_FILE = "node.pem"
NODE_KEY_FILE = "node-key.pem"
CREDENTIAL_FILE = "credential.pem"
BOOT_FILE = "boot"
LOCK_FILE = "lock"

_SECRET_FILES = (AUTHORITY_KEY_FILE, NODE_KEY_FILE, CREDENTIAL_FILE)
_RENEW_FRACTION = 4
"""Certificates are renewed in the last quarter of their life: a broker restarted now and then never meets the end."""

logger = logging.getLogger("quicbus.identity")


def default_data_dir() -> Path:
    """Return `QUICBUS_DATA_DIR`, else the platform's folder for a user's application data. Nothing is created."""
    chosen = os.environ.get("QUICBUS_DATA_DIR")
    return Path(chosen) if chosen else platformdirs.user_data_path("quicbus", appauthor=False)


def load_authority(path: str | os.PathLike[str]) -> Authority:
    """Read the authority of a data folder, to issue certificates; raises `DataFolderError`.

    Takes no lock: `quicbus cert issue` works beside a running broker.
    """
    folder = Path(path)
    with _one_error(folder):
        authority = _read_authority(folder)
    if authority is None:
        raise DataFolderError(
            str(folder),
            f"no authority in it ({AUTHORITY_FILE} and {AUTHORITY_KEY_FILE}); certificates are issued on the machine "
            "where the mesh was made: the first `quicbus broker`, started without --seed",
        )
    return authority


def prepare_node_folder(
    authority: Authority, name: str, out: str | os.PathLike[str], *, days: float | None = None
) -> Credential:
    """Write the data folder of a further node, without the authority's key; raises `DataFolderError`.

    `out` must be missing or empty. It appears whole or not at all, and holds secrets: copy it over a safe way.
    """
    folder = Path(out)
    lifetime = {} if days is None else {"days": days}
    node, local = authority.issue_node(name, **lifetime), authority.issue_client(name, **lifetime)
    with _one_error(folder):
        if folder.exists() and any(folder.iterdir()):
            raise DataFolderError(str(folder), "it exists and is not empty; name another folder with --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        existed = folder.exists()
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        try:
            folder.chmod(PRIVATE_FOLDER_MODE)
            _write(folder, AUTHORITY_FILE, authority.certificate_pem)
            _write(folder, NODE_KEY_FILE, node.private_key_pem)
            _write(folder, CREDENTIAL_FILE, local.to_pem())
            # Last, since a folder with it is one that a broker starts from.
            _write(folder, NODE_FILE, node.chain_pem)
        except BaseException:
            _undo(folder, [AUTHORITY_FILE, NODE_KEY_FILE, CREDENTIAL_FILE, NODE_FILE], remove_folder=not existed)
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
        if not may_create_authority and not _exists(folder / NODE_FILE):
            raise DataFolderError(
                str(folder),
                "no node certificate in it, so this node can't join a mesh; write one on the machine with the "
                f"authority with {ISSUE_NODE} and start with --data-dir DIR, or use `quicbus broker --join`",
            )
        with _one_error(folder):
            is_new = _make_folder(folder)
            try:
                lock = FolderLock(folder / LOCK_FILE)
            except FolderInUse as error:
                raise DataFolderError(str(folder), _in_use(error.process_id)) from None
            opened = None
            before = _names(folder)
            try:
                _tidy(folder)
                authority = _make_authority(folder, may_create_authority, now)
                node = _make_node(folder, authority, node_name, now)
                _make_credential(folder, authority, node, now)
                opened = cls(folder, lock, authority, node)
            finally:
                if opened is None:
                    # What this start made is taken back; what an earlier one made stays.
                    made = [name for name in _names(folder) if name not in before or (is_new and name == LOCK_FILE)]
                    _undo(folder, made, remove_folder=is_new)
                    lock.release()
            return opened

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
        with _one_error(self.path):
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
        with _one_error(self.path):
            node = _renewed_node(self.path, self.authority, self.node, now)
            _make_credential(self.path, self.authority, node, now)
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


# --- the parts of a start, in their order ---------------------------------------------------------------------------


def _make_folder(folder: Path) -> bool:
    """Make the folder where it is missing, and tell whether it was."""
    try:
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise DataFolderError(str(folder), "it is a file, not a folder; name another with --data-dir") from None
        mode = stat.S_IMODE(folder.stat().st_mode)
        if os.name == "posix" and mode & 0o077 and not any(folder.iterdir()):
            folder.chmod(PRIVATE_FOLDER_MODE)
        elif os.name == "posix" and mode & stat.S_IWOTH:
            raise DataFolderError(
                str(folder), "everybody may write to it, so its keys can't be trusted; run chmod 700 on it"
            ) from None
        return False
    folder.chmod(PRIVATE_FOLDER_MODE)  # whatever the umask is
    return True


def _tidy(folder: Path) -> None:
    """Remove what a write that was cut off left behind, and close secret files that others may read."""
    for name in _names(folder):
        path = folder / name
        if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
            path.unlink()
        elif name in _SECRET_FILES and os.name == "posix" and path.stat().st_mode & 0o077:
            logger.warning("data folder %s: others could read %s; its mode is 0600 again", folder, name)
            path.chmod(PRIVATE_FILE_MODE)


def _make_authority(folder: Path, may_create: bool, now: dt.datetime) -> Authority | None:
    authority = _read_authority(folder)
    if authority is not None or _exists(folder / AUTHORITY_FILE):
        return authority
    if _exists(folder / NODE_FILE):
        raise DataFolderError(
            str(folder), f"{AUTHORITY_FILE} is missing beside {NODE_FILE}; copy it from another node of the mesh"
        )
    if not may_create:
        return None
    key = _make_key(folder, AUTHORITY_KEY_FILE)
    authority = Authority.create(key=key, now=now)
    _write(folder, AUTHORITY_FILE, authority.certificate_pem)
    logger.info("data folder %s: made the authority of a new mesh, %s", folder, authority.mesh)
    return authority


def _make_node(folder: Path, authority: Authority | None, name: str | None, now: dt.datetime) -> Credential:
    if _exists(folder / NODE_FILE):
        node = _read_node(folder)
        # With the authority's key here an expired certificate is no obstacle: it is issued anew below.
        node.check(str(folder / NODE_FILE), role=Role.NODE, now=now, allow_expired=authority is not None)
        return node if authority is None else _renewed_node(folder, authority, node, now)
    if authority is None:
        raise DataFolderError(
            str(folder),
            f"an authority's certificate but neither its key nor {NODE_FILE}; write a whole folder on the machine with "
            f"the authority with {ISSUE_NODE}, or use `quicbus broker --join`",
        )
    key = _make_key(folder, NODE_KEY_FILE)
    node = authority.issue_node(name or _allowed_name(socket.gethostname(), "node"), key=key, now=now)
    _write(folder, NODE_FILE, node.chain_pem)
    logger.info("data folder %s: issued the certificate of node %s (%s)", folder, node.name, node.node_id.hex())
    return node


def _renewed_node(folder: Path, authority: Authority, node: Credential, now: dt.datetime) -> Credential:
    if node.mesh != authority.mesh:
        raise DataFolderError(
            str(folder),
            f"{NODE_FILE} is of mesh {node.mesh}, {AUTHORITY_FILE} of mesh {authority.mesh}; keep one mesh in a folder",
        )
    if not _is_due(node, now):
        return node
    node = authority.issue_node(node.name, days=_lifetime_days(node), key=node.private_key, now=now)
    _write(folder, NODE_FILE, node.chain_pem)
    logger.info("data folder %s: renewed the certificate of node %s to %s", folder, node.name, node.not_after)
    return node


def _make_credential(folder: Path, authority: Authority | None, node: Credential, now: dt.datetime) -> None:
    path = folder / CREDENTIAL_FILE
    if not _exists(path):
        if authority is None:
            logger.warning("data folder %s: no %s; local applications need --credentials", folder, CREDENTIAL_FILE)
            return
        credential = authority.issue_client(_allowed_name(_local_user(), "local"), now=now)
        _write(folder, CREDENTIAL_FILE, credential.to_pem())
        logger.info("data folder %s: issued the local credential for %s", folder, credential.name)
        return
    credential = Credential.from_pem(path.read_bytes(), source=str(path), role=Role.CLIENT, now=now, allow_expired=True)
    if credential.mesh != node.mesh:
        raise DataFolderError(
            str(folder), f"{CREDENTIAL_FILE} is of mesh {credential.mesh}, this node of mesh {node.mesh}; remove it"
        )
    if not _is_due(credential, now):
        return
    if authority is None:
        if now > credential.not_after:
            logger.warning("data folder %s: %s expired on %s", folder, CREDENTIAL_FILE, credential.not_after)
        return
    days = _lifetime_days(credential)
    credential = authority.issue_client(credential.name, days=days, key=credential.private_key, now=now)
    _write(folder, CREDENTIAL_FILE, credential.to_pem())
    logger.info("data folder %s: renewed the local credential to %s", folder, credential.not_after)


# --- reading and writing --------------------------------------------------------------------------------------------


def _read_authority(folder: Path) -> Authority | None:
    certificate, key = folder / AUTHORITY_FILE, folder / AUTHORITY_KEY_FILE
    if not (_exists(certificate) and _exists(key)):
        return None
    return Authority.load(key.read_bytes() + certificate.read_bytes(), f"{AUTHORITY_FILE} and {AUTHORITY_KEY_FILE}")


def _read_node(folder: Path) -> Credential:
    if not _exists(folder / NODE_KEY_FILE):
        raise DataFolderError(
            str(folder),
            f"{NODE_KEY_FILE} is missing beside {NODE_FILE}; put it back, or remove {NODE_FILE} and become a new node",
        )
    return Credential.from_parts(
        key_from_pem((folder / NODE_KEY_FILE).read_bytes(), NODE_KEY_FILE),
        pem.split((folder / NODE_FILE).read_bytes(), NODE_FILE).certificates,
        pem.split((folder / AUTHORITY_FILE).read_bytes(), AUTHORITY_FILE).certificates,
        NODE_FILE,
    )


def _make_key(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Return the key in the file, which a start that was cut off may have left, or a new one that is in it now."""
    if _exists(folder / name):
        return key_from_pem((folder / name).read_bytes(), name)
    key = generate_key()
    _write(folder, name, key_to_pem(key))
    return key


def _write(folder: Path, name: str, data: bytes) -> None:
    write_file(folder / name, data, private=name in _SECRET_FILES)


def _undo(folder: Path, names: list[str], *, remove_folder: bool) -> None:
    with contextlib.suppress(OSError):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        if remove_folder:
            folder.rmdir()


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def _exists(path: Path) -> bool:
    # Path.exists() takes a folder that may not be searched for a missing file from Python 3.12 on.
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def _one_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except CredentialError as error:
        raise DataFolderError(str(folder), str(error)) from error
    except OSError as error:
        raise DataFolderError(str(folder), f"{error.strerror or error}{_advice(error)}") from error


def _advice(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if isinstance(error, PermissionError):
        return f"{where}; make it yours, or name another with --data-dir or QUICBUS_DATA_DIR"
    return where


def _in_use(process_id: int | None) -> str:
    by = "another process" if process_id is None else f"process {process_id}"
    return f"it is in use by {by}; stop that broker, or name another folder with --data-dir"


# --- names and times ------------------------------------------------------------------------------------------------


def _is_due(credential: Credential, now: dt.datetime) -> bool:
    return now > credential.not_after - (credential.not_after - credential.not_before) / _RENEW_FRACTION


def _lifetime_days(credential: Credential) -> float:
    return (credential.not_after - credential.not_before - CLOCK_SKEW) / dt.timedelta(days=1)


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no entry for this user id, as in many containers
        return ""


def _allowed_name(text: str, otherwise: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", text).lstrip("._@-")[:MAX_NAME_SIZE]
    return name or otherwise
