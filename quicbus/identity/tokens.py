"""Join tokens: what a machine needs to become a node or a client of a mesh, in one line of text.

The secret in a token is the seed of an Ed25519 key. The authority keeps only the public key, so what it stores can't
redeem; and what a token signs may pass through other nodes, which learn nothing that they could redeem it with.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from quicbus import limits
from quicbus.exceptions import CredentialError
from quicbus.identity import pem
from quicbus.identity.authority import authority_mesh
from quicbus.identity.names import Role, is_mesh_id, server_name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "TOKEN_ID_SIZE",
    "TOKEN_SIGNATURE_SIZE",
    "JoinToken",
    "is_signed_by_token",
]

TOKEN_ID_SIZE = 8
SECRET_SIZE = 32
TOKEN_SIGNATURE_SIZE = 64
MAX_TEXT_SIZE = 32 * 1024

_PREFIX = "qbt1-"
_CONTEXT = b"quicbus join request v1"
_CHECKSUM_SIZE = 4
_MAKE_ANOTHER = "make another one with `quicbus token create`"

_Short = Annotated[str, msgspec.Meta(max_length=300)]
_Der = Annotated[bytes, msgspec.Meta(max_length=pem.MAX_DER_SIZE)]


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """What the text holds, before its checksum."""

    mesh: _Short
    seeds: Annotated[tuple[_Short, ...], msgspec.Meta(min_length=1, max_length=limits.MAX_SEEDS_OF_TOKEN)]
    authorities: Annotated[tuple[_Der, ...], msgspec.Meta(min_length=1, max_length=limits.MAX_AUTHORITIES)]
    id: Annotated[bytes, msgspec.Meta(min_length=TOKEN_ID_SIZE, max_length=TOKEN_ID_SIZE)]
    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_SIZE, max_length=SECRET_SIZE)]
    role: Role
    name: _Short
    expires_at: Annotated[int, msgspec.Meta(ge=0, le=1 << 36)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Content)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Whoever holds it may join once, or as often as it allows: it is a secret."""

    mesh: str
    seeds: tuple[str, ...]
    """HOST:PORT of nodes that take the request, at least one."""
    authorities: tuple[bytes, ...] = field(repr=False)
    """Certificates in DER: what the listener is verified with."""
    id: bytes
    secret: bytes = field(repr=False)
    role: Role
    name: str
    """What the holder will be called; with several uses a number is added. Empty: a name is made."""
    expires_at: dt.datetime

    @classmethod
    def make(
        cls,
        mesh: str,
        seeds: Sequence[str],
        authorities: Sequence[bytes],
        role: Role,
        name: str,
        expires_at: dt.datetime,
    ) -> Self:
        """Return a token with a new id and secret. `TokenStore.create` makes those that can be redeemed."""
        expires_at = expires_at.replace(microsecond=0)  # the text holds whole seconds
        new_id, secret = secrets.token_bytes(TOKEN_ID_SIZE), secrets.token_bytes(SECRET_SIZE)
        return cls(mesh, tuple(seeds), tuple(authorities), new_id, secret, role, name, expires_at)

    @classmethod
    def parse(cls, text: str, now: dt.datetime | None = None) -> Self:
        """Read the text; raises `CredentialError` that says what is wrong with it: no token, cut off, expired.

        Spaces and line breaks, as terminals and mail add them, are skipped.
        """
        content = _content_of(text)
        try:
            meshes = {authority_mesh(pem.certificate_from_der(der, "token"), "token") for der in content.authorities}
            expires_at = dt.datetime.fromtimestamp(content.expires_at, dt.UTC)
        except (CredentialError, ValueError, OverflowError, OSError):
            raise CredentialError(f"the token holds no readable authority; {_MAKE_ANOTHER}") from None
        if meshes != {content.mesh} or not is_mesh_id(content.mesh):
            raise CredentialError(f"the token's authority is of another mesh; {_MAKE_ANOTHER}")
        now = now or dt.datetime.now(dt.UTC)
        if now > expires_at:
            raise CredentialError(
                f"the token expired on {expires_at:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M} UTC here; "
                f"{_MAKE_ANOTHER}, or set this machine's clock"
            )
        return cls(
            content.mesh,
            content.seeds,
            content.authorities,
            content.id,
            content.secret,
            content.role,
            content.name,
            expires_at,
        )

    @property
    def text(self) -> str:
        """What people hand on; `parse` reads it."""
        content = _encoder.encode(
            _Content(
                self.mesh,
                self.seeds,
                self.authorities,
                self.id,
                self.secret,
                self.role,
                self.name,
                int(self.expires_at.timestamp()),
            )
        )
        return _PREFIX + base64.urlsafe_b64encode(content + _checksum(content)).decode().rstrip("=")

    @property
    def authorities_pem(self) -> bytes:
        return pem.join(pem.certificate_from_der(der, "token") for der in self.authorities)

    @property
    def server_name(self) -> str:
        """What dialers ask TLS for, whatever host they dial."""
        return server_name_of(self.mesh)

    @property
    def public_key(self) -> bytes:
        """What the authority keeps: 32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()

    def sign(self, csr: bytes, local_csr: bytes = b"") -> bytes:
        """Return the signature that redeems the token for the key of this request, and for no other.

        `local_csr`: of a node that also wants the credential of its local applications.
        """
        key = Ed25519PrivateKey.from_private_bytes(self.secret)
        return key.sign(_signed_bytes(self.mesh, self.id, csr, local_csr))


def is_signed_by_token(
    public_key: bytes, signature: bytes, mesh: str, token_id: bytes, csr: bytes, local_csr: bytes = b""
) -> bool:
    """Tell whether the token with this public key has signed the request."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, _signed_bytes(mesh, token_id, csr, local_csr))
    except (InvalidSignature, ValueError):
        return False
    return True


def _content_of(text: str) -> _Content:
    text = re.sub(r"\s+", "", text[:MAX_TEXT_SIZE])
    if not text.startswith(_PREFIX):
        raise CredentialError(f"this is no join token: one begins with {_PREFIX}; {_MAKE_ANOTHER}")
    encoded = text.removeprefix(_PREFIX)
    try:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", encoded):
            raise ValueError(encoded)
        data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        data = b""
    content, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
    if not content or _checksum(content) != checksum:
        raise CredentialError(f"the token is cut off or mistyped; copy the whole line, or {_MAKE_ANOTHER}")
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CredentialError("the token is of a version that this quicbus does not read; update quicbus") from None


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM_SIZE]


def _signed_bytes(mesh: str, token_id: bytes, csr: bytes, local_csr: bytes) -> bytes:
    parts = (_CONTEXT, mesh.encode(), token_id, csr, local_csr)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
