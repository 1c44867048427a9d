"""What a call of `publish` asks for, checked and in bytes: before anything of it is sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final
from zlib import crc32

import msgspec
from mypy_extensions import mypyc_attr

from quicbus import limits
from quicbus.exceptions import InvalidSetting, LimitExceeded, MessageTooLarge
from quicbus.topics import REPLY_PREFIX, check_topic
from quicbus.values import make_structs
from quicbus.wire.batch import FLAG_HEADERS, FLAG_REQUEST, encode_headers, message_with_headers

if TYPE_CHECKING:
    from quicbus.client.open_batch import OpenBatch

__all__ = ["BATCH_FRONT_SIZE", "CheckedTopics", "Outgoing", "Route", "payload_bytes", "prepare"]

BATCH_FRONT_SIZE: Final = 34
"""Size field and kind of a record (5) and the fixed part of a body (29)."""


@final
@mypyc_attr(acyclic=True)
class Route:
    """A checked topic in bytes, and its lane. `base_cost` is that of a batch: its record without messages and reply
    topic."""

    __slots__ = ("base_cost", "encoded", "lane", "newest", "topic")

    def __init__(self, topic: str, encoded: bytes) -> None:
        self.topic: Final = topic
        self.encoded: Final = encoded
        self.lane: Final = crc32(encoded) % limits.LANES
        self.base_cost: Final = BATCH_FRONT_SIZE + len(encoded)
        self.newest: OpenBatch | None = None
        """Of those that are under construction: what is published next goes there, or into one after it."""


class CheckedTopics:
    """Remembers topics that one publisher has checked, so that the common case is one look-up."""

    def __init__(self, size: int = limits.TOPIC_CACHE_SIZE) -> None:
        self._size = size
        self.known: Final[dict[str, Route]] = {}
        """Routes of topics that were checked before."""

    def route(self, topic: str) -> Route:
        """Return the route of a topic; raises `InvalidTopic`."""
        route = self.known.get(topic)
        if route is None:
            route = Route(topic, check_topic(topic))
            # Every request has a reply topic of its own: it is not asked for again.
            if not topic.startswith(REPLY_PREFIX):
                if len(self.known) >= self._size:
                    self.known.clear()
                self.known[topic] = route
        return route


@final
@mypyc_attr(acyclic=True, free_list_len=1)
@dataclass(init=False, slots=True)
class Outgoing:
    """A checked message. Messages share a batch where topic, `flags`, `reply_to` and `expires_in_ms` are equal."""

    route: Final[Route]
    data: Final[bytes]
    payload_size: Final[int]
    flags: Final[int]
    reply_to: Final[bytes]
    expires_in_ms: Final[int]
    request: Final[int]
    """Number of the request that this message is; 0: it is none. A request has a batch of its own."""

    def __init__(
        self,
        route: Route,
        data: bytes,
        payload_size: int,
        flags: int,
        reply_to: bytes,
        expires_in_ms: int,
        request: int,
    ) -> None:
        self.route = route
        self.data = data
        self.payload_size = payload_size
        self.flags = flags
        self.reply_to = reply_to
        self.expires_in_ms = expires_in_ms
        self.request = request


make_structs(globals(), Outgoing, frozen=True)


def prepare(
    topics: CheckedTopics,
    topic: str,
    payload: bytes | str,
    *,
    headers: Mapping[str, str] | None = None,
    reply_to: str | None = None,
    expires_in: float | None = None,
    request: int = 0,
    max_message_size: int = limits.MAX_MESSAGE_SIZE,
    max_headers_size: int = limits.MAX_HEADERS_SIZE,
) -> Outgoing:
    """Check a message. Raises `InvalidTopic`, `MessageTooLarge`, `LimitExceeded`, `InvalidSetting`, `TypeError`."""
    route = topics.route(topic)
    data = payload_bytes(payload)
    size = len(data)
    if size > max_message_size:
        raise MessageTooLarge(size, max_message_size)
    flags = FLAG_REQUEST if request else 0
    if headers:
        flags |= FLAG_HEADERS
        data = message_with_headers(_headers(headers, max_headers_size), data)
    reply = b"" if reply_to is None else topics.route(reply_to).encoded
    batch_size = BATCH_FRONT_SIZE + len(route.encoded) + len(reply) + 4 + len(data)
    if batch_size > max_message_size + limits.BATCH_OVERHEAD:
        raise LimitExceeded("batch_size", batch_size, max_message_size + limits.BATCH_OVERHEAD)
    return Outgoing(route, data, size, flags, reply, _milliseconds(expires_in), request)


def payload_bytes(payload: object) -> bytes:
    """Return the payload as bytes: text as UTF-8, anything with a buffer copied."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    raise TypeError(f"a payload is bytes or str, not {type(payload).__name__}")


def _headers(headers: Mapping[str, str], allowed: int) -> bytes:
    try:
        encoded = encode_headers(headers)
    except ValueError:
        encoded = b"\0\0" + msgspec.msgpack.encode(dict(headers))
    if len(encoded) - 2 > allowed:
        raise LimitExceeded("max_headers_size", len(encoded) - 2, allowed)
    return encoded


def _milliseconds(expires_in: float | None) -> int:
    if expires_in is None:
        return 0
    if not 0 < expires_in < 1e15:
        raise InvalidSetting("expires_in", f"seconds above 0 are allowed, not {expires_in!r}")
    return max(1, round(expires_in * 1000))
