"""Certificates that no honest issuer writes, and the times that the tests use."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from quicbus.identity import Authority, Credential
from quicbus.identity.keys import generate_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

DAY = dt.timedelta(days=1)
NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def impostor_of(authority: Authority) -> Authority:
    """Return an authority with the same names and mesh id, but with a key of its own."""
    key = generate_key()
    genuine = certificate_of(authority.certificate_pem)
    return Authority(key, signed_again(genuine, key.public_key(), genuine, key), authority.mesh)


def certificate_of(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


def signed_again(
    template: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    names: list[x509.GeneralName] | None = None,
) -> x509.Certificate:
    """Copy a certificate for another key, by another issuer, if wanted with other SANs."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(template.subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
    )
    for extension in template.extensions:
        value: x509.ExtensionType = extension.value
        if isinstance(value, x509.SubjectKeyIdentifier):
            value = x509.SubjectKeyIdentifier.from_public_key(public_key)
        elif isinstance(value, x509.AuthorityKeyIdentifier):
            value = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        elif isinstance(value, x509.SubjectAlternativeName) and names is not None:
            value = x509.SubjectAlternativeName(names)
        builder = builder.add_extension(value, critical=extension.critical)
    return builder.sign(issuer_key, hashes.SHA256())


def issued_by_a_client(template: Credential, client: Credential) -> Credential:
    """Return a credential like `template` that a mere client has signed, with the client's certificate in the chain."""
    key, issuer = generate_key(), certificate_of(client.chain_pem)
    own = signed_again(certificate_of(template.chain_pem), key.public_key(), issuer, client.private_key)
    return Credential.from_parts(key, [own, issuer], [certificate_of(client.authority_pem)])


def with_names(authority: Authority, template: Credential, names: list[x509.GeneralName]) -> list[bytes]:
    """Return the chain (DER) of a certificate that the authority signed for the template's key, with other SANs."""
    issuer = certificate_of(authority.certificate_pem)
    own = signed_again(
        certificate_of(template.chain_pem), template.private_key.public_key(), issuer, authority._key, names=names
    )
    return [own.public_bytes(Encoding.DER)]
