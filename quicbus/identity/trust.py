"""The trust list of a mesh: its authorities and the keys that are revoked, as one signed object with a version.

The authority writes a new version for every change; nodes pass it on as it came, and it replaces any older one. Version
0 is a mesh that has none yet: only the authorities that each node was installed with.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import msgspec

from quicbus import limits
from quicbus.exceptions import CredentialError
from quicbus.identity import pem
from quicbus.identity.authority import authority_mesh
from quicbus.identity.keys import NODE_ID_SIZE, node_id_of
from quicbus.identity.proof import MAX_SIGNATURE_SIZE
from quicbus.identity.signatures import SignatureContext, is_signed_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity.authority import Authority

__all__ = ["Revocation", "TrustList", "TrustStore", "seal_trust"]

_MAX_TIME = 1 << 36

_Time = Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME)]
_KeyId = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_SIZE, max_length=NODE_ID_SIZE)]
_Der = Annotated[bytes, msgspec.Meta(max_length=pem.MAX_DER_SIZE)]


class Revocation(msgspec.Struct, frozen=True, array_like=True):
    """A key that is refused, with every certificate for it, those renewed later too."""

    key_id: _KeyId
    role: Annotated[str, msgspec.Meta(max_length=16)]
    name: Annotated[str, msgspec.Meta(max_length=64)]
    """What the key was known as: for people."""
    revoked_at: _Time
    """Seconds since 1970, as is the other."""
    until: _Time
    """From then on nothing that was issued for the key is valid or renewable, and the list may forget it."""

    @property
    def time(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.revoked_at, dt.UTC)


class TrustList(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed. Unknown fields are ignored."""

    mesh: str
    version: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
    """Grows. It follows the clock of the authority, in milliseconds, so that it grows also where the authority's folder
    was restored from a copy."""
    made_at: _Time
    authorities: Annotated[tuple[_Der, ...], msgspec.Meta(min_length=1, max_length=limits.MAX_AUTHORITIES)]
    """Certificates in DER, that of the issuing one first."""
    revoked: Annotated[tuple[Revocation, ...], msgspec.Meta(max_length=limits.MAX_REVOKED_KEYS)] = ()


class _Signature(msgspec.Struct, frozen=True, array_like=True):
    key_id: _KeyId
    """Of the authority that signed."""
    signature: Annotated[bytes, msgspec.Meta(max_length=MAX_SIGNATURE_SIZE)]


class _SignedTrust(msgspec.Struct, frozen=True, array_like=True):
    payload: bytes
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(min_length=1, max_length=limits.MAX_AUTHORITIES)]


_encoder = msgspec.msgpack.Encoder()
_signed_decoder = msgspec.msgpack.Decoder(_SignedTrust)
_decoder = msgspec.msgpack.Decoder(TrustList)


def seal_trust(content: TrustList, authorities: Sequence[Authority]) -> bytes:
    """Return the list signed by each of these: who trusts any one of them takes it. Raises `CredentialError`."""
    payload = _encoder.encode(content)
    signatures = tuple(_Signature(one.key_id, one.sign(SignatureContext.TRUST, payload)) for one in authorities)
    raw = _encoder.encode(_SignedTrust(payload, signatures))
    if len(raw) > limits.MAX_TRUST_SIZE or len(content.revoked) > limits.MAX_REVOKED_KEYS:
        raise CredentialError(
            f"the trust list has no room for more than {limits.MAX_REVOKED_KEYS} revoked keys; let certificates live "
            "for fewer days, so that revocations can be forgotten sooner"
        )
    return raw


class TrustStore:
    """What one node, or client, trusts now. Nothing here reads or writes files; `raw` is what to keep and pass on."""

    def __init__(self, mesh: str, authorities_pem: bytes, stored: bytes | None = None) -> None:
        """`stored`: an earlier `raw`; raises `CredentialError` where it is none of this mesh."""
        self.mesh = mesh
        self.raw = b""
        """Empty at version 0."""
        self._version = 0
        self._authorities = _authorities(pem.split(authorities_pem, "the authority").certificates, mesh)
        self._revoked: dict[bytes, Revocation] = {}
        if stored:
            self._set(_checked(stored, self.mesh, self._authorities, None), stored)

    @property
    def version(self) -> int:
        return self._version

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """That which issues first."""
        return tuple(self._authorities.values())

    @property
    def authorities_pem(self) -> bytes:
        return pem.join(self.authorities)

    @property
    def authorities_der(self) -> tuple[bytes, ...]:
        return tuple(pem.to_der(one) for one in self.authorities)

    @property
    def revoked(self) -> tuple[Revocation, ...]:
        return tuple(self._revoked.values())

    def revocation(self, key_id: bytes) -> Revocation | None:
        """Return how this key was revoked, if it was. Costs a look-up."""
        return self._revoked.get(key_id)

    def take(self, raw: bytes, now: dt.datetime) -> bool:
        """Replace the list where `raw` is newer, and tell whether it was.

        Raises `CredentialError` for what cannot be read, is of another mesh, or is not signed by an authority that is
        trusted so far and has not expired.
        """
        content = _checked(raw, self.mesh, self._authorities, now)
        if content.version <= self._version:
            return False
        self._set(content, raw)
        return True

    def install(self, authorities_pem: bytes) -> None:
        """Trust what an operator has put in place by hand, and forget the list; raises `CredentialError`."""
        self._authorities = _authorities(pem.split(authorities_pem, "the authority").certificates, self.mesh)
        self._revoked, self._version, self.raw = {}, 0, b""

    def _set(self, content: TrustList, raw: bytes) -> None:
        certificates = [pem.certificate_from_der(der, "the trust list") for der in content.authorities]
        self._authorities = _authorities(certificates, self.mesh)
        self._revoked = {one.key_id: one for one in content.revoked}
        self._version = content.version
        self.raw = raw


def _checked(raw: bytes, mesh: str, trusted: dict[bytes, x509.Certificate], now: dt.datetime | None) -> TrustList:
    if len(raw) > limits.MAX_TRUST_SIZE:
        raise CredentialError(f"a trust list of {len(raw)} bytes, at most {limits.MAX_TRUST_SIZE} may be")
    try:
        signed = _signed_decoder.decode(raw)
        content = _decoder.decode(signed.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CredentialError(f"the trust list is unreadable: {error}") from None
    if content.mesh != mesh:
        raise CredentialError(f"the trust list is of another mesh than {mesh}")
    if not any(_is_good(one, signed.payload, mesh, trusted, now) for one in signed.signatures):
        raise CredentialError(f"the trust list is not signed by an authority of mesh {mesh} that is trusted here")
    # Their form is checked before anything is replaced.
    _authorities([pem.certificate_from_der(der, "the trust list") for der in content.authorities], mesh)
    return content


def _is_good(
    one: _Signature, payload: bytes, mesh: str, trusted: dict[bytes, x509.Certificate], now: dt.datetime | None
) -> bool:
    certificate = trusted.get(one.key_id)
    if certificate is None or (now is not None and now > certificate.not_valid_after_utc):
        return False
    return is_signed_by(_key_of(certificate), mesh, SignatureContext.TRUST, payload, one.signature)


def _authorities(certificates: Sequence[x509.Certificate], mesh: str) -> dict[bytes, x509.Certificate]:
    if not certificates:
        raise CredentialError("no certificate of an authority")
    for one in certificates:
        if authority_mesh(one, "the trust list") != mesh:
            raise CredentialError(f"an authority in the trust list is not of mesh {mesh}")
    return {node_id_of(_key_of(one)): one for one in certificates}


def _key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    return certificate.public_key()  # type: ignore[return-value]  # authority_mesh has checked it
