"""quicbus: publish and subscribe over QUIC, encrypted and authenticated.

```python
async with quicbus.connect("quic://localhost:4433") as bus:
    async with bus.subscribe("sensors/+/temperature") as messages:
        await bus.publish("sensors/kitchen/temperature", b"21.5", headers={"unit": "C"})
        async for message in messages:
            print(message.topic, message.payload, message.headers)
```
"""

from quicbus.client import Client, Message, Subscription, connect
from quicbus.client.events import (
    Closed,
    Connected,
    CredentialExpiring,
    CredentialRejected,
    CredentialRenewed,
    Disconnected,
    Event,
    Gap,
    GoingAway,
    HandlerFailed,
    MessagesDropped,
    MessagesRefused,
    Reconnecting,
    Status,
    SubscriptionFailed,
)
from quicbus.client.peers import Peer
from quicbus.client.statistics import ClientStatistics, SubscriptionStatistics
from quicbus.exceptions import (
    AuthorityUnavailable,
    ClientClosed,
    ConnectFailed,
    ConnectionFailed,
    ConnectionLost,
    CredentialError,
    CredentialRefused,
    DataFolderError,
    InvalidSetting,
    InvalidTopic,
    LimitExceeded,
    MessageTooLarge,
    NoResponders,
    NotPermitted,
    ProtocolViolation,
    PublishRefused,
    QuicbusError,
    RequestFailed,
    RequestTimeout,
    SubscriptionEnded,
    UsageError,
    WaitTimeout,
    WouldBlock,
)

__all__ = [
    "AuthorityUnavailable",
    "Client",
    "ClientClosed",
    "ClientStatistics",
    "Closed",
    "ConnectFailed",
    "Connected",
    "ConnectionFailed",
    "ConnectionLost",
    "CredentialError",
    "CredentialExpiring",
    "CredentialRefused",
    "CredentialRejected",
    "CredentialRenewed",
    "DataFolderError",
    "Disconnected",
    "Event",
    "Gap",
    "GoingAway",
    "HandlerFailed",
    "InvalidSetting",
    "InvalidTopic",
    "LimitExceeded",
    "Message",
    "MessageTooLarge",
    "MessagesDropped",
    "MessagesRefused",
    "NoResponders",
    "NotPermitted",
    "Peer",
    "ProtocolViolation",
    "PublishRefused",
    "QuicbusError",
    "Reconnecting",
    "RequestFailed",
    "RequestTimeout",
    "Status",
    "Subscription",
    "SubscriptionEnded",
    "SubscriptionFailed",
    "SubscriptionStatistics",
    "UsageError",
    "WaitTimeout",
    "WouldBlock",
    "connect",
]
