"""The client: connecting and staying connected, publishing, subscribing, requests, handlers."""

from quicbus.client.api import Client, Connecting, connect, connect_in_process
from quicbus.client.message import Message
from quicbus.client.subscription import Subscription

__all__ = ["Client", "Connecting", "Message", "Subscription", "connect", "connect_in_process"]
