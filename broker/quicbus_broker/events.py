"""What `broker.events()` tells: who comes to the mesh, fails, leaves and returns, and the links of this broker."""

from __future__ import annotations

import msgspec

__all__ = [
    "BrokerEvent",
    "CertificateExpiring",
    "CertificateRenewed",
    "LinkDown",
    "LinkUp",
    "MemberFailed",
    "MemberJoined",
    "MemberLeft",
    "MemberMoved",
    "MemberRecovered",
    "MemberRevoked",
    "MemberSuspected",
    "TrustChanged",
]


class BrokerEvent(msgspec.Struct, frozen=True):
    """Base of all events of a broker. `node` tells nodes apart, names need not."""

    node: str
    """Id of the member that it is about, 32 hex digits."""
    name: str


class MemberJoined(BrokerEvent, frozen=True):
    """A member that was not known, or had left."""


class MemberSuspected(BrokerEvent, frozen=True):
    """It answered neither the node that watches it nor others. It may refute that, or `MemberFailed` follows."""


class MemberFailed(BrokerEvent, frozen=True):
    """It is gone without a word. It is dialed again for ever."""


class MemberLeft(BrokerEvent, frozen=True):
    """It stopped, and said so."""


class MemberRecovered(BrokerEvent, frozen=True):
    """A suspect or failed member is alive: it refuted, was reached again, or was started again."""


class MemberMoved(BrokerEvent, frozen=True):
    """It was started again, or has other addresses, and was not missed meanwhile."""


class MemberRevoked(BrokerEvent, frozen=True):
    """Its key was revoked: it is no member any more, and nothing of it is taken."""


class TrustChanged(BrokerEvent, frozen=True):
    """A later trust list counts at this broker, which `node` and `name` tell."""

    version: int
    revoked: int
    """How many keys are revoked in it."""


class CertificateExpiring(BrokerEvent, frozen=True):
    """A certificate of this broker, which `node` and `name` tell, ends soon and could not be renewed so far."""

    whose: str
    """`node`, or `local` for the credential of local applications."""
    expires_in_s: float
    why: str
    """What the last attempt met; empty before the first."""


class CertificateRenewed(BrokerEvent, frozen=True):
    """A certificate of this broker was renewed."""

    whose: str
    expires_in_s: float


class LinkUp(BrokerEvent, frozen=True):
    """This broker and that one are neighbours: they watch each other and pass broadcasts on."""


class LinkDown(BrokerEvent, frozen=True):
    """No longer neighbours."""
