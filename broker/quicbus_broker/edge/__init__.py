"""The edge: sessions of clients, admission, limits, permissions and flow control."""

from quicbus_broker.edge.admission import Admission
from quicbus_broker.edge.edge_limits import EdgeLimits
from quicbus_broker.edge.exchange import Exchange
from quicbus_broker.edge.server import Edge, EdgeStatistics
from quicbus_broker.edge.session import Session, SessionState
from quicbus_broker.edge.turns import Turns

__all__ = ["Admission", "Edge", "EdgeLimits", "EdgeStatistics", "Exchange", "Session", "SessionState", "Turns"]
