"""The Unix sockets between the processes behind one UDP port: each has an inbox that all the others write to.

Inboxes are seqpacket socket pairs without a name: messages keep their borders and their order, and nobody who did not
inherit one can write to it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quicbus.transport.handover import Handed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.transport.handover import Handover
    from quicbus.transport.network import Path

__all__ = ["HandoverStatistics", "Inbox", "SiblingSockets", "open_inbox"]

INBOX_SIZE = 4 * 1024 * 1024
"""Asked for: bursts for a busy worker wait there, as they would in its UDP socket. The system may give less."""
SO_SNDBUFFORCE = 32
MAX_MESSAGE_SIZE = 72 * 1024
"""A GRO buffer (64 KiB) with its addresses."""
MAX_READS = 64
MAX_UNTOLD = 256
"""Messages with ids that wait for one sibling; beyond it all is told anew once that one reads again."""
RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class HandoverStatistics:
    """What one of several workers exchanged with its siblings."""

    handed_over: int
    """Buffers of datagrams that arrived here and went to the worker whose connection they are of."""
    taken_over: int
    """Such buffers that came from siblings."""
    dropped: int
    """Such buffers that a sibling's inbox had no room for."""
    known_ids: int
    """Connection ids of siblings."""


class Inbox:
    """Both ends of a worker's inbox."""

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self.reader = reader
        self.writer = writer

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def open_inbox() -> Inbox:
    """Return an inbox; raises `OSError`."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader.setblocking(False)
    writer.setblocking(False)
    try:
        writer.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, INBOX_SIZE)
    except OSError:
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, INBOX_SIZE)
    return Inbox(reader, writer)


class DatagramTaker(Protocol):
    """The endpoint."""

    def received(self, buffer: bytes, segment_size: int, path: Path) -> None: ...
    def turn_ended(self, *, is_behind: bool = False) -> None: ...


class SiblingSockets:
    """The table of a worker and its way to the others. `open` it with the endpoint, `close` it before that.

    `inboxes` are those of all workers, in the order of their numbers. Its methods are the endpoint's `Elsewhere`.
    """

    def __init__(self, handover: Handover, inboxes: Sequence[Inbox]) -> None:
        self._handover = handover
        self._reader = inboxes[handover.me].reader
        self._writers = {number: inbox.writer for number, inbox in enumerate(inboxes) if number != handover.me}
        self._untold: dict[int, deque[bytes]] = {number: deque() for number in self._writers}
        self._wants_everything: dict[int, None] = {}
        self._taker: DatagramTaker | None = None
        self._loop = asyncio.get_running_loop()
        self._telling: asyncio.Handle | None = None
        self._handed_over = self._taken_over = self._dropped = 0

    def open(self, taker: DatagramTaker) -> None:
        self._taker = taker
        for message in self._handover.greetings():
            self._post_to_all(message)
        self._tell_soon()
        self._loop.add_reader(self._reader.fileno(), self._on_readable)

    def close(self) -> None:
        """May be called twice."""
        if self._telling is not None:
            self._telling.cancel()
        if self._taker is not None:
            self._loop.remove_reader(self._reader.fileno())
            self._taker = None

    def statistics(self) -> HandoverStatistics:
        return HandoverStatistics(self._handed_over, self._taken_over, self._dropped, len(self._handover))

    # --- Elsewhere: for the endpoint ----------------------------------------------------------------------------------

    def added(self, identifier: bytes) -> None:
        self._handover.added(identifier)
        self._tell_soon()

    def retired(self, identifier: bytes) -> None:
        self._handover.retired(identifier)
        self._tell_soon()

    def takes(self, identifier: bytes, buffer: bytes, segment_size: int, path: Path) -> bool:
        """Hand datagrams over where the id is a sibling's, and tell whether it is."""
        owner = self._handover.owner(identifier)
        if owner is None:
            return False
        try:
            self._writers[owner].sendmsg([self._handover.head(segment_size, path), buffer])
        except OSError:  # It is full, or its worker is gone for the moment: lost as on any network.
            self._dropped += 1
        else:
            self._handed_over += 1
        return True

    # --- telling ------------------------------------------------------------------------------------------------------

    def _tell_soon(self) -> None:
        if self._telling is None and self._taker is not None:
            self._telling = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = None
        for message in self._handover.changes():
            self._post_to_all(message)
        is_left = [number for number in self._untold if not self._empty(number)]
        if is_left:
            self._telling = self._loop.call_later(RETRY_S, self._tell)

    def _post_to_all(self, message: bytes) -> None:
        for number, untold in self._untold.items():
            if number in self._wants_everything:
                continue
            if len(untold) >= MAX_UNTOLD:
                untold.clear()
                self._wants_everything[number] = None
            elif untold or not self._post(number, message):
                untold.append(message)

    def _post(self, number: int, message: bytes) -> bool:
        try:
            self._writers[number].send(message)
        except OSError:
            return False
        return True

    def _empty(self, number: int) -> bool:
        """Send what waits for a sibling, as far as there is room; tell whether nothing waits any more."""
        untold = self._untold[number]
        if number in self._wants_everything:
            del self._wants_everything[number]
            untold.extend(self._handover.everything())
        while untold and self._post(number, untold[0]):
            untold.popleft()
        return not untold

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        taker = self._taker
        if taker is None:
            return
        is_behind = True
        for _ in range(MAX_READS):
            try:
                message = self._reader.recv(MAX_MESSAGE_SIZE)
            except OSError:
                is_behind = False
                break
            what = self._handover.handle(message)
            if isinstance(what, Handed):
                self._taken_over += 1
                taker.received(*what)
            elif what is not None:
                self._tell_everything(what)
        taker.turn_ended(is_behind=is_behind)

    def _tell_everything(self, number: int) -> None:
        self._untold[number].clear()
        self._wants_everything[number] = None
        self._tell_soon()
