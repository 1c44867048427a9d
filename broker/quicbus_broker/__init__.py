"""quicbus_broker: the node. `async with Broker(BrokerSettings(...)) as broker:` embeds one in an application."""

from quicbus_broker.broker import Broker, BrokerStatistics
from quicbus_broker.events import (
    BrokerEvent,
    CertificateExpiring,
    CertificateRenewed,
    LinkDown,
    LinkUp,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberMoved,
    MemberRecovered,
    MemberRevoked,
    MemberSuspected,
    TrustChanged,
)
from quicbus_broker.mesh.views import MeshStatistics
from quicbus_broker.routing import RoutingBooks
from quicbus_broker.settings import BrokerSettings

__all__ = [
    "Broker",
    "BrokerEvent",
    "BrokerSettings",
    "BrokerStatistics",
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
    "MeshStatistics",
    "RoutingBooks",
    "TrustChanged",
]
