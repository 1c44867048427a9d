"""quicbus_broker: the node. `async with Broker(BrokerSettings(...)) as broker:` embeds one in an application."""

from quicbus_broker.broker import Broker, BrokerStatistics
from quicbus_broker.routing import RoutingBooks
from quicbus_broker.settings import BrokerSettings

__all__ = ["Broker", "BrokerSettings", "BrokerStatistics", "RoutingBooks"]
