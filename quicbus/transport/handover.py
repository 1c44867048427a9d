"""Which of several processes behind one UDP port a connection id belongs to, and what they tell each other. Pure.

A worker hears of its own ids (`added`, `retired`) and of its siblings' messages, which come in order and unchanged.
A message is one byte of kind, one of sender, and the rest:

```
FORGET     -                                  the sender has no connections (any more): forget its ids
ASK        -                                  tell me your ids
IDS        (1 or 0, id of 8 bytes) ...        has it now, or has it no more
DATAGRAMS  segment size, path size, path, buffer    for a connection of the receiver's
```
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from quicbus.transport._packets import CONNECTION_ID_SIZE
from quicbus.transport.network import Path, plain_address

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Handed", "Handover", "Kind"]

MAX_IDS = 4096
"""Of one message: 36 KiB."""
MAX_KNOWN_PATHS = 4096
_HEAD = struct.Struct("!BB")
_DATAGRAMS = struct.Struct("!BBHH")


class Kind(IntEnum):
    FORGET = 0
    ASK = 1
    IDS = 2
    DATAGRAMS = 3


class Handed(NamedTuple):
    """Datagrams that a sibling hands over, as its socket had them."""

    buffer: bytes
    segment_size: int
    path: Path


class Handover:
    """The table of one worker, number `me`."""

    def __init__(self, me: int) -> None:
        self.me = me
        self._own: dict[bytes, None] = {}
        self._changed: dict[bytes, None] = {}
        self._owners: dict[bytes, int] = {}
        self._heads: dict[Path, bytes] = {}
        self._paths: dict[bytes, Path] = {}

    def __len__(self) -> int:
        """Ids of siblings."""
        return len(self._owners)

    # --- what the endpoint tells --------------------------------------------------------------------------------------

    def added(self, identifier: bytes) -> None:
        """A connection here has this id. One of another size was the dialer's choice, and goes before the handshake."""
        if len(identifier) == CONNECTION_ID_SIZE:
            self._own[identifier] = None
            self._changed[identifier] = None

    def retired(self, identifier: bytes) -> None:
        if identifier in self._own:
            del self._own[identifier]
            self._changed[identifier] = None

    def owner(self, identifier: bytes) -> int | None:
        """Return the sibling whose connection has this id."""
        return self._owners.get(identifier)

    # --- what siblings are told ---------------------------------------------------------------------------------------

    def changes(self) -> list[bytes]:
        """Return the messages that tell what has changed since the last call."""
        changed, self._changed = self._changed, {}
        return self._ids(changed)

    def everything(self) -> list[bytes]:
        """Return the messages that make a sibling know what is so now, whatever it was told before."""
        return [_HEAD.pack(Kind.FORGET, self.me), *self._ids(self._own)]

    def greetings(self) -> list[bytes]:
        """Return the first messages of a process, also of one that takes the place of another."""
        return [*self.everything(), _HEAD.pack(Kind.ASK, self.me)]

    def head(self, segment_size: int, path: Path) -> bytes:
        """Return what stands before a buffer that is handed over."""
        encoded = self._heads.get(path)
        if encoded is None:
            if len(self._heads) >= MAX_KNOWN_PATHS:
                self._heads.clear()
            encoded = self._heads[path] = msgspec.msgpack.encode((path.peer, path.local))
        return _DATAGRAMS.pack(Kind.DATAGRAMS, self.me, segment_size, len(encoded)) + encoded

    def _ids(self, identifiers: Iterable[bytes]) -> list[bytes]:
        head, own = _HEAD.pack(Kind.IDS, self.me), self._own
        records = [(b"\x01" if each in own else b"\x00") + each for each in identifiers]
        return [head + b"".join(records[at : at + MAX_IDS]) for at in range(0, len(records), MAX_IDS)]

    # --- what siblings tell -------------------------------------------------------------------------------------------

    def handle(self, message: bytes) -> Handed | int | None:
        """Take a message; return datagrams for a connection here, or the sibling that wants to be told everything."""
        kind, sender = _HEAD.unpack_from(message)
        if kind == Kind.DATAGRAMS:
            return self._on_datagrams(message)
        if kind == Kind.IDS:
            self._on_ids(message, sender)
        elif kind == Kind.FORGET:
            self._owners = {identifier: owner for identifier, owner in self._owners.items() if owner != sender}
        elif kind == Kind.ASK:
            return int(sender)
        return None

    def _on_ids(self, message: bytes, sender: int) -> None:
        owners = self._owners
        for at in range(_HEAD.size, len(message), 1 + CONNECTION_ID_SIZE):
            identifier = message[at + 1 : at + 1 + CONNECTION_ID_SIZE]
            if message[at]:
                # Who dials chooses one id itself, perhaps one of somebody else's connection: that stays where it is.
                owners.setdefault(identifier, sender)
            elif owners.get(identifier) == sender:
                del owners[identifier]

    def _on_datagrams(self, message: bytes) -> Handed:
        _, _, segment_size, path_size = _DATAGRAMS.unpack_from(message)
        start = _DATAGRAMS.size + path_size
        encoded = message[_DATAGRAMS.size : start]
        path = self._paths.get(encoded)
        if path is None:
            if len(self._paths) >= MAX_KNOWN_PATHS:
                self._paths.clear()
            peer, local = msgspec.msgpack.decode(encoded)
            peer, local = tuple(peer), None if local is None else tuple(local)
            path = self._paths[encoded] = Path(plain_address(peer), peer, local)
        return Handed(message[start:], segment_size, path)
