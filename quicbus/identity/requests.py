"""Signing requests: PKCS #10, of which the issuer takes the public key and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from quicbus.exceptions import CredentialError
from quicbus.identity.keys import is_p256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["MAX_REQUEST_SIZE", "make_request", "request_from_pem", "request_key", "request_to_pem"]

MAX_REQUEST_SIZE = 4096
"""One of quicbus has about 200 bytes; other tools put names into theirs."""
_MAX_TEXT_SIZE = 2 * MAX_REQUEST_SIZE


def make_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a request in DER, signed by `key`. It names nobody: name and role are given by who signs it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def request_key(csr: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a request in DER that may come from a stranger; raises `CredentialError`.

    The key is on P-256, and its holder has signed the request.
    """
    if len(csr) > MAX_REQUEST_SIZE:
        raise CredentialError(f"a signing request of {len(csr)} bytes, at most {MAX_REQUEST_SIZE} may be")
    try:
        request = x509.load_der_x509_csr(csr)
        public_key = request.public_key()
        is_taken = is_p256(public_key)
        is_signed = is_taken and request.is_signature_valid
    except Exception:  # the library raises ValueError, UnsupportedAlgorithm and, for odd input, more
        raise CredentialError("the signing request is unreadable; make one with `quicbus cert request`") from None
    if not is_taken:
        raise CredentialError(
            "the signing request's key is not ECDSA on P-256; make a request with `quicbus cert request`"
        )
    if not is_signed:
        raise CredentialError(
            "the signing request is not signed by its own key; make another one with `quicbus cert request`"
        )
    return public_key  # type: ignore[return-value]  # is_p256 says so


def request_to_pem(csr: bytes) -> bytes:
    """Return the text of a request file."""
    return x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM)


def request_from_pem(data: bytes, source: str) -> bytes:
    """Return the DER of a request file; raises `CredentialError` that begins with `source`."""
    try:
        if len(data) > _MAX_TEXT_SIZE:
            raise ValueError(len(data))
        return x509.load_pem_x509_csr(data).public_bytes(Encoding.DER)
    except Exception:  # as above
        raise CredentialError(
            f"{source}: no readable signing request in it; make one with `quicbus cert request`"
        ) from None
