"""The control stream towards one peer: frames are gathered and leave once a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.frames import STREAM_TYPE_CONTROL, encode_frame

if TYPE_CHECKING:
    from quicbus.transport.connection import Connection
    from quicbus.wire.frames import Frame

__all__ = ["ControlStream"]


class ControlStream:
    """`open` must come first. `sent_size`: bytes of frames so far."""

    __slots__ = ("_connection", "_frames", "_stream_id", "sent_size")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream_id = -1
        self._frames: list[bytes] = []
        self.sent_size = 0

    def open(self) -> None:
        self._stream_id = self._connection.open_stream()
        self._frames.append(bytes((STREAM_TYPE_CONTROL,)))

    def write(self, frame: Frame) -> None:
        """Queue a frame; it leaves with `flush`, which the end of this turn brings."""
        if not self._frames:
            self._connection.transmit_soon()
        encoded = encode_frame(frame)
        self.sent_size += len(encoded)
        self._frames.append(encoded)

    def flush(self) -> None:
        if self._frames:
            frames, self._frames = self._frames, []
            self._connection.send(self._stream_id, b"".join(frames))
