"""What a certificate or credential file says, for people: `quicbus cert show`."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from quicbus.exceptions import CredentialError
from quicbus.identity import pem
from quicbus.identity.authority import authority_mesh
from quicbus.identity.keys import node_id_of
from quicbus.identity.names import identity_of

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["CertificateDescription", "describe_certificate", "describe_certificates"]


@dataclass(frozen=True, slots=True)
class CertificateDescription:
    """Facts of one certificate. Nothing is verified: a file says what it says."""

    role: str
    """`node`, `client` or `authority`."""
    name: str
    mesh: str
    id: str
    """Hash of the public key, 32 hex digits; a node is known by it."""
    valid_from: dt.datetime
    valid_to: dt.datetime
    days_left: int
    """Whole days, negative once it has expired."""
    is_valid_now: bool
    has_private_key: bool
    """The file also holds a private key, so it is a secret."""
    fingerprint: str
    """SHA-256 of the certificate, hex."""
    issuer_fingerprint: str
    """SHA-256 of the authority's certificate, hex; empty where the file does not hold it."""

    def as_dict(self) -> dict[str, str | int | bool]:
        """Return the same as JSON takes it, times as ISO 8601 in UTC."""
        return {key: one.isoformat() if isinstance(one, dt.datetime) else one for key, one in asdict(self).items()}


def describe_certificate(
    data: bytes, *, source: str = "the certificate", now: dt.datetime | None = None
) -> CertificateDescription:
    """Describe the certificate in PEM text: of a credential its own, not the authority's. Raises `CredentialError`."""
    return describe_certificates(data, source=source, now=now)[0]


def describe_certificates(
    data: bytes, *, source: str = "the certificate", now: dt.datetime | None = None
) -> list[CertificateDescription]:
    """Like `describe_certificate`; of a file that holds authorities alone each of them."""
    now = now or dt.datetime.now(dt.UTC)
    parts = pem.split(data, source)
    if not parts.certificates:
        raise CredentialError(f"{source}: no certificate in it")
    own = next((one for one in parts.certificates if one.issuer != one.subject), None)
    described = parts.certificates if own is None else [own]
    return [_description(one, parts, source, now) for one in described]


def _description(
    certificate: x509.Certificate, parts: pem.Parts, source: str, now: dt.datetime
) -> CertificateDescription:
    issuer = next((one for one in parts.certificates if _is_issuer(one, certificate)), None)
    role, name, mesh = _who(certificate, source)
    public_key = certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)  # _who refused all others
    return CertificateDescription(
        role=role,
        name=name,
        mesh=mesh,
        id=node_id_of(public_key).hex(),
        valid_from=certificate.not_valid_before_utc,
        valid_to=certificate.not_valid_after_utc,
        days_left=(certificate.not_valid_after_utc - now).days,
        is_valid_now=certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc,
        has_private_key=bool(parts.keys),
        fingerprint=_fingerprint(certificate),
        issuer_fingerprint=_fingerprint(issuer) if issuer is not None else "",
    )


def _is_issuer(one: x509.Certificate, certificate: x509.Certificate) -> bool:
    # Authorities of one mesh have one name.
    try:
        certificate.verify_directly_issued_by(one)
    except Exception:  # ValueError, TypeError, InvalidSignature: whatever it is, this one has not issued it
        return False
    return True


def _who(certificate: x509.Certificate, source: str) -> tuple[str, str, str]:
    identity = identity_of(certificate)
    if identity is None:
        return "authority", "", authority_mesh(certificate, source)
    if not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
        raise CredentialError(f"{source}: the certificate's key is not ECDSA on P-256")
    return identity.role, identity.name, identity.mesh


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
