"""Every exception that users of quicbus meet.

```
QuicbusError
├── UsageError                  the caller: the call cannot work as it was made
│   ├── InvalidTopic            a topic or filter that MQTT 5 does not allow (also a ValueError)
│   ├── InvalidSetting          a setting, URL or option that is not allowed (also a ValueError)
│   ├── ClientClosed            used after it was closed
│   └── WouldBlock              publish_nowait() would have had to wait
├── LimitExceeded               either side: a named limit, its value, when to try again
│   └── MessageTooLarge
├── NotPermitted                the broker's permissions do not allow it
├── RequestFailed               a request got no reply
│   ├── NoResponders
│   └── RequestTimeout          (also a TimeoutError)
├── WaitTimeout                 what was waited for did not come in time (also a TimeoutError)
├── ConnectionFailed            no connection to a broker (also a ConnectionError)
│   ├── AuthorityUnavailable    joining, renewing: no node with the authority's key can be reached now
│   ├── ConnectFailed           the first connect: each URL with its cause
│   └── ConnectionLost          an established connection ended
├── CredentialError             the credential is missing, unreadable or refused
│   └── CredentialRefused       the other side refused it: its code and its sentence
├── SubscriptionEnded           the broker ended the subscription, with the reason
├── PublishRefused              flush(): what the broker refused, by reason
├── ProtocolViolation           the peer sent what the protocol does not allow
└── DataFolderError             the data folder is locked, unwritable or incomplete
```

Facts are attributes; the sentence is built in `__str__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AuthorityUnavailable",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionFailed",
    "ConnectionLost",
    "CredentialError",
    "CredentialRefused",
    "DataFolderError",
    "InvalidSetting",
    "InvalidTopic",
    "LimitExceeded",
    "MessageTooLarge",
    "NoResponders",
    "NotPermitted",
    "ProtocolViolation",
    "PublishRefused",
    "QuicbusError",
    "RequestFailed",
    "RequestTimeout",
    "SubscriptionEnded",
    "UsageError",
    "WaitTimeout",
    "WouldBlock",
]


class QuicbusError(Exception):
    """Base of all exceptions that quicbus raises."""


class UsageError(QuicbusError):
    """The call cannot work as it was made."""


class InvalidTopic(UsageError, ValueError):
    """A topic name or filter that MQTT 5, section 4.7 does not allow.

    `position` counts characters from 0 and points at the first offence; it is `None` when the whole is at fault
    (empty, too long).
    """

    def __init__(self, topic: str, why: str, position: int | None = None) -> None:
        super().__init__(topic, why, position)
        self.topic = topic
        self.why = why
        self.position = position

    def __str__(self) -> str:
        shown = repr(self.topic if len(self.topic) <= 80 else self.topic[:77] + "...")
        where = "" if self.position is None else f" at position {self.position}"
        return f"invalid topic {shown}: {self.why}{where}"


class InvalidSetting(UsageError, ValueError):
    """A setting that is not allowed: `name`, `where` it was read (file, environment, option) and what is allowed."""

    def __init__(self, name: str, why: str, where: str = "") -> None:
        super().__init__(name, why, where)
        self.name = name
        self.why = why
        self.where = where

    def __str__(self) -> str:
        where = f" (from {self.where})" if self.where else ""
        return f"{self.name}{where}: {self.why}"


class ClientClosed(UsageError):
    """The client or subscription was closed before this call."""

    def __init__(self, what: str = "client") -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the {self.what} is closed"


class WouldBlock(UsageError):
    """`publish_nowait` would have had to wait: the credit or the offline buffer is used up."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"publishing would have to wait: {self.why}"


class LimitExceeded(QuicbusError):
    """A named limit was met. `retry_after_s` is `None` where trying again later does not help."""

    def __init__(self, limit: str, current: int, allowed: int, retry_after_s: float | None = None) -> None:
        super().__init__(limit, current, allowed, retry_after_s)
        self.limit = limit
        self.current = current
        self.allowed = allowed
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        again = "" if self.retry_after_s is None else f"; try again in {self.retry_after_s:g} s"
        return f"{self.limit}: {self.current} is over the limit of {self.allowed}{again}"


class MessageTooLarge(LimitExceeded):
    """The payload has `size` bytes, the broker takes `allowed` (its `max_message_size`)."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__("max_message_size", size, limit)
        self.args = (size, limit)
        self.size = size

    def __str__(self) -> str:
        return f"the payload has {self.size} bytes, the broker takes at most {self.allowed} (max_message_size)"


class NotPermitted(QuicbusError):
    """The broker does not permit `action` ("publish" or "subscribe") on `topic`; the connection stays."""

    def __init__(self, action: str, topic: str) -> None:
        super().__init__(action, topic)
        self.action = action
        self.topic = topic

    def __str__(self) -> str:
        return f"not permitted to {self.action} {self.topic!r}"


class RequestFailed(QuicbusError):
    """A request got no reply."""


class NoResponders(RequestFailed):
    """Nobody subscribes to the topic of the request."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return f"nobody subscribes to {self.topic!r}"


class RequestTimeout(RequestFailed, TimeoutError):
    """Somebody subscribes to the topic, but no reply came in time."""

    def __init__(self, topic: str, timeout_s: float) -> None:
        super().__init__(topic, timeout_s)
        self.topic = topic
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"no reply from {self.topic!r} within {self.timeout_s:g} s"


class WaitTimeout(QuicbusError, TimeoutError):
    """What was waited for (`what`) did not come within `timeout_s`; nothing is lost, wait again."""

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(what, timeout_s)
        self.what = what
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"{self.what}: nothing came within {self.timeout_s:g} s"


class ConnectionFailed(QuicbusError, ConnectionError):
    """There is no connection to a broker."""


class AuthorityUnavailable(ConnectionFailed):
    """A node was reached, but through it no node with the authority's key. Nothing was used up: try again later."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


class ConnectFailed(ConnectionFailed):
    """No broker could be reached within `connect_timeout_s`. `attempts` holds each URL with its cause.

    `remedy` is a sentence for who has typed a command; empty where there is nothing particular to say.
    """

    def __init__(self, attempts: Sequence[tuple[str, str]], remedy: str = "") -> None:
        super().__init__(attempts, remedy)
        self.attempts = tuple(attempts)
        self.remedy = remedy

    def __str__(self) -> str:
        return "could not connect: " + "; ".join(f"{url}: {cause}" for url, cause in self.attempts)


class ConnectionLost(ConnectionFailed):
    """An established connection ended. `code` is the QUIC close code, or `None` when the peer fell silent."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return f"connection lost: {self.reason}"


class CredentialError(QuicbusError):
    """A credential is missing, unreadable, expired or of the wrong kind."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


class CredentialRefused(CredentialError):
    """The other side refused the credential; trying again with the same one does not help."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.args = (code, why)
        self.code = code


class SubscriptionEnded(QuicbusError):
    """The broker ended the subscription: `reason` is `overflow`, `block_timeout` or `not_permitted`."""

    def __init__(self, filter: str, reason: str, detail: str = "") -> None:
        super().__init__(filter, reason, detail)
        self.filter = filter
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"the subscription to {self.filter!r} was ended by the broker: {self.reason}{detail}"


class PublishRefused(QuicbusError):
    """Since the last `flush()` the broker refused messages: `refused` counts them by reason.

    `retry_after_s` is what it said last about when more may be published, with the reason `rate`; `None` where it has
    not. A flush with that reason alone raises `LimitExceeded`, which has it, too.
    """

    def __init__(self, refused: Mapping[str, int], detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(dict(refused), detail, retry_after_s)
        self.refused = dict(refused)
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        counts = ", ".join(f"{count} x {reason}" for reason, count in sorted(self.refused.items()))
        detail = f": {self.detail}" if self.detail else ""
        again = "" if self.retry_after_s is None else f"; try again in {self.retry_after_s:g} s"
        return f"the broker refused {counts}{detail}{again}"


class ProtocolViolation(QuicbusError):
    """The peer sent what the protocol does not allow; the connection is closed."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"protocol violation: {self.detail}"


class DataFolderError(QuicbusError):
    """The data folder is locked by another process, unwritable or incomplete; the sentence names the remedy."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"data folder {self.path}: {self.why}"
