"""From a datagram to its connection: the table of connection ids, and what RFC 8999 lets every datagram show. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from quicbus.transport._packets import CONNECTION_ID_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ConnectionTable", "connection_id", "runs"]

C = TypeVar("C")


def connection_id(datagram: bytes, offset: int = 0, end: int | None = None) -> bytes | None:
    """Return the destination connection id of the datagram at `offset`, or `None` when it is no QUIC datagram."""
    end = len(datagram) if end is None else end
    if offset >= end:
        return None
    if not datagram[offset] & 0x80:
        # RFC 9000 section 17.3.1: the fixed bit is set, or it is not QUIC.
        if not datagram[offset] & 0x40 or end - offset < 1 + CONNECTION_ID_SIZE:
            return None
        return datagram[offset + 1 : offset + 1 + CONNECTION_ID_SIZE]
    if end - offset < 7:
        return None
    size = datagram[offset + 5]
    if end - offset < 7 + size:
        return None
    return datagram[offset + 6 : offset + 6 + size]


def runs(buffer: bytes, segment_size: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Cut a GRO buffer into stretches of whole segments that carry one connection id: (start, end, id).

    One GSO send may hold datagrams of two ids, and qh3 drops the second kind without a word.
    """
    size = len(buffer)
    start = 0
    current = connection_id(buffer, 0, min(segment_size, size))
    for offset in range(segment_size, size, segment_size):
        following = connection_id(buffer, offset, min(offset + segment_size, size))
        if following != current:
            yield start, offset, current
            start, current = offset, following
    yield start, size, current


class ConnectionTable(Generic[C]):
    """Connection ids and the connections that they belong to; a connection has several."""

    def __init__(self) -> None:
        self._by_id: dict[bytes, C] = {}
        self._ids: dict[C, set[bytes]] = {}
        self.find = self._by_id.get
        """Return the connection of an id, or `None`."""

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._ids))

    def __contains__(self, connection: C) -> bool:
        return connection in self._ids

    def add(self, connection: C, *ids: bytes) -> None:
        """An id that is another connection's stays that connection's."""
        owned = self._ids.setdefault(connection, set())
        for identifier in ids:
            if self._by_id.setdefault(identifier, connection) is connection:
                owned.add(identifier)

    def retire(self, connection: C, identifier: bytes) -> None:
        owned = self._ids.get(connection)
        if owned is not None and identifier in owned:
            owned.discard(identifier)
            del self._by_id[identifier]

    def remove(self, connection: C) -> None:
        for identifier in self._ids.pop(connection, ()):
            del self._by_id[identifier]
