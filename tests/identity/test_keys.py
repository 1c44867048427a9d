"""Keys and the ids made from them."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from quicbus.exceptions import CredentialError
from quicbus.identity import mesh_id_of, node_id_of
from quicbus.identity.keys import generate_key, is_p256, key_from_pem, key_to_pem


def pem_of(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes = b"") -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_an_id_is_the_start_of_the_hash_of_the_public_key() -> None:
    public_key = generate_key().public_key()
    encoded = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert node_id_of(public_key) == hashlib.sha256(encoded).digest()[:16]
    assert mesh_id_of(public_key) == node_id_of(public_key).hex()


def test_a_key_is_read_back() -> None:
    key = generate_key()
    assert is_p256(key.public_key())
    assert key_from_pem(key_to_pem(key)).public_key() == key.public_key()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "unreadable"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "unreadable"),
        (pem_of(generate_key(), b"secret"), "encrypted"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "ECDSA key on P-256"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "ECDSA key on P-256"),
    ],
    ids=["empty", "garbage", "encrypted", "another curve", "another kind"],
)
def test_another_key_is_refused_by_name(data: bytes, why: str) -> None:
    with pytest.raises(CredentialError, match=why) as caught:
        key_from_pem(data, "node-key.pem")
    assert str(caught.value).startswith("node-key.pem: ")
