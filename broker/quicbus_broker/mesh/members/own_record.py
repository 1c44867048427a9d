"""What this node says of itself: one sealed record, of a higher incarnation with each change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from quicbus.wire.node_frames import MemberRecord, Signed
    from quicbus_broker.mesh.signing import Signing

__all__ = ["INCARNATION_STEP_MAX", "OwnRecord"]

INCARNATION_STEP_MAX = 1 << 32
"""A claim may be ahead of the own incarnation by so much: an earlier boot with a wrong clock is, by less. More is an
attack on the 64 bits that there are."""


class OwnRecord:
    __slots__ = ("_signing", "record", "signed")

    record: MemberRecord
    signed: Signed

    def __init__(self, signing: Signing) -> None:
        self._signing = signing

    def adopt(self, record: MemberRecord, signed: Signed) -> None:
        """Begin with a record that was sealed before."""
        self.record = record
        self.signed = signed

    def begin(self, record: MemberRecord) -> None:
        self.record = record
        self.signed = self._signing.seal_record(record)

    def is_believable(self, incarnation: int) -> bool:
        """Whether somebody honest can have come so far."""
        return incarnation - self.record.incarnation <= INCARNATION_STEP_MAX

    def refute(self, incarnation: int) -> None:
        """Rise above `incarnation`."""
        self.begin(replace(self.record, incarnation=incarnation + 1))

    def moved(self, *, addresses: tuple[str, ...] | None = None, via: tuple[bytes, ...] | None = None) -> bool:
        """Change what is given; False where that is what it says already."""
        changed = replace(
            self.record,
            addresses=self.record.addresses if addresses is None else addresses,
            via=self.record.via if via is None else via,
        )
        if changed == self.record:
            return False
        self.begin(replace(changed, incarnation=self.record.incarnation + 1))
        return True

    def seal_again(self) -> None:
        """Say the same under the credential as it is now."""
        self.begin(replace(self.record, incarnation=self.record.incarnation + 1))

    def leave(self) -> None:
        self.begin(replace(self.record, left=True, incarnation=self.record.incarnation + 1))
