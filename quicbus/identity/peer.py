"""Who is at the other end, once it is proven, and how a refusal is told."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from quicbus import limits
from quicbus.identity import pem
from quicbus.identity.keys import is_p256, node_id_of
from quicbus.identity.names import Role, identity_of
from quicbus.identity.pem import parse_all
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    import datetime as dt

__all__ = [
    "ISSUE_CLIENT",
    "ISSUE_NODE",
    "MAX_CERTIFICATE_SIZE",
    "MAX_CHAIN_LENGTH",
    "Peer",
    "ProofRefused",
    "check_listener_certificate",
    "parse_certificate",
    "peer_of",
]

MAX_CHAIN_LENGTH = 4
MAX_CERTIFICATE_SIZE = pem.MAX_DER_SIZE

ISSUE_CLIENT = "`quicbus cert issue --client NAME --out FILE`"
ISSUE_NODE = "`quicbus cert issue --node NAME --out DIR`"


class Peer(msgspec.Struct, frozen=True):
    """The verified holder of a certificate. A session with it ends at `not_after`."""

    role: Role
    name: str
    mesh: str
    node_id: bytes
    not_after: dt.datetime


class ProofRefused(Exception):
    """The other side did not prove who it is. Close the connection with `code` and `why`.

    `why` is one sentence of at most `limits.MAX_CLOSE_REASON_SIZE` bytes that names the remedy.
    """

    def __init__(self, code: CloseCode, why: str) -> None:
        why = why.encode()[: limits.MAX_CLOSE_REASON_SIZE].decode(errors="ignore")
        super().__init__(code, why)
        self.code = code
        self.why = why

    def __str__(self) -> str:
        return self.why


def check_listener_certificate(certificate_der: bytes, mesh: str, expected_node_id: bytes | None = None) -> Peer:
    """Check what TLS does not: that the listener's certificate is a node's of this mesh, and of the expected node.

    For dialers, after the handshake: TLS has verified the chain and the name `node.<mesh>.quicbus.internal`.
    Raises `ProofRefused`.
    """
    peer = _listener(certificate_der)
    if peer.mesh != mesh:
        raise ProofRefused(
            CloseCode.CREDENTIAL_OTHER_MESH,
            f"the listener is of mesh {peer.mesh}, this credential of mesh {mesh}; use the credential of its mesh",
        )
    if peer.role is not Role.NODE:
        raise ProofRefused(
            CloseCode.CREDENTIAL_WRONG_ROLE,
            f"the listener holds a {peer.role} certificate; a broker needs one of {ISSUE_NODE}",
        )
    if expected_node_id is not None and peer.node_id != expected_node_id:
        raise ProofRefused(
            CloseCode.CREDENTIAL_INVALID,
            f"node {peer.node_id.hex()} answers where node {expected_node_id.hex()} was expected; check the address",
        )
    return peer


@lru_cache(maxsize=limits.MAX_KEPT_CERTIFICATES)
def _listener(certificate_der: bytes) -> Peer:
    """Brokers are dialed again and again; TLS has verified what gets here."""
    return peer_of(parse_certificate(certificate_der))


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read a certificate from a stranger; raises `ProofRefused`. Only P-256 keys are taken: others cost too much."""
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise _invalid(f"a certificate of {len(der)} bytes is over the limit of {MAX_CERTIFICATE_SIZE}")
    try:
        certificate = parse_all(x509.load_der_x509_certificate(der))
    except Exception:  # the library raises ValueError, UnsupportedAlgorithm and, for odd input, more
        raise _invalid("a certificate is unreadable") from None
    if not is_p256(certificate.public_key()):
        raise _invalid("a certificate's key is not ECDSA on P-256")
    return certificate


def peer_of(certificate: x509.Certificate) -> Peer:
    """Return who the certificate is for, unverified; raises `ProofRefused` where quicbus issued nothing like it."""
    identity = identity_of(certificate)
    public_key = certificate.public_key()
    if identity is None or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise _invalid("the certificate names no quicbus node or client")
    not_after = certificate.not_valid_after_utc
    return Peer(identity.role, identity.name, identity.mesh, node_id_of(public_key), not_after)


def _invalid(why: str) -> ProofRefused:
    return ProofRefused(CloseCode.CREDENTIAL_INVALID, f"{why}; get a credential from this mesh with {ISSUE_CLIENT}")
