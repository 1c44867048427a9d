"""What a connection needs of the endpoint that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from quicbus.transport.counters import Counters
    from quicbus.transport.endpoint_connection import EndpointConnection
    from quicbus.transport.network import Path

__all__ = ["Owner"]


class Owner(Protocol):
    counters: Counters

    def now(self) -> float: ...
    def source_towards(self, path: Path) -> str: ...
    def mark_dirty(self, connection: EndpointConnection) -> None: ...
    def serve_now(self, connection: EndpointConnection) -> None: ...
    def id_issued(self, connection: EndpointConnection, connection_id: bytes) -> None: ...
    def id_retired(self, connection: EndpointConnection, connection_id: bytes) -> None: ...
    def handshake_ended(self, connection: EndpointConnection) -> None: ...

    def stranger_gone(self, connection: EndpointConnection) -> None:
        """A connection that was accepted has proved who it is, or has ended."""
        ...
