"""The authority of a mesh: the X.509 CA that issues node and client certificates.

The issuer writes every SAN itself: nothing that a certificate says about its holder is copied from a request.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quicbus.exceptions import CredentialError, InvalidSetting
from quicbus.identity import pem
from quicbus.identity.credential import Credential
from quicbus.identity.keys import generate_key, is_p256, key_from_pem, key_to_pem, mesh_id_of
from quicbus.identity.names import Identity, Role, check_name, is_mesh_id, server_name_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["AUTHORITY_DAYS", "CERTIFICATE_DAYS", "Authority"]

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
"""How long node and client certificates live unless told otherwise. Shorter limits what a stolen key is worth, longer
spares sites without the authority's key from fetching new ones."""
MAX_DAYS = 3650
CLOCK_SKEW = dt.timedelta(minutes=5)
"""Certificates begin this much before they are issued, so that a peer whose clock is behind takes them at once."""

_URI = "quicbus://{mesh}/authority"


class Authority:
    """A CA certificate and its key. Whoever holds the key decides who belongs to the mesh."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, mesh: str) -> None:
        self._key = key
        self._certificate = certificate
        self.mesh = mesh

    @classmethod
    def create(
        cls,
        *,
        days: float = AUTHORITY_DAYS,
        key: ec.EllipticCurvePrivateKey | None = None,
        now: dt.datetime | None = None,
    ) -> Self:
        """Make the authority of a new mesh, with a new key unless one is given; the mesh's id is a hash of it."""
        key = key or generate_key()
        mesh = mesh_id_of(key.public_key())
        name = _subject("quicbus authority", mesh)
        start, end = _period(days, now, None)
        certificate = (
            _builder(key.public_key(), name, name, start, end)
            # No intermediate authorities: what it issues can issue nothing.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .add_extension(_authority_key_identifier(key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URI.format(mesh=mesh))]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate, mesh)

    @classmethod
    def load(cls, data: bytes, source: str = "the authority") -> Self:
        """Read the PEM of key and certificate, in any order; raises `CredentialError`."""
        parts = pem.split(data, source)
        if len(parts.keys) != 1 or len(parts.certificates) != 1:
            raise CredentialError(f"{source}: expected one private key and one certificate of an authority")
        key = key_from_pem(parts.keys[0], source)
        certificate = parts.certificates[0]
        if certificate.public_key() != key.public_key():
            raise CredentialError(f"{source}: the authority's private key does not fit its certificate")
        return cls(key, certificate, authority_mesh(certificate, source))

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def private_key_pem(self) -> bytes:
        return key_to_pem(self._key)

    @property
    def not_after(self) -> dt.datetime:
        return self._certificate.not_valid_after_utc

    def issue_node(
        self,
        name: str,
        *,
        days: float = CERTIFICATE_DAYS,
        key: ec.EllipticCurvePrivateKey | None = None,
        now: dt.datetime | None = None,
    ) -> Credential:
        """Issue a node certificate, for a new key unless one is given: a node that keeps its key keeps its id."""
        return self._issue(Identity(self.mesh, Role.NODE, check_name(name)), key, days, now)

    def issue_client(
        self,
        name: str,
        *,
        days: float = CERTIFICATE_DAYS,
        key: ec.EllipticCurvePrivateKey | None = None,
        now: dt.datetime | None = None,
    ) -> Credential:
        """Issue a client certificate, for a new key unless one is given."""
        return self._issue(Identity(self.mesh, Role.CLIENT, check_name(name)), key, days, now)

    def _issue(
        self, identity: Identity, key: ec.EllipticCurvePrivateKey | None, days: float, now: dt.datetime | None
    ) -> Credential:
        key = key or generate_key()
        start, end = _period(days, now, self._certificate)
        certificate = (
            _builder(
                key.public_key(),
                _subject(f"quicbus {identity.role}", identity.name),
                self._certificate.subject,
                start,
                end,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(_authority_key_identifier(self._key.public_key()), critical=False)
            .add_extension(_extended_key_usage(identity.role), critical=False)
            .add_extension(_alternative_names(identity), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Credential.from_parts(key, [certificate], [self._certificate])


def authority_mesh(certificate: x509.Certificate, source: str) -> str:
    """Return the mesh of an authority's certificate; raises `CredentialError` where it is none."""
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CredentialError(f"{source}: this certificate is not that of a quicbus authority") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    mesh = uris[0].removeprefix("quicbus://").removesuffix("/authority") if len(uris) == 1 else ""
    if not is_authority or not is_p256(certificate.public_key()) or not is_mesh_id(mesh):
        raise CredentialError(f"{source}: this certificate is not that of a quicbus authority")
    return mesh


def _period(
    days: float, now: dt.datetime | None, authority: x509.Certificate | None
) -> tuple[dt.datetime, dt.datetime]:
    if not 0 < days <= MAX_DAYS:
        raise InvalidSetting("days", f"{days:g} is not allowed: more than 0, at most {MAX_DAYS}")
    now = now or dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    if authority is not None:
        if now >= authority.not_valid_after_utc:
            raise CredentialError(
                f"the authority of this mesh expired on {authority.not_valid_after_utc:%Y-%m-%d}; it issues no more"
            )
        # A certificate that outlives its authority would fail with a puzzling error on its last days.
        end = min(end, authority.not_valid_after_utc)
    return now - CLOCK_SKEW, end


def _builder(
    public_key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, start: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _subject(common_name: str, user_id: str) -> x509.Name:
    # The chosen name is not the common name: some verifiers still compare that with the host, and a client may be
    # called "node.<mesh>.quicbus.internal". With a space in it the common name is no host.
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common_name), x509.NameAttribute(NameOID.USER_ID, user_id)]
    )


def _alternative_names(identity: Identity) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    if identity.role is Role.NODE:
        names.append(x509.DNSName(server_name_of(identity.mesh)))
    return x509.SubjectAlternativeName(names)


def _extended_key_usage(role: Role) -> x509.ExtendedKeyUsage:
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role is Role.NODE:
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    return x509.ExtendedKeyUsage(usages)


def _authority_key_identifier(public_key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
