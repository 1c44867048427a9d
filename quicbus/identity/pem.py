"""Cutting PEM text into private keys and certificates, with errors that people can act on."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quicbus import limits
from quicbus.exceptions import CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_PEM_SIZE", "Parts", "certificate_from_der", "join", "parse_all", "split", "to_der"]

MAX_PEM_SIZE = 256 * 1024
"""A credential has about 2 KiB; more than this is some other file, and is not searched."""
MAX_DER_SIZE = 4096
"""A quicbus certificate has about 600 bytes."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class Parts(msgspec.Struct, frozen=True):
    """Private keys as PEM, in the order of the text, and certificates."""

    keys: list[bytes]
    certificates: list[x509.Certificate]


def split(data: bytes, source: str) -> Parts:
    """Find the keys and certificates in `data`; raises `CredentialError` that begins with `source`.

    Text around the blocks and blocks of other kinds are skipped, as other tools do.
    """
    parts = Parts([], [])
    if len(data) > MAX_PEM_SIZE:
        raise CredentialError(f"{source}: {len(data)} bytes are too many for a PEM file of keys and certificates")
    for match in _BLOCK.finditer(data):
        label = match[1]
        if label == b"CERTIFICATE":
            parts.certificates.append(_certificate(match[0], source))
        elif label.endswith(b"PRIVATE KEY"):
            parts.keys.append(match[0] + b"\n")
    return parts


def parse_all(certificate: x509.Certificate) -> x509.Certificate:
    """Have the parts parsed that are otherwise parsed when first asked for; raises `Exception` of any kind."""
    certificate.public_key()
    _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.serial_number
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate


def join(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return the certificates as PEM text, in their order."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def certificate_from_der(der: bytes, source: str) -> x509.Certificate:
    """Read one certificate; raises `CredentialError` that begins with `source`."""
    if len(der) > MAX_DER_SIZE:
        raise CredentialError(f"{source}: a certificate of {len(der)} bytes, at most {MAX_DER_SIZE} may be")
    try:
        return parse_all(x509.load_der_x509_certificate(der))
    except Exception:  # the library raises ValueError, UnsupportedAlgorithm and, for odd input, more
        raise CredentialError(f"{source}: a certificate in it is unreadable") from None


def _certificate(block: bytes, source: str) -> x509.Certificate:
    try:
        return _parsed(block)
    except Exception:  # the library raises ValueError, UnsupportedAlgorithm and, for odd input, more
        raise CredentialError(f"{source}: a certificate in it is unreadable") from None


@lru_cache(maxsize=limits.MAX_KEPT_CERTIFICATES)
def _parsed(block: bytes) -> x509.Certificate:
    """Each client of a process has the same authority, and looks at its file again and again."""
    return parse_all(x509.load_pem_x509_certificate(block))
