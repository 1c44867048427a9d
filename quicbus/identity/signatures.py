"""Signatures of nodes over what others pass on. Every kind has a context string of its own.

What is signed is the context, the mesh and the payload, each preceded by its length: a signature of one kind, or of
another mesh, is of no use for another.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from quicbus.identity.proof import MAX_SIGNATURE_SIZE

if TYPE_CHECKING:
    from quicbus.identity.credential import Credential

__all__ = ["SignatureContext", "is_signed_by", "sign", "sign_with"]

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class SignatureContext(Enum):
    """What a signature is for. `quicbus proof of possession v1` is that of proofs."""

    RECORD = b"quicbus member record v1"
    INTEREST = b"quicbus interest v1"
    BUNDLE = b"quicbus bundle v1"
    TRUST = b"quicbus trust list v1"
    """Of an authority, the others of nodes."""


def sign(credential: Credential, context: SignatureContext, payload: bytes) -> bytes:
    """Return the signature of the credential's holder."""
    return sign_with(credential.private_key, credential.mesh, context, payload)


def sign_with(key: ec.EllipticCurvePrivateKey, mesh: str, context: SignatureContext, payload: bytes) -> bytes:
    """Return the signature of this key's holder."""
    return key.sign(_signed_bytes(context, mesh, payload), _ALGORITHM)


def is_signed_by(
    public_key: ec.EllipticCurvePublicKey, mesh: str, context: SignatureContext, payload: bytes, signature: bytes
) -> bool:
    """Tell whether the holder of this key has signed these bytes, in this context and mesh."""
    if not 0 < len(signature) <= MAX_SIGNATURE_SIZE:
        return False
    try:
        public_key.verify(signature, _signed_bytes(context, mesh, payload), _ALGORITHM)
    except InvalidSignature:
        return False
    return True


def _signed_bytes(context: SignatureContext, mesh: str, payload: bytes) -> bytes:
    name, of_mesh = context.value, mesh.encode()
    front = len(name).to_bytes(4, "big") + name + len(of_mesh).to_bytes(4, "big") + of_mesh
    return b"".join((front, len(payload).to_bytes(8, "big"), payload))
