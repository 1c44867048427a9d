"""Signatures that cost next to nothing and still tell what was altered: for machines that trust one process.

A signature is a keyed hash, the key being the origin's id: whoever wants to forge can, by calling `seal_...` of
another's. What no honest signer made is refused, as with real keys.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from quicbus.wire.node_frames import InterestPiece, MemberRecord, Signed
from quicbus_broker.mesh.signing import Forged, Revoked
from quicbus_broker.mesh.trust.keeper import NoTrust

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId
    from quicbus_broker.mesh.trust.keeper import TrustKeeper

__all__ = ["CHAIN", "StandInMesh", "StandInSigning"]

SIGNATURE_SIZE = 64
"""As ECDSA P-256 has, without the few bytes of DER."""
CHAIN = (b"c" * 620,)
"""In place of a node's certificate, which has 560 to 680 bytes: what is measured in bytes needs the size."""

_encode = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T", MemberRecord, InterestPiece)


class StandInMesh:
    """What all the nodes of one simulation share: everything that was sealed, so that nobody decodes it again."""

    def __init__(self, *, trusts_all: bool = False) -> None:
        """With `trusts_all` every node knows the key of every other: sets of 10,000 for each of 10,000 are too much."""
        self.trusts_all = trusts_all
        self._sealed: dict[bytes, tuple[MemberRecord | InterestPiece, bytes]] = {}

    def seal(self, value: MemberRecord | InterestPiece) -> Signed:
        payload = _encode(value)
        signature = _sign(value.node, payload)
        self._sealed[payload] = (value, signature)
        return Signed(payload, signature)

    def open(self, signed: Signed, kind: type[_T]) -> _T:
        """Return what was sealed; raises `Forged`."""
        found = self._sealed.get(signed.payload)
        if found is None or found[1] != signed.signature:
            raise Forged("altered, or signed by another")
        value = found[0]
        if type(value) is not kind:
            raise Forged(f"not a {kind.__name__}")
        return value


class StandInSigning:
    """`Signing` of one node."""

    __slots__ = ("_known", "_me", "_mesh", "_trust")

    def __init__(self, mesh: StandInMesh, me: NodeId, trust: TrustKeeper | None = None) -> None:
        self._trust: TrustKeeper = trust or NoTrust()
        self._mesh = mesh
        self._me = me
        self._known: set[NodeId] = set()

    def seal_record(self, record: MemberRecord) -> Signed:
        self._known.add(self._me)
        return self._mesh.seal(replace(record, chain=CHAIN))

    def open_record(self, signed: Signed) -> MemberRecord:
        record = self._mesh.open(signed, MemberRecord)
        if self._trust.is_revoked(record.node):
            raise Revoked("the key of its node is revoked")
        if not self._mesh.trusts_all:
            self._known.add(record.node)
        return record

    def seal_interest(self, piece: InterestPiece) -> Signed:
        return self._mesh.seal(piece)

    def open_interest(self, signed: Signed) -> InterestPiece:
        piece = self._mesh.open(signed, InterestPiece)
        if not self.knows(piece.node):
            raise Forged("no record of its node was opened yet")
        return piece

    def sign_bundle(self, signed: bytes) -> bytes:
        return _sign(self._me, signed)

    def check_bundle(self, origin: bytes, signed: bytes, signature: bytes) -> bool:
        return self.knows(origin) and _sign(origin, signed) == signature

    def knows(self, node: bytes) -> bool:
        return (self._mesh.trusts_all or node in self._known) and not self._trust.is_revoked(node)


def _sign(origin: NodeId, payload: bytes) -> bytes:
    return blake2b(payload, digest_size=SIGNATURE_SIZE, key=origin).digest()
