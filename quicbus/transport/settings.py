"""What an endpoint can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from quicbus import limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quicbus.transport.connection import Connection, ConnectionHandler
    from quicbus.transport.engine import EngineConfiguration

__all__ = ["EndpointSettings", "Listener"]

KEY_UPDATE_PACKETS = 2**22
"""RFC 9001 section 6.6 allows 2^23 packets with one AES-GCM key; neither engine updates keys by itself."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Times in seconds, sizes in bytes."""

    retry: Literal["always", "never", "auto"] = "always"
    """Whether a stranger first proves that it receives at its address. It costs one round trip; `auto` demands it
    while there is a flood, and of addresses that begin many handshakes."""
    retry_key: bytes | None = field(default=None, repr=False)
    """16 random bytes: endpoints with the same key take each other's tokens. `None`: one of its own."""
    retry_auto_half_open: int = limits.RETRY_AUTO_HALF_OPEN
    """`auto` is on from so many connections on that have not proved who they are,"""
    retry_auto_rate: int = limits.RETRY_AUTO_RATE
    """or from so many Initials without a token a second."""
    max_connections: int = limits.MAX_CONNECTIONS
    """Accepted ones. A connection over it is told so after its handshake."""
    max_connections_per_address: int = limits.MAX_CONNECTIONS_PER_ADDRESS
    """The same for one IPv4 address or one IPv6 network of 64 bits."""
    max_half_open: int = limits.MAX_HALF_OPEN
    """Connections that have not proved who they are; one address has at most a quarter of them. Over it Initials are
    dropped; dialers repeat them by themselves."""
    max_handshakes_per_address: int = limits.MAX_HANDSHAKES_PER_ADDRESS
    """That one address may begin in a second; over it Initials are dropped."""
    handshake_share: float = limits.HANDSHAKE_SHARE
    """Of the event loop's time; over it Initials are dropped."""
    max_unproven_size: int = limits.UNDELIVERED_BEFORE_PROOF
    """Bytes that a connection may make the endpoint hold before it has proved who it is."""
    max_unproven_total_size: int = limits.MAX_UNPROVEN_TOTAL_SIZE
    """Bytes received from all such connections; over it those that sent most are closed."""
    handshake_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S
    idle_timeout_s: float = 30.0
    """The smaller one of both sides counts."""
    keep_alive_s: float = 10.0
    """After this long without a datagram sent a PING is; under a third of the idle time-out survives two losses."""
    max_datagram_size: int | None = None
    """`None`: 32,400 to this host itself (8,192 where it is not Linux); to others 1,200, from where
    qh3 finds by probing what the path takes."""
    key_update_packets: int = KEY_UPDATE_PACKETS
    """Packets sent with one key before the next one is agreed on."""
    qlog_dir: Path | None = None


@dataclass(slots=True)
class Listener:
    """What an endpoint needs to be dialed. `configuration` may be replaced at any time: it counts for new connections.

    `make_handler` is called at the first accepted datagram, before the dialer has proved anything.
    """

    configuration: EngineConfiguration
    make_handler: Callable[[Connection], ConnectionHandler]
