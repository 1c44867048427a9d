"""What the mesh needs of cryptography, as a seam: the simulator passes a cheap stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from quicbus.wire.node_frames import InterestPiece, MemberRecord, Signed

__all__ = ["Expired", "Forged", "Revoked", "Signing"]


class Forged(Exception):
    """What came is not what its origin signed, or cannot be read: `why` says what is wrong with it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Expired(Forged):
    """The certificate is not valid now: it was once, or will be, so who passes it on may be honest."""


class Revoked(Forged):
    """The key of the node was revoked; who passes it on may not know that yet."""


class Signing(Protocol):
    """Signs for this node and checks what others signed. Every kind of signature has a context string of its own."""

    def seal_record(self, record: MemberRecord) -> Signed:
        """Sign the own record; the certificate chain is put into it."""
        ...

    def open_record(self, signed: Signed) -> MemberRecord:
        """Return a record whose chain leads to the authority of this mesh and whose node signed it; raises `Forged`,
        `Expired` where the certificate of the node is not valid now, and `Revoked`.

        From then on `open_interest` and `check_bundle` know the key of that node.
        """
        ...

    def seal_interest(self, piece: InterestPiece) -> Signed: ...

    def open_interest(self, signed: Signed) -> InterestPiece:
        """Raises `Forged`, also where no record of its node was opened yet."""
        ...

    def sign_bundle(self, signed: bytes) -> bytes: ...

    def check_bundle(self, origin: bytes, signed: bytes, signature: bytes) -> bool:
        """Return whether `origin` signed these bytes; False too where no record of it was opened yet."""
        ...

    def knows(self, node: bytes) -> bool:
        """Whether a record of this node was opened, and it is not revoked."""
        ...
