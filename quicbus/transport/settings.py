"""What an endpoint can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quicbus import limits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EndpointSettings"]

KEY_UPDATE_PACKETS = 2**22
"""RFC 9001 section 6.6 allows 2^23 packets with one AES-GCM key; neither engine updates keys by itself."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Times in seconds, sizes in bytes."""

    retry: Literal["always", "never", "auto"] = "always"
    """Whether a stranger first proves that it receives at its address. It costs one round trip; `auto` demands it only
    above `retry_auto_half_open` half-open handshakes."""
    retry_auto_half_open: int = limits.RETRY_AUTO_HALF_OPEN
    max_connections: int = limits.MAX_CONNECTIONS
    """Accepted ones. A connection over it is told so after its handshake."""
    max_half_open: int = limits.MAX_HALF_OPEN
    """Over it Initials are dropped; dialers repeat them by themselves."""
    handshake_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S
    idle_timeout_s: float = 30.0
    """The smaller one of both sides counts."""
    keep_alive_s: float = 10.0
    """After this long without a datagram sent a PING is; under a third of the idle time-out survives two losses."""
    max_datagram_size: int | None = None
    """`None`: 8,192 to this host itself; elsewhere 1,200, from where qh3 finds by probing what the path takes."""
    key_update_packets: int = KEY_UPDATE_PACKETS
    """Packets sent with one key before the next one is agreed on."""
    qlog_dir: Path | None = None
