"""The seam between quicbus and a QUIC implementation: a connection without I/O, its events, its configuration.

Three engines meet it: `aioquic`, `qh3` and `memory`. Only `_aioquic.py`, `_qh3.py` and `_packets.py` import the
libraries. An engine connection sees one constant peer address; which real address that stands for is the endpoint's
business (a qh3 listener follows three changes of address and is deaf to the fourth).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from quicbus import limits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ConnectionIdIssued",
    "ConnectionIdRetired",
    "Engine",
    "EngineConfiguration",
    "EngineConnection",
    "EngineEvent",
    "HandshakeCompleted",
    "Negotiated",
    "PingAcknowledged",
    "StreamData",
    "StreamReset",
    "Terminated",
    "cut_reason",
]


@dataclass(frozen=True, slots=True)
class EngineConfiguration:
    """What both sides of a connection are made from. Times in seconds, sizes in bytes.

    A listener needs `certificate_chain` and `private_key`; a dialer needs `authority` and `server_name`.
    """

    is_client: bool
    alpn: str
    """The application protocol (RFC 7301) that is dialed or listened for."""
    further_alpns: tuple[str, ...] = ()
    """Listeners only: what they take besides `alpn`; of several that a dialer offers, the first one here counts."""
    certificate_chain: bytes = b""
    """PEM, the own certificate first."""
    private_key: bytes = field(default=b"", repr=False)
    """PEM, PKCS #8, unencrypted."""
    authority: bytes = b""
    """PEM: one or more authority certificates that the listener's chain must lead to."""
    server_name: str = ""
    idle_timeout_s: float = 30.0
    max_datagram_size: int = 1200
    probe_datagram_size: bool = False
    qlog_dir: Path | None = None

    @property
    def alpns(self) -> tuple[str, ...]:
        return (self.alpn, *self.further_alpns)


class Negotiated(msgspec.Struct, frozen=True):
    """ALPN is settled: a listener may write, and what it writes rides in its first flight."""

    alpn: str


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """The handshake is complete. `channel_binding` (32 bytes) is the same at both ends and of no other connection."""

    channel_binding: bytes = field(repr=False)
    listener_certificate: bytes = field(default=b"", repr=False)
    """DER, for dialers: TLS has verified its chain and its DNS name. `memory` has none."""


class StreamData(msgspec.Struct, frozen=True, gc=False):
    """Bytes of a stream, in order. `ended`: the last ones (`data` may be empty)."""

    stream_id: int
    data: bytes
    ended: bool


class StreamReset(msgspec.Struct, frozen=True):
    """The peer gave up a stream that it was sending, or refuses to receive one of ours."""

    stream_id: int
    code: int


class PingAcknowledged(msgspec.Struct, frozen=True):
    uid: int


class ConnectionIdIssued(msgspec.Struct, frozen=True):
    """From now on datagrams may carry this id."""

    connection_id: bytes


class ConnectionIdRetired(msgspec.Struct, frozen=True):
    connection_id: bytes


class Terminated(msgspec.Struct, frozen=True):
    """The last event of a connection.

    `is_application`: `code` is one of `quicbus.wire.close_codes`; otherwise it is a QUIC transport error (RFC 9000
    section 20.1; 0x100 + TLS alert) or 0 for an idle time-out. `is_local`: this side closed or gave up.
    """

    code: int
    reason: str
    is_application: bool
    is_local: bool


EngineEvent = (
    Negotiated
    | HandshakeCompleted
    | StreamData
    | StreamReset
    | PingAcknowledged
    | ConnectionIdIssued
    | ConnectionIdRetired
    | Terminated
)


def cut_reason(reason: str) -> str:
    """Return as much of a close reason as `limits.MAX_CLOSE_REASON_SIZE` allows, cut between characters."""
    encoded = reason.encode("utf-8", "replace")
    if len(encoded) <= limits.MAX_CLOSE_REASON_SIZE:
        return encoded.decode()
    return encoded[: limits.MAX_CLOSE_REASON_SIZE].decode("utf-8", "ignore")


class EngineConnection(Protocol):
    """One QUIC connection without I/O. `now` is a monotonic time in seconds, the same clock in every call.

    No call raises for what the peer sent; that ends in `Terminated`. Every call is allowed after `Terminated` and does
    nothing then, with one exception: a side that closed answers datagrams that still arrive with its close again (RFC
    9000 section 10.2.1), so whoever keeps such a connection for a second longer makes up for a close that was lost.

    A peer's close is reported as soon as it is read. This side's own close (also a failed handshake) is reported after
    the `datagrams_to_send` that carries it; until it was fetched by `next_event`, `timer` is due at once.
    """

    @property
    def connection_ids(self) -> tuple[bytes, ...]:
        """The ids that datagrams to this connection carry at first; events tell of later ones."""
        ...

    @property
    def unsent_size(self) -> int:
        """Bytes of streams that are kept and wait to be sent; of what is on its way the engine may leave out all. It
        costs a step per stream."""
        ...

    @property
    def round_trip_s(self) -> float:
        """The smoothed round trip (RFC 9002 section 5.3); 0 before it is known, after the end, and in memory."""
        ...

    @property
    def rejected_size(self) -> int:
        """Bytes of datagrams, in all, that this connection did not authenticate or had seen before: forged, damaged,
        replayed. At most what there was; until the handshake is complete the engine may count none."""
        ...

    @property
    def rejected_datagrams(self) -> int:
        """How many those were."""
        ...

    def connect(self, now: float) -> None:
        """Dialers only, once: begin the handshake."""
        ...

    def receive(self, datagram: bytes, now: float) -> None:
        """Take one datagram."""
        ...

    def receive_segments(self, buffer: bytes, segment_size: int, now: float) -> None:
        """Take many datagrams of `segment_size` bytes (the last may be shorter), all of one connection id."""
        ...

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Return what wants to leave now, oldest first."""
        ...

    def next_event(self) -> EngineEvent | None: ...

    def timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, or `None`."""
        ...

    def handle_timer(self, now: float) -> None: ...

    def open_stream(self) -> int:
        """Open a unidirectional stream towards the peer and return its id (RFC 9000 section 2.1).

        Raises `LimitExceeded` when the peer allows no more at once.
        """
        ...

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Queue bytes on a stream; the engine keeps them until they are acknowledged.

        On a stream that this side ended or reset, or that the peer refused, they are dropped. Prefer streams that
        stay open: where packets are lost and overtake each other, qh3 2.1 may end the connection (`ValueError:
        reserved stream is missing`) after a stream ended.
        """
        ...

    def reset_stream(self, stream_id: int, code: int) -> None: ...

    def stop_stream(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending on its stream."""
        ...

    def ping(self, uid: int) -> None:
        """Send a PING frame; `PingAcknowledged(uid)` follows once it is acknowledged.

        One that is lost need not be repeated (qh3 does not): send another.
        """
        ...

    def request_key_update(self) -> None:
        """Begin a key update (RFC 9001 section 6); only after the handshake is confirmed, otherwise nothing happens."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close with an application code; the reason is cut at `limits.MAX_CLOSE_REASON_SIZE` bytes.

        Stream data queued just before is discarded. Before the handshake is complete the peer learns no more than
        that there was an error, and from a qh3 listener nothing at all. `Terminated` follows the next
        `datagrams_to_send`.
        """
        ...


class Engine(Protocol):
    """Makes connections. One instance serves any number of them."""

    @property
    def name(self) -> str:
        """`aioquic`, `qh3` or `memory`."""
        ...

    @property
    def versions(self) -> tuple[int, ...]:
        """The protocol versions it speaks, as they stand in long headers."""
        ...

    def dial(self, configuration: EngineConfiguration) -> EngineConnection: ...

    def accept(
        self,
        configuration: EngineConfiguration,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None,
    ) -> EngineConnection:
        """Make the listener's side for an Initial. Both ids are as RFC 9000 section 7.3 names them."""
        ...
