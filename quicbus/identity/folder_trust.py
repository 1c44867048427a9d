"""The trust list in a data folder: read, replaced by a newer one, and, with the authority's key, made anew."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import pem
from quicbus.identity.authority import Authority, authority_mesh
from quicbus.identity.credential import Credential
from quicbus.identity.files import FileStamp, file_stamp
from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    CREDENTIAL_FILE,
    NEXT_KEY_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    OLD_KEY_FILE,
    TRUST_FILE,
    exists,
    one_error,
    write,
)
from quicbus.identity.folder_lock import brief_lock
from quicbus.identity.keys import key_from_pem
from quicbus.identity.trust import Revocation, TrustList, TrustStore, seal_trust

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509

__all__ = [
    "add_revocations",
    "follow_trust",
    "make_trust",
    "read_authority",
    "read_trust",
    "reload_trust",
    "save_trust",
    "stamps",
    "update_credential",
    "with_authorities",
]

_WATCHED = (TRUST_FILE, AUTHORITY_FILE, AUTHORITY_KEY_FILE, NODE_FILE, NODE_KEY_FILE)

logger = logging.getLogger("quicbus.identity")


def read_authority(folder: Path) -> Authority | None:
    """Return the authority that issues, where its key is here; raises `CredentialError` and `OSError`."""
    certificate, key = folder / AUTHORITY_FILE, folder / AUTHORITY_KEY_FILE
    if not (exists(certificate) and exists(key)):
        return None
    return Authority.load(key.read_bytes() + certificate.read_bytes(), f"{AUTHORITY_FILE} and {AUTHORITY_KEY_FILE}")


def read_trust(folder: Path, mesh: str, authorities_pem: bytes) -> TrustStore:
    """Return what the folder says of the mesh; raises `CredentialError` and `OSError`."""
    path = folder / TRUST_FILE
    if not exists(path):
        return TrustStore(mesh, authorities_pem)
    with path.open("rb") as file:
        stored = file.read(limits.MAX_TRUST_SIZE + 1)
    try:
        return TrustStore(mesh, authorities_pem, stored)
    except CredentialError as error:
        raise CredentialError(
            f"{TRUST_FILE}: {error.why}; remove the file: the other nodes of the mesh have the list, too"
        ) from None


def save_trust(folder: Path, trust: TrustStore) -> None:
    """Keep the list, unless the folder has a newer one by now; raises `DataFolderError`."""
    with one_error(folder), brief_lock(folder):
        before = read_trust(folder, trust.mesh, trust.authorities_pem + (folder / AUTHORITY_FILE).read_bytes())
        if before.version < trust.version:
            _write(folder, trust)


def follow_trust(folder: Path) -> None:
    """Finish what was cut off between writing the list and `authority.pem`; raises `CredentialError`, `OSError`."""
    path = folder / AUTHORITY_FILE
    if not (exists(path) and exists(folder / TRUST_FILE)):
        return
    text = path.read_bytes()
    certificates = pem.split(text, AUTHORITY_FILE).certificates
    if not certificates:
        raise CredentialError(f"{AUTHORITY_FILE}: no certificate in it")
    trust = read_trust(folder, authority_mesh(certificates[0], AUTHORITY_FILE), text)
    if trust.authorities_pem != text:
        write(folder, AUTHORITY_FILE, trust.authorities_pem)


def reload_trust(folder: Path, trust: TrustStore, now: dt.datetime) -> None:
    """Have `trust` follow what is in the folder now; raises `CredentialError` and `OSError`."""
    path = folder / TRUST_FILE
    if exists(path):
        with path.open("rb") as file:
            raw = file.read(limits.MAX_TRUST_SIZE + 1)
        if raw != trust.raw:
            trust.take(raw, now)
        follow_trust(folder)
        return
    text = (folder / AUTHORITY_FILE).read_bytes()
    if pem.split(text, AUTHORITY_FILE).certificates != list(trust.authorities):
        trust.install(text)
    elif trust.raw:
        # Lost: the next list that a command makes here would lack all that was revoked before.
        write(folder, TRUST_FILE, trust.raw)


def stamps(folder: Path) -> tuple[FileStamp | None, ...]:
    """Return what changes when a file that a running broker takes over is replaced."""
    return tuple(file_stamp(folder / name) for name in _WATCHED)


def with_authorities(folder: Path, node: Credential, authorities: Sequence[x509.Certificate]) -> Credential:
    """Return the same credential with these authorities, where one of them has signed it."""
    try:
        return Credential.from_issued(node.private_key, node.chain_der, authorities, NODE_FILE)
    except CredentialError as error:
        logger.error("data folder %s: the mesh does not trust this node's authority any more: %s", folder, error)
        return node


def update_credential(folder: Path, authorities: Sequence[x509.Certificate]) -> None:
    """Have local applications trust these authorities, too."""
    path = folder / CREDENTIAL_FILE
    if not exists(path):
        return
    parts = pem.split(path.read_bytes(), CREDENTIAL_FILE)
    if [one for one in parts.certificates if one.issuer == one.subject] == list(authorities) or len(parts.keys) != 1:
        return
    chain = [one for one in parts.certificates if one.issuer != one.subject]
    try:
        key = key_from_pem(parts.keys[0], CREDENTIAL_FILE)
        new = Credential.from_parts(key, chain, authorities, CREDENTIAL_FILE)
    except CredentialError as error:
        logger.warning("data folder %s: %s", folder, error)
        return
    write(folder, CREDENTIAL_FILE, new.to_pem())


def add_revocations(folder: Path, revocations: Sequence[Revocation], now: dt.datetime) -> TrustStore:
    """Make a new version of the list with these keys in it; raises `DataFolderError`. Brokers that run pick it up."""
    with one_error(folder), brief_lock(folder):
        return make_trust(folder, now, revocations=revocations)


def make_trust(
    folder: Path,
    now: dt.datetime,
    *,
    authorities: Sequence[x509.Certificate] | None = None,
    revocations: Sequence[Revocation] = (),
) -> TrustStore:
    """Write the next version of the list, with the lock held; what is over is forgotten.

    `authorities`: all that are to be trusted, the issuing one first; as before unless given.
    It is signed with all the keys here, so that a node that was away and trusts an older authority takes it.
    Raises `CredentialError`, `DataFolderError` and `OSError`.
    """
    signers = _signers(folder, authorities or ())
    if not signers:
        raise DataFolderError(
            str(folder),
            f"no authority's key in it ({AUTHORITY_KEY_FILE}); name the folder that holds the authority with "
            "--data-dir",
        )
    before = read_trust(folder, signers[0].mesh, pem.join(signers[0].authorities))
    stamp = int(now.timestamp())
    revoked = {one.key_id: one for one in (*before.revoked, *revocations) if one.until > stamp}
    content = TrustList(
        mesh=before.mesh,
        version=max(before.version + 1, int(now.timestamp() * 1000)),
        made_at=stamp,
        authorities=_der(authorities or before.authorities),
        revoked=tuple(revoked.values()),
    )
    after = TrustStore(before.mesh, signers[0].authorities_pem, seal_trust(content, signers))
    _write(folder, after)
    return after


def _signers(folder: Path, further: Sequence[x509.Certificate]) -> list[Authority]:
    certificates = (folder / AUTHORITY_FILE).read_bytes() + pem.join(further)
    found = []
    for name in (AUTHORITY_KEY_FILE, NEXT_KEY_FILE, OLD_KEY_FILE):
        path = folder / name
        if not exists(path):
            continue
        try:
            found.append(Authority.load(path.read_bytes() + certificates, f"{AUTHORITY_FILE} and {name}"))
        except CredentialError as error:
            if name == AUTHORITY_KEY_FILE:
                raise
            logger.warning("data folder %s: %s is left out of the trust list: %s", folder, name, error)
    return found


def _write(folder: Path, trust: TrustStore) -> None:
    # In this order: an authority.pem that the list does not know yet would be taken for one installed by hand.
    write(folder, TRUST_FILE, trust.raw)
    write(folder, AUTHORITY_FILE, trust.authorities_pem)


def _der(certificates: Sequence[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(pem.to_der(one) for one in certificates)
