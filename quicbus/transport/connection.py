"""What the endpoint offers for each connection, and what it calls: sessions are written against these two protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from quicbus.transport.engine import Terminated

__all__ = ["Address", "Connection", "ConnectionHandler", "ConnectionStatistics", "shown_address"]

Address = tuple[str, int]
"""IP address (IPv6 without brackets, IPv4-mapped ones shown as IPv4) and UDP port."""


def shown_address(address: Address) -> str:
    """Return an address as people write it: `127.0.0.1:4433`, `[::1]:4433`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Counters of one connection since it began. Sizes in bytes, times in seconds."""

    datagrams_sent: int
    datagrams_received: int
    bytes_sent: int
    bytes_received: int
    address_changes: int
    key_updates: int
    rtt_s: float | None
    """Of the last acknowledged ping; `None` before the first."""


class Connection(Protocol):
    """One connection, made by `Endpoint.dial` or by the endpoint for its listener. Nothing here waits.

    What is written in one turn of the event loop leaves together at its end. After the handler's `closed` every call
    does nothing.
    """

    @property
    def is_client(self) -> bool: ...

    @property
    def engine(self) -> str:
        """`aioquic`, `qh3` or `memory`."""
        ...

    @property
    def peer_address(self) -> Address: ...

    @property
    def listener_node(self) -> bytes:
        """For a dialer, from `connected` on: the node id of the listener's certificate; empty with `memory`."""
        ...

    @property
    def alpn(self) -> str:
        """The application protocol, from the handler's `negotiated` on; empty before."""
        ...

    @property
    def is_closed(self) -> bool: ...

    @property
    def last_heard(self) -> float:
        """When the last datagram of this connection arrived, by the endpoint's clock."""
        ...

    @property
    def unsent_size(self) -> int:
        """Bytes of streams that are kept and wait to be sent; it costs a step per stream."""
        ...

    def open_stream(self) -> int:
        """Open a unidirectional stream and return its id; raises `LimitExceeded` where the peer allows no more."""
        ...

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None: ...

    def stop_stream(self, stream_id: int, code: int) -> None: ...

    def ping(self, *, is_pressing: bool = False) -> None:
        """Ask the peer's transport for a sign of life; it shows in `last_heard` and `statistics().rtt_s`.

        `is_pressing`: a dialer may be at another address now, at which the listener may answer with no more than three
        times what it got from there; 1.4 KB are sent, so that it can go on at once with what got lost.
        """
        ...

    def has_moved(self) -> bool:
        """For a dialer: whether this host's address towards the listener is another than at the last call. It takes a
        socket and 10 us. What a NAT in between does does not show."""
        ...

    def transmit_soon(self) -> None:
        """Have `before_transmit` called at the end of this turn, then send."""
        ...

    def transmit_now(self) -> None:
        """As `transmit_soon`, but before it returns, unless it is called from within a turn: for who knows that nothing
        more will come that could go with it."""
        ...

    def allow_undelivered(self, size: int) -> None:
        """The peer has proved who it is: it is no stranger any more, and may have as many bytes under way that have not
        come out of streams (`limits.UNDELIVERED_*`). May be called again."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close with an application code; the handler's `closed` follows, with what the peer can't change."""
        ...

    def statistics(self) -> ConnectionStatistics: ...


class ConnectionHandler(Protocol):
    """A session on a connection. The endpoint calls it from the event loop; nothing here may wait or raise.

    An exception out of a handler closes its connection with `close_codes.INTERNAL_ERROR`, is logged with a traceback
    and touches no other connection.
    """

    def negotiated(self) -> ConnectionHandler | None:
        """ALPN is settled. A listener that writes now has it ride in its first flight, before the dialer is known.

        A handler that is returned takes this one's place, with `negotiated` as its first call: what serves several
        protocols chooses by `Connection.alpn`. The one that chose is called no more.
        """
        ...

    def connected(self, channel_binding: bytes) -> None:
        """The handshake is complete; `channel_binding` is the same at both ends and of no other connection."""
        ...

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None:
        """The last call of a turn: hand all that was batched to `Connection.send`."""
        ...

    def closed(self, termination: Terminated) -> None:
        """The last call of all, exactly once."""
        ...
