"""The lanes towards one client: records are gathered and leave once a turn, joined into one write a lane."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from quicbus import limits
from quicbus.wire.frames import STREAM_TYPE_LANE

if TYPE_CHECKING:
    from quicbus.transport.connection import Connection

__all__ = ["NoLanes", "OutgoingLanes"]


class OutgoingLanes:
    """A lane is opened when first used. `records` counts those written so far."""

    __slots__ = ("_connection", "_parts", "_streams", "records")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._streams: dict[int, int] = {}
        self._parts: dict[int, list[bytes]] = {}
        self.records = 0

    @property
    def gathered_size(self) -> int:
        """Bytes that wait for `flush`."""
        return sum([sum(map(len, parts)) for parts in self._parts.values()])

    def write(self, topic: bytes, front: bytes, table: bytes, body: bytes) -> None:
        """Queue a record; it leaves with `flush`, which the end of this turn brings."""
        lane = crc32(topic) % limits.LANES
        parts = self._parts.get(lane)
        if parts is None:
            if not self._parts:
                self._connection.transmit_soon()
            parts = self._parts[lane] = []
        parts.append(front)
        parts.append(table)
        parts.append(body)
        self.records += 1

    def flush(self) -> None:
        """Write what was gathered; raises `LimitExceeded` where the client allows too few streams."""
        if not self._parts:
            return
        lanes, self._parts = self._parts, {}
        for lane, parts in lanes.items():
            stream_id = self._streams.get(lane)
            if stream_id is None:
                stream_id = self._streams[lane] = self._connection.open_stream()
                parts.insert(0, bytes((STREAM_TYPE_LANE,)))
            self._connection.send(stream_id, b"".join(parts))


class NoLanes(OutgoingLanes):
    """After the end of the connection: what is written is lost."""

    __slots__ = ()

    def write(self, topic: bytes, front: bytes, table: bytes, body: bytes) -> None:
        pass
