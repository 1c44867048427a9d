"""Certificates that are carried by hand: for an authority whose key is kept where no broker runs.

A request goes to the authority as a file and what it signed comes back as a file (`signed_file`). Neither is a secret,
and neither can be swapped for another: the private key never leaves its machine.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import pem
from quicbus.identity.authority import AUTHORITY_DAYS, CERTIFICATE_DAYS, Authority, authority_mesh
from quicbus.identity.credential import Credential
from quicbus.identity.files import PRIVATE_FOLDER_MODE, advice, write_file
from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    CREDENTIAL_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    REQUEST_FILE,
    TRUST_FILE,
    exists,
    one_error,
    undo,
    write,
)
from quicbus.identity.folder_lock import brief_lock
from quicbus.identity.folder_trust import read_trust, update_credential
from quicbus.identity.issued_log import IssuedLog
from quicbus.identity.keys import generate_key, key_from_pem, key_to_pem, node_id_of
from quicbus.identity.names import Role
from quicbus.identity.prepared_folder import PreparedFolder
from quicbus.identity.requests import make_request, request_from_pem, request_key, request_to_pem
from quicbus.identity.signed_file import SignedFile
from quicbus.identity.trust import TrustStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "install_credential",
    "install_node",
    "prepare_authority_folder",
    "request_credential",
    "request_node",
    "sign_request",
]


def prepare_authority_folder(out: Path, *, days: float = AUTHORITY_DAYS, now: dt.datetime | None = None) -> Authority:
    """Make the authority of a new mesh in a folder that no broker uses; raises `DataFolderError`.

    `out` must be missing or empty. It appears whole or not at all.
    """
    authority = Authority.create(days=days, now=now)
    with one_error(out):
        if out.exists() and any(out.iterdir()):
            raise DataFolderError(str(out), "it exists and is not empty; name another folder with --out")
        existed = out.exists()
        out.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        try:
            out.chmod(PRIVATE_FOLDER_MODE)
            write(out, AUTHORITY_KEY_FILE, authority.private_key_pem)
            write(out, AUTHORITY_FILE, authority.certificate_pem)
        except BaseException:
            undo(out, keep=(), remove_folder=not existed)
            raise
    return authority


def request_node(folder: Path) -> Path:
    """Write the signing request of a data folder's node and return its path; raises `DataFolderError`.

    A folder without a node's key gets one. With a certificate the request is for the same key: a renewal.
    """
    with one_error(folder):
        if not exists(folder / NODE_FILE):
            with PreparedFolder.open(folder) as prepared:
                return prepared.write_request()
        key = key_from_pem((folder / NODE_KEY_FILE).read_bytes(), NODE_KEY_FILE)
        write(folder, REQUEST_FILE, request_to_pem(make_request(key)))
    return folder / REQUEST_FILE


def request_credential(path: Path) -> Path:
    """Write the signing request for a credential file `path` and return the request's path.

    The private key waits beside it, unless the file is there: then the request renews it, for the same key.
    Raises `CredentialError`.
    """
    request, key_path = _beside(path, "request"), _beside(path, "key")
    try:
        key = _key_of(path)
        if key is None:
            key = generate_key()
            write_file(key_path, key_to_pem(key), private=True)
        write_file(request, request_to_pem(make_request(key)), private=False)
    except OSError as error:
        raise CredentialError(f"{path}: can't be written: {error.strerror or error}{advice(error)}") from error
    return request


def sign_request(
    folder: Path,
    authority: Authority,
    data: bytes,
    source: str,
    role: Role,
    name: str,
    *,
    days: float = CERTIFICATE_DAYS,
    now: dt.datetime | None = None,
) -> SignedFile:
    """Sign the request in a file's `data`, with the authority of `folder`, which logs it.

    Raises `CredentialError` that begins with `source`, also for a key that is revoked; `InvalidSetting` for the name;
    `DataFolderError`.
    """
    now = now or dt.datetime.now(dt.UTC)
    key = request_key(request_from_pem(data, source))
    with one_error(folder):
        trust = read_trust(folder, authority.mesh, authority.authorities_pem)
    revocation = trust.revocation(node_id_of(key))
    if revocation is not None:
        raise CredentialError(
            f"{source}: its key was revoked on {revocation.time:%Y-%m-%d %H:%M} UTC; make a request with a new key"
        )
    certificate = authority.certify(role, name, key, days=days, now=now)
    IssuedLog(folder).add(authority, certificate, now=now)
    return SignedFile([pem.certificate_from_der(certificate, source)], trust.authorities, trust.raw)


def install_credential(path: Path, signed: SignedFile, now: dt.datetime | None = None) -> Credential:
    """Make `path` the credential of a client out of what came back; raises `CredentialError`.

    A credential that is there is renewed: it goes on trusting its authorities, and takes others only from a trust list
    that they have signed.
    """
    now = now or dt.datetime.now(dt.UTC)
    key = _key_of(path)
    if key is None:
        raise CredentialError(
            f"{path}: neither it nor {_beside(path, 'key')} is there; name the file that the request was made for"
        )
    before = pem.split(path.read_bytes(), str(path)).certificates if exists(path) else []
    trusted = [one for one in before if one.issuer == one.subject]
    source = "the signed certificate"
    authorities = _trusted(signed, trusted or signed.authorities, now).authorities
    credential = Credential.from_issued(key, [pem.to_der(one) for one in signed.chain], authorities, source)
    credential.check(source, role=Role.CLIENT, now=now)
    credential.save(path)
    _beside(path, "key").unlink(missing_ok=True)
    return credential


def install_node(folder: Path, signed: SignedFile, now: dt.datetime | None = None) -> Credential:
    """Put what came back into the data folder, also beside a running broker; raises `DataFolderError`.

    A folder without an authority takes that of the file. One that has one takes another only from a trust list that
    its own has signed.
    """
    now = now or dt.datetime.now(dt.UTC)
    source = "the signed certificate"
    with one_error(folder):
        if not exists(folder / NODE_KEY_FILE):
            raise DataFolderError(
                str(folder), f"no {NODE_KEY_FILE} in it; name the folder that the request was made in with --node"
            )
        with brief_lock(folder):
            key = key_from_pem((folder / NODE_KEY_FILE).read_bytes(), NODE_KEY_FILE)
            trust = _trust_of_folder(folder, signed, now)
            node = Credential.from_issued(key, [pem.to_der(one) for one in signed.chain], trust.authorities, source)
            node.check(source, role=Role.NODE, now=now)
            if trust.raw:
                write(folder, TRUST_FILE, trust.raw)
            write(folder, AUTHORITY_FILE, trust.authorities_pem)
            if exists(folder / CREDENTIAL_FILE):
                update_credential(folder, trust.authorities)
            write(folder, NODE_FILE, node.chain_pem)
        (folder / REQUEST_FILE).unlink(missing_ok=True)
    return node


def _trust_of_folder(folder: Path, signed: SignedFile, now: dt.datetime) -> TrustStore:
    if not exists(folder / AUTHORITY_FILE):
        return _trusted(signed, signed.authorities, now)
    text = (folder / AUTHORITY_FILE).read_bytes()
    certificates = pem.split(text, AUTHORITY_FILE).certificates
    if not certificates:
        raise CredentialError(f"{AUTHORITY_FILE}: no certificate in it")
    trust = read_trust(folder, authority_mesh(certificates[0], AUTHORITY_FILE), text)
    if signed.trust:
        trust.take(signed.trust, now)
    return trust


def _trusted(signed: SignedFile, authorities: Sequence[x509.Certificate], now: dt.datetime) -> TrustStore:
    if not authorities:
        raise CredentialError(
            "the signed certificate comes without its authority; use the file that `quicbus cert sign` wrote"
        )
    trust = TrustStore(authority_mesh(authorities[0], "the signed certificate"), pem.join(authorities))
    if signed.trust:
        trust.take(signed.trust, now)
    return trust


def _key_of(path: Path) -> ec.EllipticCurvePrivateKey | None:
    for file in (path, _beside(path, "key")):
        if exists(file):
            keys = pem.split(file.read_bytes(), str(file)).keys
            if len(keys) != 1:
                raise CredentialError(f"{file}: {len(keys)} private keys in it where one belongs; move the file away")
            return key_from_pem(keys[0], str(file))
    return None


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}.{what}.pem")
