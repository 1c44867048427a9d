"""The data folder of a node: its keys, certificates, the local credential and the boot counter.

```
authority.pem       the authority's certificate
authority-key.pem   its key; only in the folder of the node that made the mesh (or was given it)
node.pem            this node's certificate
node-key.pem        its key: the node's id is a hash of it
credential.pem      what local applications connect with; named after the local user
trust.bin           authorities and revoked keys of the mesh, signed; missing until there is something to tell
boot                the last boot number, in decimal
members.json        members of the mesh that a restarted broker dials besides its seeds
lock                locked while a broker uses the folder; holds its process id
authority.lock      locked for a moment by who writes what brokers and commands both write
workers/2 …         data folders of further workers of this broker
node-request.pem    a signing request, where the authority is elsewhere (`PreparedFolder`)
```

and where the authority's key is:

```
issued.jsonl            who was issued what
tokens.json             join tokens, without what redeems them
authority-next-key.pem  while an authority is followed by another one (`rotation`): the key of the next one,
authority-old-key.pem   of the last one,
rotation.json           and when they change places
```

The folder has mode 0700, what is secret 0600. Files are written whole, keys before the certificates made for them, so
that a first start that was cut off goes on where it stopped.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from quicbus.exceptions import DataFolderError
from quicbus.identity.authority import CERTIFICATE_DAYS, Authority
from quicbus.identity.credential import Credential
from quicbus.identity.files import PRIVATE_FOLDER_MODE, write_file
from quicbus.identity.folder_content import (
    adopt_authority,
    make_authority,
    make_credential,
    make_node,
    read_node,
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
from quicbus.identity.folder_trust import (
    follow_trust,
    read_authority,
    read_trust,
    reload_trust,
    save_trust,
    stamps,
    update_credential,
    with_authorities,
)
from quicbus.identity.issued_log import IssuedLog
from quicbus.identity.names import Role
from quicbus.identity.peer import ISSUE_NODE
from quicbus.identity.rotation import advance_rotation

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    from quicbus.identity.folder_lock import FolderLock
    from quicbus.identity.trust import TrustStore

__all__ = ["Changes", "DataFolder", "load_authority", "prepare_node_folder"]


ROTATION_PAUSE = dt.timedelta(hours=1)
"""How late a further authority may take over: looking reads the log of certificates."""


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
    authority: Authority,
    name: str,
    out: str | os.PathLike[str],
    *,
    days: float = CERTIFICATE_DAYS,
    issued_by: Path | None = None,
    now: dt.datetime | None = None,
) -> Credential:
    """Write the data folder of a further node, without the authority's key; raises `DataFolderError`.

    `out` must be missing or empty. It appears whole or not at all, and holds secrets: copy it over a safe way.
    `issued_by`: the data folder of the authority, which keeps the log of certificates and the trust list.
    """
    folder = Path(out)
    node = authority.issue_node(name, days=days, now=now)
    local = authority.issue_client(name, days=days, now=now)
    trust = b""
    if issued_by is not None:
        IssuedLog(issued_by).add(authority, node.chain_der[0], local.chain_der[0], now=now)
        with one_error(issued_by):
            trust = read_trust(issued_by, authority.mesh, authority.authorities_pem).raw
    with one_error(folder):
        if folder.exists() and any(folder.iterdir()):
            raise DataFolderError(str(folder), "it exists and is not empty; name another folder with --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        existed = folder.exists()
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        try:
            folder.chmod(PRIVATE_FOLDER_MODE)
            write(folder, AUTHORITY_FILE, authority.authorities_pem)
            if trust:
                write(folder, TRUST_FILE, trust)
            write(folder, NODE_KEY_FILE, node.private_key_pem)
            write(folder, CREDENTIAL_FILE, local.to_pem())
            # Last, since a folder with it is one that a broker starts from.
            write(folder, NODE_FILE, node.chain_pem)
        except BaseException:
            undo(folder, keep=(), remove_folder=not existed)
            raise
    return node


class Changes(msgspec.Struct, frozen=True):
    """What `DataFolder.reload` found to be other than before."""

    node: bool = False
    """The node's certificate."""
    authorities: bool = False
    """Which authorities are trusted."""
    trust: bool = False
    """The version of the trust list; keys may have been revoked."""
    authority: bool = False
    """The authority whose key is here: another one issues now."""

    def __bool__(self) -> bool:
        return self.node or self.authorities or self.trust or self.authority


class DataFolder:
    """An opened, locked data folder. `close` it, or use it in `with`."""

    def __init__(
        self, path: Path, lock: FolderLock, authority: Authority | None, node: Credential, trust: TrustStore
    ) -> None:
        self.path = path
        self.authority = authority
        """With its key, where the folder has it; then this node can issue certificates."""
        self.node = node
        """The node's credential: what it listens with."""
        self.trust = trust
        """What the mesh trusts. The object stays the same while the folder is open."""
        self._lock = lock
        self._rotation_seen = dt.datetime.fromtimestamp(0, dt.UTC)
        self._watched = stamps(path)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        may_create_authority: bool,
        node_name: str | None = None,
        may_be_expired: bool = False,
        now: dt.datetime | None = None,
    ) -> Self:
        """Lock the folder and load it; on the first start of a mesh, make it. Raises `DataFolderError`.

        `may_create_authority`: no seed is named, so a missing authority means a new mesh. Otherwise a folder without
        a node certificate is an error and is left as it was; `PreparedFolder` is for who brings one. `node_name` is
        used when a node certificate is made; the host's name unless given. `may_be_expired`: the caller renews the
        node's certificate before it is used; otherwise one that has expired is an error where the authority's key is
        not here.
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
            lock = lock_folder(folder, is_new)
            before: list[str] | None = None
            try:
                before = [name for name in file_names(folder) if not (is_new and name == LOCK_FILE)]
                tidy(folder)
                adopt_authority(folder)
                follow_trust(folder)
                if read_authority(folder) is not None:
                    advance_rotation(folder, now)
                authority = make_authority(folder, may_create_authority, now)
                node = make_node(folder, authority, node_name, now, may_be_expired=may_be_expired)
                make_credential(folder, authority, node, now)
                trust = read_trust(folder, node.mesh, node.authority_pem)
                update_credential(folder, trust.authorities)
            except BaseException:
                # What this start made is taken back; what an earlier one made stays.
                if before is not None:
                    undo(folder, keep=before, remove_folder=is_new)
                lock.release()
                raise
            return cls(folder, lock, authority, node, trust)

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
        """Issue anew what is in the last third of its life, and tell whether `node` has changed.

        Only with the authority's key here; keys, ids and names stay. Call it daily in a broker that runs for long.
        """
        if self.authority is None:
            return False
        now = now or dt.datetime.now(dt.UTC)
        with one_error(self.path):
            node = renewed_node(self.path, self.authority, self.node, now)
            make_credential(self.path, self.authority, node, now)
        changed, self.node = node.chain_pem != self.node.chain_pem, node
        return changed

    def install_node(
        self,
        chain: Sequence[bytes],
        authorities: Sequence[bytes] = (),
        trust: bytes = b"",
        now: dt.datetime | None = None,
    ) -> None:
        """Replace the node's certificate by a renewed one (DER, its own first); raises `DataFolderError`.

        It must be for the node's key, valid, and signed by an authority that is trusted here. `trust` is the list that
        came with it, which is taken first. `authorities` that are not in it are left out: whoever passed the answer on
        could have put them there.
        """
        now = now or dt.datetime.now(dt.UTC)
        if trust:
            self.take_trust(trust, now)
        with one_error(self.path):
            node = Credential.from_issued(self.node.private_key, chain, self.trust.authorities, "the new certificate")
            node.check("the new certificate", role=Role.NODE, now=now)
            if node.mesh != self.mesh:
                raise DataFolderError(str(self.path), f"the new certificate is of mesh {node.mesh}, not {self.mesh}")
            write(self.path, NODE_FILE, node.chain_pem)
        self.node = node

    def install_credential(self, credential: Credential, now: dt.datetime | None = None) -> None:
        """Replace the credential of local applications; raises `DataFolderError`. It is of a client of this mesh."""
        with one_error(self.path):
            credential.check(CREDENTIAL_FILE, role=Role.CLIENT, now=now)
            if credential.mesh != self.mesh:
                raise DataFolderError(str(self.path), f"{CREDENTIAL_FILE} would be of mesh {credential.mesh}")
            write(self.path, CREDENTIAL_FILE, credential.to_pem())

    def take_trust(self, raw: bytes, now: dt.datetime | None = None) -> bool:
        """Take and keep a trust list where it is newer, and tell whether it was. Raises `CredentialError`, and
        `DataFolderError` where it is trusted from now on but could not be kept.
        """
        if not self.trust.take(raw, now or dt.datetime.now(dt.UTC)):
            return False
        save_trust(self.path, self.trust)
        self._follow_authorities()
        return True

    def reload(self, now: dt.datetime | None = None) -> Changes:
        """Take over what was replaced on disk since the last call, and tell what; costs a few `stat` where nothing was.

        With the authority's key here this is also when a further authority takes over whose time has come: call it
        every second or so, in a thread.
        Raises `DataFolderError` once for a file that can't be taken; what was in use stays in use.
        """
        now = now or dt.datetime.now(dt.UTC)
        if self.authority is not None and abs(now - self._rotation_seen) >= ROTATION_PAUSE:
            self._rotation_seen = now
            advance_rotation(self.path, now)
        watched = stamps(self.path)
        if watched == self._watched:
            return Changes()
        self._watched = watched
        before = (self.trust.version, self.trust.authorities_pem, self.node.chain_pem, _key_id(self.authority))
        with one_error(self.path):
            reload_trust(self.path, self.trust, now)
            node = read_node(self.path)
            if node.chain_pem != self.node.chain_pem:
                node.check(NODE_FILE, role=Role.NODE, now=now)
            if node.node_id != self.node.node_id or node.mesh != self.mesh:
                raise DataFolderError(
                    str(self.path),
                    f"{NODE_FILE} is now of another node or mesh ({node.name}, {node.node_id.hex()}); start the broker "
                    "anew to become that one, or put the old files back",
                )
            self.node = node
            self._follow_authorities()
        return Changes(
            trust=before[0] != self.trust.version,
            authorities=before[1] != self.trust.authorities_pem,
            node=before[2] != self.node.chain_pem,
            authority=before[3] != _key_id(self.authority),
        )

    def _follow_authorities(self) -> None:
        with one_error(self.path):
            self.authority = read_authority(self.path)
            self.node = with_authorities(self.path, self.node, self.trust.authorities)
            update_credential(self.path, self.trust.authorities)

    def close(self) -> None:
        """Free the folder for others. May be called twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key_id(authority: Authority | None) -> bytes:
    return b"" if authority is None else authority.key_id
