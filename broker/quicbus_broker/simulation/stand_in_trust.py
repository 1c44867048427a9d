"""Trust lists without cryptography: a version and the nodes that are revoked, under a seal that only tells damage."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from quicbus_broker.mesh.signing import Forged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["StandInTrust", "trust_list"]

_SEAL_SIZE = 8
_encode = msgspec.msgpack.Encoder().encode
_lists = msgspec.msgpack.Decoder(tuple[int, list[bytes]])


def trust_list(version: int, revoked: Iterable[NodeId]) -> bytes:
    """Return a list as it travels."""
    content = _encode((version, sorted(revoked)))
    return _seal(content) + content


class StandInTrust:
    """`TrustKeeper` of one process; `signed` is what its data folder holds at the start."""

    def __init__(self, signed: bytes = b"") -> None:
        self.signed = b""
        self.version = 0
        self.revoked: frozenset[NodeId] = frozenset()
        if signed:
            self.take(signed)

    def take(self, signed: bytes) -> bool:
        seal, content = signed[:_SEAL_SIZE], signed[_SEAL_SIZE:]
        if _seal(content) != seal:
            raise Forged("a trust list that no authority has signed")
        version, revoked = _lists.decode(content)
        if version <= self.version:
            return False
        self.version, self.revoked, self.signed = version, frozenset(revoked), signed
        return True

    def is_revoked(self, node: NodeId) -> bool:
        return node in self.revoked


def _seal(content: bytes) -> bytes:
    return blake2b(content, digest_size=_SEAL_SIZE).digest()
