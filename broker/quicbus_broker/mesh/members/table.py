"""What a node knows of each member: records and states in the order of the ids, and a digest to compare tables by.

A table may stand on a `TableBase`, a start that many tables of one process share and that is never copied: a table
then holds what differs from it.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from hashlib import blake2b
from heapq import merge
from struct import Struct
from typing import TYPE_CHECKING

from sortedcontainers import SortedDict

from quicbus.wire.node_frames import Summary
from quicbus_broker.mesh.outputs import NodeId, State

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from quicbus.wire.node_frames import MemberRecord, Signed
    from quicbus_broker.mesh.signing import Signing

__all__ = ["BUCKETS", "Entry", "MemberTable", "TableBase"]

BUCKETS = 64
"""Tables are compared by so many hashes: 512 bytes, and one change in a table of 10,000 lists 160 members."""
_BUCKET_SHIFT = 2
"""The bucket is the top bits of the id, so that its members are neighbours in the order of the ids."""
_DIGEST = Struct(f"<{BUCKETS}Q")
_MEMBER = Struct("<16sQQB")
_INTEREST = Struct("<16sQQ")
_STATES = (State.ALIVE, State.SUSPECT, State.FAILED, State.LEFT)
_FOLDED = (0, 0, 1, 2)
"""A suspicion ends by itself, one way or the other: tables that differ by no more need no comparing."""
_CODE_OWN = len(_STATES)
"""The base's entry is void: what counts stands in the table's own part, if anywhere."""


class Entry:
    """A member as it stands in a table. Never changed: tables share it.

    A state always speaks of the incarnation of the record, as claims about any other are not taken.
    """

    __slots__ = ("code", "hash", "incarnation", "is_alive", "record", "signed", "state", "variants")

    def __init__(self, record: MemberRecord, signed: Signed, state: State) -> None:
        self.record = record
        self.signed = signed
        self.state = state
        self.code = _STATES.index(state)
        """The state as a small integer."""
        self.incarnation = record.incarnation
        self.is_alive = state is State.ALIVE or state is State.SUSPECT
        """Not known to have failed or left."""
        self.hash = _hash(_MEMBER.pack(record.node, record.incarnation, record.boot, _FOLDED[self.code]))
        self.variants: list[Entry | None] = [None] * len(_STATES)
        """By code: the same record in each state that it was met in."""
        self.variants[self.code] = self

    def as_state(self, state: State) -> Entry:
        """Return the entry with the same record in another state; made once."""
        code = _STATES.index(state)
        variant = self.variants[code]
        if variant is None:
            variant = Entry(self.record, self.signed, state)
            variant.variants = self.variants
            self.variants[code] = variant
        return variant

    def __repr__(self) -> str:
        return f"Entry({self.record.node.hex()[:8]} {self.record.name!r} {self.state} {self.incarnation})"


class TableBase:
    """A start that many tables share: all members alive."""

    __slots__ = ("_later", "digests", "entries", "index", "interest", "order")

    def __init__(self, entries: Sequence[Entry], interest: Mapping[NodeId, tuple[int, int]]) -> None:
        self.entries = sorted(entries, key=lambda entry: entry.record.node)
        self.order = [entry.record.node for entry in self.entries]
        self.index = {node: position for position, node in enumerate(self.order)}
        self.interest = dict(interest)
        """Boot and version of the interest of each member, as far as the tables begin with it."""
        assert len(self.index) == len(self.entries), "two records of one member"
        self._later: dict[bytes, Entry] = {}
        self.digests = [0] * BUCKETS
        for entry in self.entries:
            self.digests[entry.record.node[0] >> _BUCKET_SHIFT] ^= entry.hash ^ _interest_part(
                entry, self.interest.get(entry.record.node)
            )

    @classmethod
    def of(
        cls, members: Sequence[Signed], signing: Signing, interest: Mapping[NodeId, tuple[int, int]] | None = None
    ) -> TableBase:
        """Make a start of these records; raises `Forged`. `interest`: boot and version that each table knows."""
        return cls([Entry(signing.open_record(signed), signed, State.ALIVE) for signed in members], interest or {})

    def entry(self, record: MemberRecord, signed: Signed, state: State) -> Entry:
        """Return an entry for a later record: tables that learn of the same share it too."""
        entry = self._later.get(signed.payload)
        if entry is None:
            if len(self._later) > len(self.entries):
                self._later.clear()
            entry = self._later[signed.payload] = Entry(record, signed, state)
        return entry if entry.state is state else entry.as_state(state)


_EMPTY = TableBase((), {})


class MemberTable:
    """All members that a node knows of, itself among them."""

    __slots__ = ("_base", "_codes", "_digests", "_interest", "_local", "_replaced", "_size", "alive_count")

    def __init__(self, base: TableBase | None = None) -> None:
        self._base = base or _EMPTY
        self._codes = bytearray()
        """The state of each member of the base by its code; empty: all alive. Made when the first changes."""
        self._replaced: dict[NodeId, Entry] = {}
        """Members of the base with another record than there."""
        self._local: SortedDict[NodeId, Entry] = SortedDict()
        """Members that are not in the base."""
        self._interest: dict[NodeId, tuple[int, int]] = {}
        self._digests = list(self._base.digests)
        self._size = len(self._base.entries)
        self.alive_count = self._size
        """Members that have neither failed nor left: the own node and suspects count."""

    def __len__(self) -> int:
        return self._size

    def __contains__(self, node: NodeId) -> bool:
        return self.get(node) is not None

    def get(self, node: NodeId) -> Entry | None:
        position = self._base.index.get(node)
        if position is None:
            return self._local.get(node)
        if not self._codes:
            return self._base.entries[position]
        code = self._codes[position]
        if code == _CODE_OWN:
            return self._replaced.get(node)
        return self._base.entries[position].variants[code]

    def nodes(self) -> Iterator[NodeId]:
        """All members in the order of their ids. The table must not gain or lose any meanwhile."""
        if not self._base.order:
            return iter(self._local)
        return merge(self._present(self._base.order), self._local)

    def states(self) -> Iterator[State]:
        """The state of each member, in the order of the ids."""
        return (entry.state for node in self.nodes() if (entry := self.get(node)) is not None)

    def pick(self, rng: random.Random, accept: Callable[[Entry], bool], tries: int = 32) -> NodeId | None:
        """Return a random member that is accepted, each with the same chance.

        In a table of more than `tries` members it is given up after so many: `None` says that few or none would be
        accepted.
        """
        base_size = len(self._base.order)
        total = base_size + len(self._local)
        if total <= tries:
            accepted = [node for node in self.nodes() if (entry := self.get(node)) is not None and accept(entry)]
            return accepted[int(rng.random() * len(accepted))] if accepted else None
        for _ in range(tries):
            position = int(rng.random() * total)
            if position < base_size:
                entry = self.get(self._base.order[position])
            else:
                entry = self._local.peekitem(position - base_size)[1]
            if entry is not None and accept(entry):
                return entry.record.node
        return None

    def entry(self, record: MemberRecord, signed: Signed, state: State) -> Entry:
        """Make an entry to `put`."""
        if not self._base.entries:
            return Entry(record, signed, state)
        return self._base.entry(record, signed, state)

    # --- changes ------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Set what is known of a member."""
        node = entry.record.node
        base = self._base
        position = base.index.get(node)
        if position is None:
            self._account(node, self._local.get(node), entry)
            self._local[node] = entry
            return
        self._account(node, self.get(node), entry)
        if not self._codes:
            self._codes = bytearray(len(base.entries))
        if base.entries[position].variants[entry.code] is entry:
            if self._codes[position] == _CODE_OWN:
                self._replaced.pop(node, None)
            self._codes[position] = entry.code
        else:
            self._replaced[node] = entry
            self._codes[position] = _CODE_OWN

    def remove(self, node: NodeId) -> None:
        """Forget a member; nothing happens where it is not known."""
        self._account(node, self.get(node), None)
        self._interest.pop(node, None)
        position = self._base.index.get(node)
        if position is None:
            self._local.pop(node, None)
        else:
            self._replaced.pop(node, None)
            if not self._codes:
                self._codes = bytearray(len(self._base.entries))
            self._codes[position] = _CODE_OWN

    def set_interest_version(self, node: NodeId, boot: int, version: int) -> None:
        """Say how far the interest of one boot of a member is known: it is part of what tables are compared by."""
        entry = self.get(node)
        before = self._interest_of(node)
        self._interest[node] = (boot, version)
        if entry is not None:
            self._digests[node[0] >> _BUCKET_SHIFT] ^= _interest_part(entry, before) ^ _interest_part(
                entry, (boot, version)
            )

    # --- comparing ----------------------------------------------------------------------------------------------------

    def digest(self) -> bytes:
        """One hash a bucket over ids, incarnations, states, boots and interest versions; suspects count as alive."""
        return _DIGEST.pack(*self._digests)

    @staticmethod
    def bucket_of(node: NodeId) -> int:
        return node[0] >> _BUCKET_SHIFT

    def bucket_members(self, bucket: int) -> list[NodeId]:
        """In the order of the ids."""
        first = bytes((bucket << _BUCKET_SHIFT,))
        # A byte beyond the last id of the bucket, or beyond every id.
        beyond = bytes((bucket + 1 << _BUCKET_SHIFT,)) if bucket + 1 < BUCKETS else b"\xff" * 17
        local = self._local.irange(first, beyond, (True, False))
        if not self._base.order:
            return list(local)
        from_base = self._base.order[bisect_left(self._base.order, first) : bisect_left(self._base.order, beyond)]
        return list(merge(self._present(from_base), local))

    def interest_version(self, node: NodeId) -> int:
        """How far the interest of its current boot is known; 0 where it is not, and of those that are gone."""
        entry = self.get(node)
        return 0 if entry is None else _version(entry, self._interest_of(node))

    def summary(self, node: NodeId) -> Summary:
        """What is known of a member, in short; it must be one."""
        entry = self.get(node)
        assert entry is not None
        return Summary(
            node,
            entry.incarnation,
            entry.state.value,
            entry.record.boot,
            _version(entry, self._interest_of(node)),
        )

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _present(self, order: Sequence[NodeId]) -> Iterator[NodeId]:
        if not self._codes:
            return iter(order)
        return (node for node in order if self.get(node) is not None)

    def _interest_of(self, node: NodeId) -> tuple[int, int] | None:
        return self._interest.get(node) or self._base.interest.get(node)

    def _account(self, node: NodeId, before: Entry | None, after: Entry | None) -> None:
        """Bring sizes and digest from `before` to `after`."""
        interest = self._interest.get(node) or self._base.interest.get(node)
        change = 0
        if before is not None:
            self._size -= 1
            self.alive_count -= before.is_alive
            change = before.hash
            if interest is not None:
                change ^= _interest_part(before, interest)
        if after is not None:
            self._size += 1
            self.alive_count += after.is_alive
            change ^= after.hash
            if interest is not None:
                change ^= _interest_part(after, interest)
        self._digests[node[0] >> _BUCKET_SHIFT] ^= change


def _hash(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")


@lru_cache(maxsize=65_536)
def _interest_hash(node: NodeId, boot: int, version: int) -> int:
    return _hash(_INTEREST.pack(node, boot, version)) if version else 0


def _version(entry: Entry, interest: tuple[int, int] | None) -> int:
    """The interest of another boot is void, and nobody needs that of a member that is gone."""
    if interest is None or interest[0] != entry.record.boot or not entry.is_alive:
        return 0
    return interest[1]


def _interest_part(entry: Entry, interest: tuple[int, int] | None) -> int:
    return _interest_hash(entry.record.node, entry.record.boot, _version(entry, interest))
