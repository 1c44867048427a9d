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
from quicbus.identity.credential import CLOCK_SKEW, Credential
from quicbus.identity.keys import generate_key, is_p256, key_from_pem, key_to_pem, mesh_id_of, node_id_of
from quicbus.identity.names import Identity, Role, check_name, is_mesh_id, server_name_of
from quicbus.identity.signatures import sign_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity.signatures import SignatureContext

__all__ = ["AUTHORITY_DAYS", "CERTIFICATE_DAYS", "Authority", "authority_mesh", "check_days"]

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 30
"""How long node and client certificates live unless told otherwise. Shorter limits what a stolen key is worth; longer
lets those who are away, or renew by hand, be away for longer."""
MAX_DAYS = 3650

_URI = "quicbus://{mesh}/authority"


class Authority:
    """A CA certificate and its key. Whoever holds the key decides who belongs to the mesh."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        mesh: str,
        others: Sequence[x509.Certificate] = (),
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._others = tuple(others)
        self.mesh = mesh

    @classmethod
    def create(
        cls,
        *,
        days: float = AUTHORITY_DAYS,
        key: ec.EllipticCurvePrivateKey | None = None,
        now: dt.datetime | None = None,
        mesh: str | None = None,
    ) -> Self:
        """Make the authority of a new mesh, with a new key unless one is given; the mesh's id is a hash of it.

        `mesh`: make a further authority of this mesh instead. It means nothing until a trust list names it.
        """
        key = key or generate_key()
        mesh = mesh or mesh_id_of(key.public_key())
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
        """Read the PEM of a key and its certificate, in any order; raises `CredentialError`.

        Further certificates are those of other authorities of the mesh, which are trusted beside this one.
        """
        parts = pem.split(data, source)
        if len(parts.keys) != 1 or not parts.certificates:
            raise CredentialError(f"{source}: expected one private key and the certificate of an authority")
        key = key_from_pem(parts.keys[0], source)
        own = next((one for one in parts.certificates if one.public_key() == key.public_key()), None)
        if own is None:
            raise CredentialError(f"{source}: the authority's private key does not fit its certificate")
        mesh = authority_mesh(own, source)
        others = [one for one in parts.certificates if one != own]
        if any(authority_mesh(one, source) != mesh for one in others):
            raise CredentialError(f"{source}: authorities of several meshes; keep those of mesh {mesh} only")
        return cls(key, own, mesh, others)

    @property
    def certificate_pem(self) -> bytes:
        """Of this authority alone."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """The certificates that the mesh trusts: this one first, then the others."""
        return (self._certificate, *self._others)

    @property
    def authorities_pem(self) -> bytes:
        return pem.join(self.authorities)

    @property
    def authorities_der(self) -> tuple[bytes, ...]:
        return tuple(pem.to_der(one) for one in self.authorities)

    @property
    def key_id(self) -> bytes:
        """Hash of its public key, 16 bytes: what tells authorities of one mesh apart."""
        return node_id_of(self._key.public_key())

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

    def certify(
        self,
        role: Role,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        days: float = CERTIFICATE_DAYS,
        now: dt.datetime | None = None,
    ) -> bytes:
        """Return a certificate in DER for a key that somebody else holds, who has shown that he does (`request_key`).

        Raises `InvalidSetting` for the name and days, `CredentialError` where the authority itself has expired.
        """
        certificate = self._certify(Identity(self.mesh, role, check_name(name)), public_key, days, now)
        return certificate.public_bytes(Encoding.DER)

    def sign(self, context: SignatureContext, payload: bytes) -> bytes:
        """Return the authority's signature over what it tells the mesh."""
        return sign_with(self._key, self.mesh, context, payload)

    def _issue(
        self, identity: Identity, key: ec.EllipticCurvePrivateKey | None, days: float, now: dt.datetime | None
    ) -> Credential:
        key = key or generate_key()
        certificate = self._certify(identity, key.public_key(), days, now)
        return Credential.from_parts(key, [certificate], self.authorities)

    def _certify(
        self, identity: Identity, public_key: ec.EllipticCurvePublicKey, days: float, now: dt.datetime | None
    ) -> x509.Certificate:
        start, end = _period(days, now, self._certificate)
        return (
            _builder(
                public_key,
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


def check_days(days: float) -> None:
    """Raise `InvalidSetting` for a life that no certificate can have."""
    if not 0 < days <= MAX_DAYS:
        raise InvalidSetting("days", f"{days:g} is not allowed: more than 0, at most {MAX_DAYS}")


def _period(
    days: float, now: dt.datetime | None, authority: x509.Certificate | None
) -> tuple[dt.datetime, dt.datetime]:
    check_days(days)
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
