"""Control frames: typed values <-> bytes. A frame is type and length (varints), then a msgpack map.

Unknown fields are ignored, missing or wrong ones refused with a `ProtocolViolation` that names them, unknown frame
types skipped by their length. Which side sends which frame, and when, is in docs/protocol.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.varint import decode_varint, encode_varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "ALPN",
    "FRAME_TYPES",
    "PROTOCOL_VERSION",
    "STREAM_TYPE_CONTROL",
    "STREAM_TYPE_LANE",
    "Accepted",
    "Brokers",
    "Drained",
    "Flush",
    "Flushed",
    "Frame",
    "FrameParser",
    "GoAway",
    "Hello",
    "Limits",
    "NoResponder",
    "PeerEntry",
    "Peers",
    "PeersWanted",
    "Permissions",
    "Ping",
    "Pong",
    "Proof",
    "ProofWanted",
    "Refused",
    "Spread",
    "SpreadWanted",
    "Subscribe",
    "Subscribed",
    "SubscriptionClosed",
    "SubscriptionCredit",
    "SubscriptionDropped",
    "Taken",
    "Trust",
    "Unsubscribe",
    "Welcome",
    "encode_frame",
]

ALPN = "quicbus/1"
PROTOCOL_VERSION = 1
STREAM_TYPE_CONTROL = 0x01
STREAM_TYPE_LANE = 0x02

# What decoding checks beside the type. msgpack itself has no integer beyond 64 bits; msgspec cannot state 2^64 - 1.
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
SubscriptionId = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
"""Four bytes in the table of a Message record."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Neither NaN nor infinite."""
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Id128 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all control frames; `TYPE` is the frame type on the wire."""

    TYPE: ClassVar[int]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the listener enforces, so that the dialer can refuse early and by name."""

    max_message_size: Count
    max_headers_size: Count
    max_subscriptions: Count
    max_filter_size: Count
    max_filters_size: Count = 0
    """Of all filters and group names of a session. Here and below 0 states no limit."""
    max_pending: Count = 0
    max_pending_size: Count = 0
    max_publish_rate: Count = 0
    """Messages per second."""
    max_publish_bytes: Count = 0
    """Bytes of records per second."""


class Welcome(Frame, frozen=True, kw_only=True):
    """Listener, first frame: who it is and what it takes. It is sent before the dialer is known."""

    TYPE = 0x01
    version: Count
    node: Id128
    boot: Count
    agent: str
    limits: Limits
    proof: bool = True
    """A proof of possession is demanded; without it (a connection inside one process) Hello carries none."""


class Hello(Frame, frozen=True, kw_only=True):
    """Dialer, first frame: what it wants to be and the proof that it may."""

    TYPE = 0x02
    version: Count
    kind: str
    """`client` or `node`."""
    agent: str
    name: str = ""
    """A label for logs; what counts is the name in the certificate."""
    chain: list[bytes] = []
    """DER, the own certificate first."""
    signature: bytes = b""
    boot: Count = 0
    """Of a dialing node; it grows with each start."""


class Accepted(Frame, frozen=True, kw_only=True):
    """Listener: the proof is accepted. From here on the dialer may subscribe and publish."""

    TYPE = 0x03
    session: Id128
    """16 random bytes: the third level of this session's reply topics, in hex."""
    name: str
    publish_credit: Count
    """Bytes of lane records that the dialer may send in all; `Taken.credit` raises it."""
    brokers: list[str] = []
    """URLs of further brokers; `Brokers` brings later ones."""
    expires_in_s: Seconds | None = None
    """When the certificate, and with it the session, ends."""
    observed: str = ""
    """To nodes: the address and port that the dialer comes from, as the listener sees it."""


class Subscribe(Frame, frozen=True, kw_only=True):
    TYPE = 0x04
    id: SubscriptionId
    """Chosen by the dialer, never used again in this session."""
    filter: str
    group: str | None = None
    overflow: str = "drop_oldest"
    max_pending: Positive
    max_pending_size: Positive
    window_messages: Positive
    """How many messages may be on their way and unread; `SubscriptionCredit` moves the window on."""
    window_size: Positive


class Subscribed(Frame, frozen=True, kw_only=True):
    """Listener: from here on every matching message that it takes is delivered, dropped by the policy, or counted."""

    TYPE = 0x05
    id: SubscriptionId


class Unsubscribe(Frame, frozen=True, kw_only=True):
    TYPE = 0x06
    id: SubscriptionId


class SubscriptionClosed(Frame, frozen=True, kw_only=True):
    """Listener: the subscription has ended, with its final books. Answers Unsubscribe, or tells why it was ended."""

    TYPE = 0x07
    id: SubscriptionId
    reason: str
    """`unsubscribed`, `overflow`, `block_timeout`, `not_permitted`, `invalid`, `limit`."""
    detail: str = ""
    handed_over: Count = 0
    """Messages sent for it in all."""
    dropped: dict[str, Count] = {}
    limit: str = ""
    current: Count = 0
    allowed: Count = 0


class SubscriptionCredit(Frame, frozen=True, kw_only=True):
    """Dialer: how much the application has consumed in all, in messages and in payload bytes as the table counts."""

    TYPE = 0x08
    id: SubscriptionId
    messages: Count
    size: Count


class SubscriptionDropped(Frame, frozen=True, kw_only=True):
    """Listener: how many messages the overflow policy and expiry took from the subscription in all, by reason."""

    TYPE = 0x09
    id: SubscriptionId
    dropped: dict[str, Count]


class Taken(Frame, frozen=True, kw_only=True):
    """Listener: what it has taken from this publisher in all. `credit` is the new bound on bytes of lane records."""

    TYPE = 0x0A
    accepted: Count
    """Messages."""
    refused: Count
    """Messages; `Refused` said why."""
    credit: Count


class Refused(Frame, frozen=True, kw_only=True):
    """Listener: it did not take (part of) a batch."""

    TYPE = 0x0B
    number: Count
    """The batch number, 0 where the batch could not be read."""
    messages: Count
    reason: str
    """`too_large`, `not_permitted`, `reply_not_permitted`, `invalid_topic`, `rate`, `draining`."""
    detail: str = ""
    retry_after_s: Seconds | None = None
    limit: str = ""
    """With `rate`: its name, what came within a second, and what may."""
    current: Count = 0
    allowed: Count = 0


class NoResponder(Frame, frozen=True, kw_only=True):
    """Listener: nobody subscribes to the topic of the request batch `number`."""

    TYPE = 0x0C
    number: Positive


class Flush(Frame, frozen=True, kw_only=True):
    """Dialer: answer once every batch up to `batches` (a count, the session's batches are numbered from 1) was taken
    or refused."""

    TYPE = 0x0D
    id: Count
    batches: Count


class Flushed(Frame, frozen=True, kw_only=True):
    TYPE = 0x0E
    id: Count
    accepted: Count
    refused: Count


class Ping(Frame, frozen=True, kw_only=True):
    """Either side, at any time after Welcome or Hello: answer with `Pong` of the same id at once."""

    TYPE = 0x0F
    id: Count


class Pong(Frame, frozen=True, kw_only=True):
    TYPE = 0x10
    id: Count


class GoAway(Frame, frozen=True, kw_only=True):
    """Either side: it will close. The other finishes what it has under way and answers `Drained`."""

    TYPE = 0x11
    reason: str
    deadline_s: Seconds


class Drained(Frame, frozen=True, kw_only=True):
    """Answers GoAway: nothing more will come. `batches` were sent on the lanes in all."""

    TYPE = 0x12
    batches: Count


class ProofWanted(Frame, frozen=True, kw_only=True):
    """Listener: prove again who you are, with a certificate that is valid for longer; else the session ends."""

    TYPE = 0x13
    deadline_s: Seconds


class Proof(Frame, frozen=True, kw_only=True):
    """Dialer, answers ProofWanted: as in Hello, for the same connection."""

    TYPE = 0x14
    chain: list[bytes]
    signature: bytes


class PeersWanted(Frame, frozen=True, kw_only=True):
    """Dialer: who is in the mesh? Answered by one or more Peers of the same id."""

    TYPE = 0x15
    id: Count


class PeerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node of the mesh, as the node that answers sees it."""

    node: str
    """Its id in hex."""
    name: str
    url: str = ""
    """Where clients reach it; empty: nowhere."""
    state: str
    """`alive`, `suspect`, `failed` or `left`."""
    rtt_ms: Milliseconds | None = None
    linked: bool = False
    mode: str
    """`hybrid`, `server` or `client`."""
    boot: Count
    addresses: tuple[str, ...] = ()
    is_self: bool = False
    """The one that answers."""


class Peers(Frame, frozen=True, kw_only=True):
    TYPE = 0x16
    id: Count
    peers: tuple[PeerEntry, ...]
    more: bool = False
    """A further Peers of this id follows."""


class SpreadWanted(Frame, frozen=True, kw_only=True):
    """Dialer: answer once every node that is linked to the listener knows of this subscription."""

    TYPE = 0x17
    id: Count
    subscription: SubscriptionId


class Spread(Frame, frozen=True, kw_only=True):
    TYPE = 0x18
    id: Count
    nodes: Count
    """How many are linked, and know."""


class Brokers(Frame, frozen=True, kw_only=True):
    """Listener: the further brokers are these now, in place of those in Accepted or an earlier Brokers."""

    TYPE = 0x19
    brokers: tuple[str, ...]


class Trust(Frame, frozen=True, kw_only=True):
    """Listener: the mesh's trust list is this now. It is signed by an authority: believed whoever passes it on."""

    TYPE = 0x1A
    signed: bytes
    """As `quicbus.identity.trust` encodes it."""


class Permissions(Frame, frozen=True, kw_only=True):
    """Listener: what this session may do, as far as it tells; the dialer refuses early what is not in it."""

    TYPE = 0x1B
    publish: tuple[str, ...] | None = None
    """Filters, one of which must match the topic; `None`: not told, Refused will tell."""
    deny_publish: tuple[str, ...] = ()
    """None of these may match."""
    subscribe: tuple[str, ...] | None = None
    """Filters, one of which must cover the filter; `None`: not told."""
    deny_subscribe: tuple[str, ...] = ()
    """None of these may overlap it."""


FRAME_TYPES: dict[int, type[Frame]] = {cls.TYPE: cls for cls in Frame.__subclasses__()}
"""0x20 Discover and 0x21 DiscoveryResponse are the mesh's."""

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Frame], msgspec.msgpack.Decoder[Frame]] = {}


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of `frame` as they stand on the control stream."""
    body = _encoder.encode(frame)
    return encode_varint(frame.TYPE) + encode_varint(len(body)) + body


class FrameParser:
    """Cuts a control stream (after its type byte) into frames, however the bytes are split.

    A frame longer than `max_size` is a violation; one of an unknown type is skipped without being held in memory.
    `max_size` and `types` may be replaced at any time and count for the frames that come then.
    """

    def __init__(
        self,
        max_size: int = limits.MAX_CONTROL_FRAME_SIZE_BEFORE_PROOF,
        types: Mapping[int, type[Frame]] = FRAME_TYPES,
    ) -> None:
        self.max_size = max_size
        self.types = types
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that are complete with them.

        Raises `ProtocolViolation`; the stream is of no use after that.
        """
        return list(self.read(data))

    def read(self, data: bytes) -> Iterator[Frame]:
        """Like `feed`, frame by frame: what is done with one can replace `types` before the next is decoded."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        buffer = self._buffer
        while True:
            if self._skip:
                skipped = min(self._skip, len(buffer))
                del buffer[:skipped]
                self._skip -= skipped
                if self._skip:
                    return None
            header = _frame_header(buffer)
            if header is None:
                return None
            number, size, start = header
            frame_type = self.types.get(number)
            if frame_type is None:
                del buffer[:start]
                self._skip = size
                continue
            if size > self.max_size:
                raise ProtocolViolation(f"control frame 0x{number:x} has {size} bytes, at most {self.max_size} may be")
            end = start + size
            if len(buffer) < end:
                return None
            body = bytes(buffer[start:end])
            del buffer[:end]
            return _decode(frame_type, body)


def _frame_header(buffer: bytearray) -> tuple[int, int, int] | None:
    """Return type, length and the offset of the body, or `None` when they are not all there."""
    number = decode_varint(buffer)
    if number is None:
        return None
    size = decode_varint(buffer, number[1])
    if size is None:
        return None
    return number[0], size[0], size[1]


def _decode(frame_type: type[Frame], body: bytes) -> Frame:
    decoder = _decoders.get(frame_type)
    if decoder is None:
        decoder = _decoders[frame_type] = msgspec.msgpack.Decoder(frame_type)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"{frame_type.__name__}: {error}") from None
