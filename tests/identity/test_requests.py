"""Signing requests: what is taken out of one, and what is refused."""

from __future__ import annotations

import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from quicbus import limits
from quicbus.exceptions import CredentialError
from quicbus.identity import make_request, node_id_of, request_key
from quicbus.identity.keys import generate_key
from quicbus.identity.requests import MAX_REQUEST_SIZE, request_from_pem, request_to_pem

KEY = generate_key()


def request_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """Return what other tools write: with a name, and a SAN."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example")]), critical=False)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def test_the_key_of_a_request_is_that_of_its_maker() -> None:
    assert node_id_of(request_key(make_request(KEY))) == node_id_of(KEY.public_key())


def test_a_request_of_another_tool_is_taken_for_its_key() -> None:
    assert request_key(request_of(KEY)) == KEY.public_key()


def test_a_request_is_read_back_from_its_file() -> None:
    csr = make_request(KEY)
    assert request_from_pem(request_to_pem(csr), "node-request.pem") == csr


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_other_keys_than_p_256_are_refused(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    with pytest.raises(CredentialError, match="not ECDSA on P-256"):
        request_key(request_of(key))


def test_a_request_that_another_key_has_signed_is_refused() -> None:
    other = make_request(generate_key())
    own = make_request(KEY)
    # The public key is in the signed part, at the same place in both.
    point = KEY.public_key().public_numbers().x.to_bytes(32, "big")
    at = own.index(point)
    forged = other[:at] + own[at : at + 64] + other[at + 64 :]
    with pytest.raises(CredentialError, match=r"not signed by its own key|unreadable"):
        request_key(forged)


def test_too_long_a_request_is_refused_before_it_is_read() -> None:
    with pytest.raises(CredentialError, match=f"at most {MAX_REQUEST_SIZE}"):
        request_key(b"\x30" * (MAX_REQUEST_SIZE + 1))
    assert MAX_REQUEST_SIZE < limits.MAX_JOIN_REQUEST_SIZE


def test_mutated_requests_are_taken_for_their_key_or_refused() -> None:
    rng = random.Random(20)
    csr = make_request(KEY)
    refused = 0
    for _ in range(300):
        mutated = bytearray(csr)
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        if rng.random() < 0.2:
            del mutated[rng.randrange(len(mutated)) :]
        try:
            assert request_key(bytes(mutated)) == KEY.public_key()
        except CredentialError:
            refused += 1
    assert refused > 250, "seed 20"


@pytest.mark.parametrize("data", [b"", b"garbage", b"-----BEGIN CERTIFICATE REQUEST-----\n", b"x" * 100_000])
def test_a_file_without_a_request_is_named(data: bytes) -> None:
    with pytest.raises(CredentialError, match=r"^node-request\.pem: no readable signing request"):
        request_from_pem(data, "node-request.pem")
