"""Members of the mesh kept in a file, so that a restarted node finds the mesh when every seed is gone.

A file that cannot be read is named in a warning and ignored, one that cannot be written is tried again: the broker goes
on without.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from quicbus.identity.files import PRIVATE_FOLDER_MODE, write_file
from quicbus_broker.host_port import parse_host_port
from quicbus_broker.mesh.outputs import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from quicbus_broker.mesh.outputs import NodeId
    from quicbus_broker.mesh.views import MemberView

__all__ = ["MEMBERS_FILE", "RememberedMembers"]

MEMBERS_FILE = "members.json"
MAX_MEMBERS = 256
"""One that answers is enough; several hundred outlive most of a large mesh. About 60 KB."""
MAX_ADDRESSES = 8
MAX_FILE_SIZE = 1024 * 1024
SAVE_INTERVAL_S = 5.0
"""How often it is looked whether there is something new to write."""
FIRST_INTERVAL_S = 1.0
"""Likewise, as long as nobody is known: a node that crashes soon after its first start finds the mesh again."""
REFRESH_S = 6 * 3600.0
"""Where nothing changes, it is written so often that the members are still there."""


class _Entry(msgspec.Struct, frozen=True):
    node: str
    """32 hex digits."""
    addresses: tuple[str, ...]
    seen: float
    """When it was last known to be alive, in seconds since 1970."""
    name: str = ""


class _File(msgspec.Struct, frozen=True):
    mesh: str
    members: tuple[_Entry, ...]


class _Unreadable(Exception):
    pass


class _Known(NamedTuple):
    addresses: tuple[str, ...]
    name: str
    seen: float


class RememberedMembers:
    """The file, and what this node remembers. `load` once, then run `keep` as a task; at the end `save`.

    `clock` tells the time of day: it must mean the same after a restart.
    """

    def __init__(self, path: Path, *, me: NodeId, mesh: str, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._me = me
        self._mesh = mesh
        self._clock = clock
        self._known: dict[NodeId, _Known] = {}
        self._written: dict[NodeId, tuple[tuple[str, ...], str]] = {}
        self._written_at = 0.0
        self._is_failing = False
        self._log = logging.getLogger("quicbus_broker.mesh")

    def load(self) -> tuple[tuple[NodeId, str], ...]:
        """Read the file; return nodes with an address each, those first that were seen last. Raises nothing.

        The file of another mesh is ignored without a word: the folder got a new certificate.
        """
        try:
            content = self._read()
        except _Unreadable as error:
            self._log.warning("= remembered members are ignored: %s: %s", self.path, error)
            return ()
        if content is None or content.mesh != self._mesh:
            return ()
        now = self._clock()  # what was seen "later" would stand before what is seen now: the clock was set back
        for entry in content.members:
            if (node := bytes.fromhex(entry.node)) != self._me:
                self._known[node] = _Known(entry.addresses, entry.name, min(entry.seen, now))
        self._bound({})
        self._written, self._written_at = self._content(), self._clock()
        return tuple((node, address) for node, known in self._known.items() for address in known.addresses)

    def learn(self, members: Iterable[MemberView]) -> bool:
        """Take in what is known now; return whether there is something to write."""
        now = self._clock()
        linked: dict[NodeId, None] = {}
        for member in members:
            if member.is_me or member.mode == "client":  # nobody dials a client
                continue
            if member.state is State.LEFT:
                self._known.pop(member.node, None)
            elif member.addresses and member.state is State.ALIVE:
                self._known[member.node] = _Known(member.addresses[:MAX_ADDRESSES], member.name, now)
                if member.is_linked:
                    linked[member.node] = None
        self._bound(linked)
        content = self._content()
        return content != self._written or (bool(content) and now >= self._written_at + REFRESH_S)

    def save(self, members: Iterable[MemberView] = ()) -> None:
        """Write what is known, if it changed. Waits for the disk; raises nothing."""
        if self.learn(members):
            self._write(self._encoded(), self._content())

    async def keep(self, members: Callable[[], Iterable[MemberView]]) -> None:
        """Learn and write every few seconds, in a thread, until cancelled. `members` is called on the loop."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S if self._known else FIRST_INTERVAL_S)
            if self.learn(members()):
                await asyncio.to_thread(self._write, self._encoded(), self._content())

    def _bound(self, linked: Mapping[NodeId, None]) -> None:
        """Put what was seen last first, of those this node's neighbours, and forget what is over the limit."""
        # The sort is stable: of those that are alike the ones that stand in the file stay, so that it seldom changes.
        order = sorted(self._known, key=lambda node: (-self._known[node].seen, node not in linked))
        self._known = {node: self._known[node] for node in order[:MAX_MEMBERS]}

    def _content(self) -> dict[NodeId, tuple[tuple[str, ...], str]]:
        return {node: (known.addresses, known.name) for node, known in self._known.items()}

    def _encoded(self) -> bytes:
        entries = tuple(
            _Entry(node=node.hex(), addresses=known.addresses, seen=round(known.seen), name=known.name)
            for node, known in self._known.items()
        )
        content = msgspec.json.encode(_File(mesh=self._mesh, members=entries))
        return msgspec.json.format(content, indent=1) + b"\n"

    def _write(self, data: bytes, content: dict[NodeId, tuple[tuple[str, ...], str]]) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                self.path.parent.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True)
            write_file(self.path, data, private=True)
        except OSError as error:
            if not self._is_failing:
                why = error.strerror or str(error)
                self._log.warning("= members cannot be remembered, trying again: %s: %s", self.path, why)
            self._is_failing = True
            return
        self._is_failing = False
        self._written, self._written_at = content, self._clock()

    def _read(self) -> _File | None:
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _Unreadable(error.strerror or str(error)) from None
        if len(data) > MAX_FILE_SIZE:
            raise _Unreadable(f"larger than {MAX_FILE_SIZE} bytes")
        try:
            content = msgspec.json.decode(data, type=_File)
            for entry in content.members:
                if len(bytes.fromhex(entry.node)) != 16:
                    raise ValueError(f"{entry.node!r} is no node id")
                for address in entry.addresses:
                    parse_host_port(address)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _Unreadable(str(error)) from None
        return content
