"""Keys and the ids that are made from them: node ids and mesh ids are hashes of public keys.

All keys are ECDSA on P-256: browsers take no other kind in a certificate for QUIC.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from quicbus.exceptions import CredentialError

__all__ = ["NODE_ID_SIZE", "generate_key", "is_p256", "key_from_pem", "key_to_pem", "mesh_id_of", "node_id_of"]

NODE_ID_SIZE = 16


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def node_id_of(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the id of the node (or client) that holds this key: 16 bytes, shown to people as 32 hex digits."""
    return _digest(public_key)[:NODE_ID_SIZE]


def mesh_id_of(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the id of the mesh whose authority's *first* key this is: 32 lower-case hex digits."""
    return _digest(public_key)[:NODE_ID_SIZE].hex()


def is_p256(public_key: object) -> bool:
    """Tell whether this is a key that quicbus takes."""
    return isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP256R1)


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as PEM, PKCS #8, unencrypted: the form that both engines read."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(data: bytes, source: str = "the key") -> ec.EllipticCurvePrivateKey:
    """Read a private key; raises `CredentialError` that begins with `source`."""
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise CredentialError(
            f"{source}: the private key is encrypted; write it without a passphrase (openssl pkcs8 -topk8 -nocrypt)"
        ) from None
    except Exception:  # the library raises ValueError, UnsupportedAlgorithm and, for odd input, more
        raise CredentialError(f"{source}: the private key is unreadable") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_p256(key.public_key()):
        raise CredentialError(f"{source}: the private key must be an ECDSA key on P-256")
    return key


def _digest(public_key: ec.EllipticCurvePublicKey) -> bytes:
    encoded = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).digest()
