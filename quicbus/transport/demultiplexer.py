"""From a datagram to its connection: the table of connection ids, and what RFC 8999 lets every datagram show. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from quicbus.transport._packets import CONNECTION_ID_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus.transport.network import Path

__all__ = ["ConnectionTable", "Elsewhere", "connection_id", "runs"]

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


class Elsewhere(Protocol):
    """Other processes behind the same port, which get the datagrams of their connections."""

    def added(self, identifier: bytes) -> None:
        """A connection here has this id from now on."""
        ...

    def retired(self, identifier: bytes) -> None: ...

    def takes(self, identifier: bytes, buffer: bytes, segment_size: int, path: Path) -> bool:
        """Hand datagrams over where the id is of a connection elsewhere, and tell whether it is."""
        ...


class ConnectionTable(Generic[C]):
    """Connection ids and the connections that they belong to; a connection has several."""

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere
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
                if self._elsewhere is not None:
                    self._elsewhere.added(identifier)

    def retire(self, connection: C, identifier: bytes) -> None:
        owned = self._ids.get(connection)
        if owned is not None and identifier in owned:
            owned.discard(identifier)
            self._forget(identifier)

    def remove(self, connection: C) -> None:
        for identifier in self._ids.pop(connection, ()):
            self._forget(identifier)

    def _forget(self, identifier: bytes) -> None:
        del self._by_id[identifier]
        if self._elsewhere is not None:
            self._elsewhere.retired(identifier)
