"""What `broker.events()` tells: who comes to the mesh, fails, leaves and returns, and the links of this broker."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class BrokerEvent:
    """Base of all events of a broker. `node` tells nodes apart, names need not."""

    node: str
    """Id of the member that it is about, 32 hex digits."""
    name: str


@dataclass(frozen=True, slots=True)
class MemberJoined(BrokerEvent):
    """A member that was not known, or had left."""


@dataclass(frozen=True, slots=True)
class MemberSuspected(BrokerEvent):
    """It answered neither the node that watches it nor others. It may refute that, or `MemberFailed` follows."""


@dataclass(frozen=True, slots=True)
class MemberFailed(BrokerEvent):
    """It is gone without a word. It is dialed again for ever."""


@dataclass(frozen=True, slots=True)
class MemberLeft(BrokerEvent):
    """It stopped, and said so."""


@dataclass(frozen=True, slots=True)
class MemberRecovered(BrokerEvent):
    """A suspect or failed member is alive: it refuted, was reached again, or was started again."""


@dataclass(frozen=True, slots=True)
class MemberMoved(BrokerEvent):
    """It was started again, or has other addresses, and was not missed meanwhile."""


@dataclass(frozen=True, slots=True)
class MemberRevoked(BrokerEvent):
    """Its key was revoked: it is no member any more, and nothing of it is taken."""


@dataclass(frozen=True, slots=True)
class TrustChanged(BrokerEvent):
    """A later trust list counts at this broker, which `node` and `name` tell."""

    version: int
    revoked: int
    """How many keys are revoked in it."""


@dataclass(frozen=True, slots=True)
class CertificateExpiring(BrokerEvent):
    """A certificate of this broker, which `node` and `name` tell, ends soon and could not be renewed so far."""

    whose: str
    """`node`, or `local` for the credential of local applications."""
    expires_in_s: float
    why: str
    """What the last attempt met; empty before the first."""


@dataclass(frozen=True, slots=True)
class CertificateRenewed(BrokerEvent):
    """A certificate of this broker was renewed."""

    whose: str
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class LinkUp(BrokerEvent):
    """This broker and that one are neighbours: they watch each other and pass broadcasts on."""


@dataclass(frozen=True, slots=True)
class LinkDown(BrokerEvent):
    """No longer neighbours."""
