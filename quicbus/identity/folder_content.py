"""What stands in a data folder and how a start makes, reads and renews it: authority, node certificate, credential."""

from __future__ import annotations

import getpass
import logging
import re
import socket
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import pem
from quicbus.identity.authority import Authority
from quicbus.identity.credential import Credential
from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    CREDENTIAL_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    TRUST_FILE,
    exists,
    write,
)
from quicbus.identity.folder_trust import read_authority
from quicbus.identity.issued_log import IssuedLog
from quicbus.identity.keys import generate_key, key_from_pem, key_to_pem
from quicbus.identity.names import MAX_NAME_SIZE, Role, identity_of
from quicbus.identity.peer import ISSUE_NODE
from quicbus.identity.signed_file import read_signed

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["adopt_authority", "make_authority", "make_credential", "make_key", "make_node", "read_node", "renewed_node"]

logger = logging.getLogger("quicbus.identity")


def adopt_authority(folder: Path) -> None:
    """Take what `quicbus cert sign` wrote, put in place as `node.pem`: the authorities and the trust list are in it."""
    path = folder / NODE_FILE
    if exists(folder / AUTHORITY_FILE) or not exists(path):
        return
    signed = read_signed(path.read_bytes(), NODE_FILE)
    if signed.authorities:
        write(folder, AUTHORITY_FILE, pem.join(signed.authorities))
        if signed.trust:
            write(folder, TRUST_FILE, signed.trust)
        write(folder, NODE_FILE, pem.join(signed.chain))


def make_authority(folder: Path, may_create: bool, now: dt.datetime) -> Authority | None:
    authority = read_authority(folder)
    if authority is not None or exists(folder / AUTHORITY_FILE):
        return authority
    if exists(folder / NODE_FILE):
        raise DataFolderError(
            str(folder), f"{AUTHORITY_FILE} is missing beside {NODE_FILE}; copy it from another node of the mesh"
        )
    if not may_create:
        return None
    key = make_key(folder, AUTHORITY_KEY_FILE)
    authority = Authority.create(key=key, now=now)
    write(folder, AUTHORITY_FILE, authority.certificate_pem)
    logger.info("data folder %s: made the authority of a new mesh, %s", folder, authority.mesh)
    return authority


def make_node(
    folder: Path, authority: Authority | None, name: str | None, now: dt.datetime, *, may_be_expired: bool = False
) -> Credential:
    if exists(folder / NODE_FILE):
        node = read_node(folder) if authority is None else _own_node(folder, authority, now)
        # With the authority's key here an expired certificate is no obstacle: it is issued anew below.
        node.check(NODE_FILE, role=Role.NODE, now=now, allow_expired=may_be_expired or authority is not None)
        return node if authority is None else renewed_node(folder, authority, node, now)
    if authority is None:
        raise DataFolderError(
            str(folder),
            f"an authority's certificate but neither its key nor {NODE_FILE}; write a whole folder on the machine with "
            f"the authority with {ISSUE_NODE}, or use `quicbus broker --join`",
        )
    key = make_key(folder, NODE_KEY_FILE)
    node = authority.issue_node(name or _allowed_name(socket.gethostname(), "node"), key=key, now=now)
    IssuedLog(folder).add(authority, node.chain_der[0], now=now)
    write(folder, NODE_FILE, node.chain_pem)
    logger.info("data folder %s: issued the certificate of node %s (%s)", folder, node.name, node.node_id.hex())
    return node


def _own_node(folder: Path, authority: Authority, now: dt.datetime) -> Credential:
    """Read the node's credential; one of an authority of this mesh that is not trusted any more is issued anew."""
    try:
        return read_node(folder)
    except CredentialError:
        certificates = pem.split((folder / NODE_FILE).read_bytes(), NODE_FILE).certificates
        identity = identity_of(certificates[0]) if certificates else None
        if identity is None or (identity.mesh, identity.role) != (authority.mesh, Role.NODE):
            raise
        key = key_from_pem((folder / NODE_KEY_FILE).read_bytes(), NODE_KEY_FILE)
        if certificates[0].public_key() != key.public_key():
            raise
    node = authority.issue_node(identity.name, key=key, now=now)
    IssuedLog(folder).add(authority, node.chain_der[0], now=now)
    write(folder, NODE_FILE, node.chain_pem)
    logger.info("data folder %s: issued the certificate of node %s anew", folder, node.name)
    return node


def renewed_node(folder: Path, authority: Authority, node: Credential, now: dt.datetime) -> Credential:
    if node.mesh != authority.mesh:
        raise DataFolderError(
            str(folder),
            f"{NODE_FILE} is of mesh {node.mesh}, {AUTHORITY_FILE} of mesh {authority.mesh}; keep one mesh in a folder",
        )
    if now <= node.renew_at:
        return node
    node = authority.issue_node(node.name, days=node.life_days, key=node.private_key, now=now)
    IssuedLog(folder).add(authority, node.chain_der[0], now=now)
    write(folder, NODE_FILE, node.chain_pem)
    logger.info("data folder %s: renewed the certificate of node %s to %s", folder, node.name, node.not_after)
    return node


def make_credential(folder: Path, authority: Authority | None, node: Credential, now: dt.datetime) -> None:
    path = folder / CREDENTIAL_FILE
    if not exists(path):
        if authority is None:
            logger.warning("data folder %s: no %s; local applications need --credentials", folder, CREDENTIAL_FILE)
            return
        credential = authority.issue_client(_allowed_name(_local_user(), "local"), now=now)
        IssuedLog(folder).add(authority, credential.chain_der[0], now=now)
        write(folder, CREDENTIAL_FILE, credential.to_pem())
        logger.info("data folder %s: issued the local credential for %s", folder, credential.name)
        return
    credential = Credential.from_pem(
        path.read_bytes(), source=CREDENTIAL_FILE, role=Role.CLIENT, now=now, allow_expired=True
    )
    if credential.mesh != node.mesh:
        raise DataFolderError(
            str(folder), f"{CREDENTIAL_FILE} is of mesh {credential.mesh}, this node of mesh {node.mesh}; remove it"
        )
    if now <= credential.renew_at:
        return
    if authority is None:
        if now > credential.not_after:
            logger.warning("data folder %s: %s expired on %s", folder, CREDENTIAL_FILE, credential.not_after)
        return
    days = credential.life_days
    credential = authority.issue_client(credential.name, days=days, key=credential.private_key, now=now)
    IssuedLog(folder).add(authority, credential.chain_der[0], now=now)
    write(folder, CREDENTIAL_FILE, credential.to_pem())
    logger.info("data folder %s: renewed the local credential to %s", folder, credential.not_after)


def read_node(folder: Path) -> Credential:
    if not exists(folder / NODE_KEY_FILE):
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


def make_key(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Return the key in the file, which a start that was cut off may have left, or a new one that is in it now."""
    if exists(folder / name):
        return key_from_pem((folder / name).read_bytes(), name)
    key = generate_key()
    write(folder, name, key_to_pem(key))
    return key


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no entry for this user id, as in many containers
        return ""


def _allowed_name(text: str, otherwise: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", text).lstrip("._@-")[:MAX_NAME_SIZE]
    return name or otherwise
