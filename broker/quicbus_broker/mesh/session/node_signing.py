"""`Signing` as it runs in production: ECDSA on P-256, with the key of the node's certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.identity import ProofRefused, Role, SignatureContext, is_signed_by, sign
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.node_frames import InterestPiece, MemberRecord, Signed
from quicbus_broker.mesh.signing import Expired, Forged, Revoked

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity import Credential, Verifier

__all__ = ["NodeSigning"]

MAX_RECORD_SIZE = 32 * 1024
"""Four certificates of 4 KiB, 16 addresses, and room. A record travels in frames with others, and with claims: one that
fits only the frame that it came in would close the link of whoever passes it on."""
MAX_PIECE_SIZE = 200_000
"""Likewise. An honest piece holds at most 64 KiB and one entry, see `own_interest.PIECE_SIZE`."""

_KINDS = {CloseCode.CREDENTIAL_EXPIRED: Expired, CloseCode.CREDENTIAL_REVOKED: Revoked}

_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(MemberRecord)
_pieces = msgspec.msgpack.Decoder(InterestPiece)


class _Known(msgspec.Struct, frozen=True):
    """A node whose certificate was verified."""

    certificate: bytes
    """DER."""
    name: str
    public_key: ec.EllipticCurvePublicKey
    not_after: dt.datetime


class NodeSigning:
    """`credential` is asked at each signature: it may have been renewed. Keys of others are kept, a bounded number."""

    def __init__(
        self,
        credential: Callable[[], Credential],
        verifier: Verifier,
        wall_clock: Callable[[], dt.datetime],
        *,
        is_revoked: Callable[[bytes], bool] = lambda node: False,
        max_known: int = limits.MAX_KNOWN_KEYS,
    ) -> None:
        self._credential = credential
        self.verifier = verifier
        """May be replaced: other authorities are trusted then."""
        self._is_revoked = is_revoked
        self._wall_clock = wall_clock
        self._max_known = max_known
        self._known: dict[bytes, _Known] = {}

    def seal_record(self, record: MemberRecord) -> Signed:
        credential = self._credential()
        payload = _encoder.encode(msgspec.structs.replace(record, chain=tuple(credential.chain_der)))
        return Signed(payload, sign(credential, SignatureContext.RECORD, payload))

    def open_record(self, signed: Signed) -> MemberRecord:
        if len(signed.payload) > MAX_RECORD_SIZE:
            raise Forged(f"a member record of {len(signed.payload)} bytes, at most {MAX_RECORD_SIZE} may be")
        try:
            record = _records.decode(signed.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Forged(f"an unreadable member record: {error}") from None
        if self._is_revoked(record.node):
            raise Revoked(f"the record of node {record.node.hex()}, whose key is revoked")
        known = self._known.get(record.node)
        if known is None or not record.chain or known.certificate != record.chain[0]:
            known = self._verify(record)
        self._check_holder(record, known)
        if not self._is_signed(known, SignatureContext.RECORD, signed.payload, signed.signature):
            raise Forged(f"the record of node {record.node.hex()} is not signed by it")
        self._remember(record.node, known)
        return record

    def seal_interest(self, piece: InterestPiece) -> Signed:
        payload = _encoder.encode(piece)
        return Signed(payload, sign(self._credential(), SignatureContext.INTEREST, payload))

    def open_interest(self, signed: Signed) -> InterestPiece:
        if len(signed.payload) > MAX_PIECE_SIZE:
            raise Forged(f"a piece of interest of {len(signed.payload)} bytes, at most {MAX_PIECE_SIZE} may be")
        try:
            piece = _pieces.decode(signed.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Forged(f"an unreadable piece of interest: {error}") from None
        known = self._known.get(piece.node) if self.knows(piece.node) else None
        if known is None:
            raise Forged(f"interest of node {piece.node.hex()}, of which no record is known")
        if not self._is_signed(known, SignatureContext.INTEREST, signed.payload, signed.signature):
            raise Forged(f"the interest of node {piece.node.hex()} is not signed by it")
        return piece

    def sign_bundle(self, signed: bytes) -> bytes:
        return sign(self._credential(), SignatureContext.BUNDLE, signed)

    def check_bundle(self, origin: bytes, signed: bytes, signature: bytes) -> bool:
        known = self._known.get(origin)
        if known is None or self._is_revoked(origin):
            return False
        return self._is_signed(known, SignatureContext.BUNDLE, signed, signature)

    def knows(self, node: bytes) -> bool:
        return node in self._known and not self._is_revoked(node)

    def _verify(self, record: MemberRecord) -> _Known:
        try:
            peer, public_key = self.verifier.verify_chain(record.chain, self._wall_clock())
        except ProofRefused as error:
            raise _KINDS.get(error.code, Forged)(f"the record of node {record.node.hex()}: {error.why}") from None
        if peer.role is not Role.NODE:
            raise Forged(f"a record with the certificate of {peer.role} {peer.name}")
        if peer.node_id != record.node:
            raise Forged(f"a record of node {record.node.hex()} with the certificate of node {peer.node_id.hex()}")
        return _Known(record.chain[0], peer.name, public_key, peer.not_after)

    def _check_holder(self, record: MemberRecord, known: _Known) -> None:
        if record.name != known.name:
            raise Forged(f"node {record.node.hex()} calls itself {record.name!r}, its certificate {known.name!r}")
        if self._wall_clock() > known.not_after:
            raise Expired(f"the certificate of node {known.name} expired on {known.not_after:%Y-%m-%d %H:%M} UTC")

    def _is_signed(self, known: _Known, context: SignatureContext, payload: bytes, signature: bytes) -> bool:
        return is_signed_by(known.public_key, self.verifier.mesh, context, payload, signature)

    def _remember(self, node: bytes, known: _Known) -> None:
        self._known.pop(node, None)
        self._known[node] = known
        if len(self._known) > self._max_known:
            del self._known[next(iter(self._known))]
