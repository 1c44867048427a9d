"""A stand-in for signing that tells what was altered, and short ways to make members. Keys are the ids themselves."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from quicbus.wire.node_frames import InterestPiece, MemberRecord, Signed
from quicbus_broker.mesh.signing import Forged

__all__ = ["FakeSigning", "altered", "node_id", "sealed"]

_encode = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T", MemberRecord, InterestPiece)


class FakeSigning:
    """`Signing` of the node `me`. `opened` counts what was checked, what comes again is not."""

    def __init__(self, me: bytes) -> None:
        self.me = me
        self.opened = 0
        self._cache: dict[Signed, MemberRecord | InterestPiece] = {}
        self._known: dict[bytes, None] = {}

    def seal_record(self, record: MemberRecord) -> Signed:
        self._known[record.node] = None
        return self._seal(record)

    def open_record(self, signed: Signed) -> MemberRecord:
        record = self._open(signed, MemberRecord)
        self._known[record.node] = None
        return record

    def seal_interest(self, piece: InterestPiece) -> Signed:
        return self._seal(piece)

    def open_interest(self, signed: Signed) -> InterestPiece:
        piece = self._open(signed, InterestPiece)
        if piece.node not in self._known:
            raise Forged("no record of its node was opened yet")
        return piece

    def sign_bundle(self, signed: bytes) -> bytes:
        return _signature(self.me, signed)

    def check_bundle(self, origin: bytes, signed: bytes, signature: bytes) -> bool:
        return origin in self._known and _signature(origin, signed) == signature

    def knows(self, node: bytes) -> bool:
        return node in self._known

    def _seal(self, value: MemberRecord | InterestPiece) -> Signed:
        payload = _encode(value)
        return Signed(payload, _signature(value.node, payload))

    def _open(self, signed: Signed, kind: type[_T]) -> _T:
        cached = self._cache.get(signed)
        if isinstance(cached, kind):
            return cached
        self.opened += 1
        try:
            value = msgspec.msgpack.decode(signed.payload, type=kind)
        except msgspec.MsgspecError as error:
            raise Forged(f"cannot be read: {error}") from None
        if _signature(value.node, signed.payload) != signed.signature:
            raise Forged("altered, or signed by another")
        self._cache[signed] = value
        return value


def node_id(number: int) -> bytes:
    """Return an id that looks like one: spread over all buckets, the same for the same number."""
    return blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


def sealed(node: bytes, **fields: Any) -> Signed:
    """Return a record of a node by its own hand."""
    boot = fields.setdefault("boot", 1)
    fields = {"name": node.hex()[:4], "incarnation": boot, "mode": "hybrid", "addresses": ("h:1",)} | fields
    return FakeSigning(node).seal_record(MemberRecord(node=node, **fields))


def altered(signed: Signed, **fields: Any) -> Signed:
    """Return the record with other fields, under the signature that it had."""
    record = msgspec.structs.replace(msgspec.msgpack.decode(signed.payload, type=MemberRecord), **fields)
    return Signed(_encode(record), signed.signature)


def _signature(node: bytes, payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16, key=node).digest()
