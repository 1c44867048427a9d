"""Who keeps the trust list of this node, as a seam: the mesh passes the list on and never looks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["NoTrust", "TrustKeeper"]


class TrustKeeper(Protocol):
    """All of it answers at once."""

    @property
    def version(self) -> int:
        """Of the list that counts here; 0: there is none yet."""
        ...

    @property
    def signed(self) -> bytes:
        """The list as it travels."""
        ...

    def take(self, signed: bytes) -> bool:
        """Go by this list if it is later than the own one; returns whether it is. Raises `Forged` where it is not to be
        believed."""
        ...

    def is_revoked(self, node: NodeId) -> bool: ...


class NoTrust:
    """A mesh without a list."""

    version = 0
    signed = b""

    def take(self, signed: bytes) -> bool:
        return False

    def is_revoked(self, node: NodeId) -> bool:
        return False
