"""Who gets what: subscriptions, groups, overflow policies and their books. Pure state machines."""

from quicbus_broker.routing.books import RoutingBooks
from quicbus_broker.routing.output_room import OutputRoom
from quicbus_broker.routing.outputs import (
    Batch,
    Delivery,
    Destination,
    DropsChanged,
    Ended,
    Held,
    Orphaned,
    Output,
    Released,
    Source,
)
from quicbus_broker.routing.router import Router
from quicbus_broker.routing.subscription import Overflow, Subscription, SubscriptionOptions

__all__ = [
    "Batch",
    "Delivery",
    "Destination",
    "DropsChanged",
    "Ended",
    "Held",
    "Orphaned",
    "Output",
    "OutputRoom",
    "Overflow",
    "Released",
    "Router",
    "RoutingBooks",
    "Source",
    "Subscription",
    "SubscriptionOptions",
]
