"""Which session serves a connection: decided when the dialer's application protocol is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quicbus.transport.connection import Connection, ConnectionHandler
    from quicbus.transport.engine import Terminated

__all__ = ["ByProtocol"]


class ByProtocol:
    """A `ConnectionHandler` until the protocol is negotiated; `makers` has one maker of sessions for each."""

    def __init__(self, connection: Connection, makers: Mapping[str, Callable[[Connection], ConnectionHandler]]) -> None:
        self._connection = connection
        self._makers = makers

    def negotiated(self) -> ConnectionHandler:
        return self._makers[self._connection.alpn](self._connection)

    def connected(self, channel_binding: bytes) -> None: ...

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None: ...
