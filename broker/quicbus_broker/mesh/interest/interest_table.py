"""What other nodes want: taken from signed, versioned differences, kept to be passed on, matched against topics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.exceptions import InvalidTopic
from quicbus.topics import SplitFilter, TopicTrie, check_filter, check_group
from quicbus.wire.node_frames import Discover, InterestPiece, InterestSeen
from quicbus_broker.mesh.interest.covering import has_wildcards
from quicbus_broker.mesh.outputs import Misbehaved, NewsLearned, SendFrame
from quicbus_broker.mesh.signing import Forged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from quicbus.wire.node_frames import InterestEntry, Signed
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.signing import Signing

__all__ = ["InterestBase", "InterestTable", "Match", "Wanted"]

MAX_ENTRIES = 100_000
"""Filters and groups of one member. An honest one announces fewer: see `own_interest.py`."""
MAX_LOG_FACTOR = 4
MAX_LOG_SLACK = 1024
"""Entries in the pieces that are kept of a member, beyond what it wants. An honest one tells all anew long before."""

MAX_LOG_SIZE_SLACK = 1024 * 1024
"""Bytes, likewise: beyond what an entry costs beside its filter, of which an honest member has 60,000 at most."""
MAX_BLOCKING = 1024
"""Filters with wildcards of one member that a Pause is compared with. Who has more is believed: it could as well say
that it wants everything."""

_pieces = msgspec.msgpack.Decoder(InterestPiece)
_Key = tuple[str, str]


class _TooLarge(Exception):
    """A member wants more than it may."""


class Wanted:
    """The nodes that want one filter, as plain subscribers (`group` is empty) or for one group; each with `blocks`."""

    __slots__ = ("filter", "group", "nodes")

    def __init__(self, filter: str, group: str) -> None:
        self.filter = filter
        self.group = group
        self.nodes: dict[NodeId, bool] = {}


class Match(msgspec.Struct, frozen=True):
    """Who wants a topic: nodes with whether one of their subscribers blocks. Not to be changed."""

    plain: dict[NodeId, bool]
    groups: tuple[tuple[str, str, dict[NodeId, bool]], ...]
    """Group, filter, and the nodes that have members of it."""


class _Known:
    """What one boot of a member wants, up to a version, and the signed pieces that say so."""

    __slots__ = ("blocking", "boot", "entries", "log", "log_entries", "log_size", "size", "version")

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.version = 0
        self.entries: dict[_Key, bool] = {}
        self.size = 0
        """Characters of all filters and groups."""
        self.log: list[tuple[int, Signed]] = []
        self.log_entries = 0
        self.log_size = 0
        self.blocking: tuple[SplitFilter, ...] | None = None
        """Filters with wildcards that block; `None` where they must be gathered anew."""

    def copy(self) -> _Known:
        other = _Known(self.boot)
        other.version, other.entries, other.size = self.version, dict(self.entries), self.size
        other.log, other.log_entries, other.log_size = list(self.log), self.log_entries, self.log_size
        return other

    def has_room_for(self, piece: InterestPiece) -> bool:
        """Whether what it adds is within the bounds of one member, whatever it takes out."""
        size, entries = (0, 0) if piece.reset else (self.size, len(self.entries))
        size += sum([len(each.filter) + len(each.group) for each in piece.added])
        return entries + len(piece.added) <= MAX_ENTRIES and size <= limits.MAX_INTEREST_SIZE

    def note(self, signed: Signed, piece: InterestPiece) -> None:
        if piece.reset:
            self.log.clear()
            self.log_entries = self.log_size = 0
        self.log.append((piece.version, signed))
        self.log_entries += len(piece.added) + len(piece.removed) + 1
        self.log_size += len(signed.payload)
        if (
            self.log_entries > MAX_LOG_FACTOR * len(self.entries) + MAX_LOG_SLACK
            or self.log_size > MAX_LOG_FACTOR * self.size + MAX_LOG_SIZE_SLACK
        ):
            self.log.clear()
        self.version = piece.version
        self.blocking = None


@dataclass(slots=True)
class _Index:
    """Filters and groups in a trie, each once, with the nodes that want it."""

    trie: TopicTrie[Wanted] = field(default_factory=TopicTrie)
    by_key: dict[_Key, Wanted] = field(default_factory=dict)

    def set(self, node: NodeId, key: _Key, blocks: bool) -> None:
        wanted = self.by_key.get(key)
        if wanted is None:
            wanted = self.by_key[key] = Wanted(*key)
            self.trie.add(key[0], wanted)
        wanted.nodes[node] = blocks

    def discard(self, node: NodeId, key: _Key) -> None:
        wanted = self.by_key[key]
        del wanted.nodes[node]
        if not wanted.nodes:
            del self.by_key[key]
            self.trie.discard(key[0], wanted)


class InterestBase:
    """A start that many tables of one process share and that is never copied."""

    __slots__ = ("index", "known")

    def __init__(self) -> None:
        self.known: dict[NodeId, _Known] = {}
        self.index = _Index()

    @classmethod
    def of(cls, pieces: Iterable[Signed], signing: Signing) -> InterestBase:
        """Make a start of these pieces: for each member all of them, in order. Raises `Forged`."""
        base = cls()
        for signed in pieces:
            piece = signing.open_interest(signed)
            known = base.known.setdefault(piece.node, _Known(piece.boot))
            assert (known.boot, known.version) == (piece.boot, piece.base), "pieces of one boot, in order"
            for entry in piece.removed:
                del known.entries[(entry.filter, entry.group)]
                base.index.discard(piece.node, (entry.filter, entry.group))
            for entry in piece.added:
                known.entries[(entry.filter, entry.group)] = entry.blocks
                known.size += len(entry.filter) + len(entry.group)
                base.index.set(piece.node, (entry.filter, entry.group), entry.blocks)
            known.note(signed, piece)
        return base

    def versions(self) -> dict[NodeId, tuple[int, int]]:
        """Return boot and version of each member, as `TableBase` wants them."""
        return {node: (known.boot, known.version) for node, known in self.known.items()}


_EMPTY = InterestBase()


class InterestTable:
    """The interest of all members but this one. `on_change` hears which topics are matched differently from here on."""

    def __init__(self, me: NodeId, signing: Signing, table: MemberTable, base: InterestBase | None = None) -> None:
        self.dropped: Counter[str] = Counter()
        """Pieces that were not taken, by reason."""
        self.on_change: Callable[[str | None], None] = _ignore
        """Called with a topic, or `None` where it may be any."""
        self._me = me
        self._signing = signing
        self._table = table
        self._base = base or _EMPTY
        self._known: dict[NodeId, _Known] = {}
        """Of members that are not in the base, or differ from it."""
        self._index = _Index()
        self._hidden: dict[NodeId, None] = {me: None} if me in self._base.known else {}
        """Members of the base that the index of the base is not right about."""
        self._gone: dict[NodeId, None] = {}
        self._gone_max = 64
        self._asked: dict[NodeId, tuple[int, int]] = {}

    # --- what comes -------------------------------------------------------------------------------------------------

    def take(self, pieces: Sequence[Signed], source: NodeId, now: float, outputs: list[Output]) -> None:
        """Take pieces that `source` sent, of itself or of others; what is new is passed on."""
        news: list[Signed] = []
        missing: dict[NodeId, None] = {}
        is_own = False
        for signed in pieces:
            try:
                # Most come from several neighbours: what is known already needs no check of its signature.
                piece = _pieces.decode(signed.payload)
                is_own = is_own or piece.node == source
                if self._is_known(piece):
                    continue
                piece = self._signing.open_interest(signed)
                _check_entries(piece)
                is_taken = self._apply(piece, signed)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                outputs.append(Misbehaved(source, f"an unreadable piece of interest: {error}"))
            except _TooLarge as error:
                # Who passes it on may have had room: a member can tell each of its neighbours something else.
                if piece.node == source:
                    outputs.append(Misbehaved(source, str(error)))
            except (Forged, InvalidTopic) as error:
                outputs.append(Misbehaved(source, str(error)))
            else:
                if is_taken:
                    news.append(signed)
                elif self._table.get(piece.node) is not None:
                    missing[piece.node] = None
        if news:
            outputs.append(NewsLearned(source, interest=tuple(news)))
        if is_own:
            outputs.append(SendFrame(source, InterestSeen(version=self.version(source))))
        for node in missing:
            self._ask(node, source, outputs)

    def _is_known(self, piece: InterestPiece) -> bool:
        """Whether it says nothing new, or comes before the record of its node, which brings both again."""
        if piece.node == self._me or not self._signing.knows(piece.node):
            return True
        entry = self._table.get(piece.node)
        known = self._find(piece.node)
        boot = known.boot if known is not None else 0
        if entry is None or piece.boot < max(entry.record.boot, boot):
            return True
        return known is not None and piece.boot == boot and piece.version <= known.version

    def _apply(self, piece: InterestPiece, signed: Signed) -> bool:
        """Take a piece that is newer than what is known; False where what leads to it is missing.

        Raises `_TooLarge` where it is more than a member may want.
        """
        entry = self._table.get(piece.node)
        if entry is None or piece.boot != entry.record.boot:
            return False
        known = self._find(piece.node)
        is_new_boot = known is None or known.boot != piece.boot
        if not piece.reset and piece.base != (0 if is_new_boot or known is None else known.version):
            return False
        known = self._own_copy(piece.node, piece.boot)
        if not known.has_room_for(piece):
            self.dropped["interest_too_large"] += 1
            raise _TooLarge(f"node {piece.node.hex()} wants more than {limits.MAX_INTEREST_SIZE} bytes of filters")
        if piece.reset:
            kept = {(each.filter, each.group) for each in piece.added}
            for key in [key for key in known.entries if key not in kept]:
                self._discard(piece.node, known, key)
        for each in piece.removed:
            self._discard(piece.node, known, (each.filter, each.group))
        for each in piece.added:
            self._set(piece.node, known, (each.filter, each.group), each.blocks)
        known.note(signed, piece)
        self._table.set_interest_version(piece.node, piece.boot, piece.version)
        return True

    def _own_copy(self, node: NodeId, boot: int) -> _Known:
        """Return what is known of a boot of a member, to be changed; what another boot wanted is void."""
        known = self._known.get(node)
        if known is None:
            of_base = self._base.known.get(node)
            known = _Known(boot) if of_base is None else of_base.copy()
            self._known[node] = known
            if of_base is not None:
                self._hidden[node] = None
                for key, blocks in known.entries.items():
                    self._index.set(node, key, blocks)
        if known.boot != boot:
            for key in list(known.entries):
                self._discard(node, known, key)
            known = self._known[node] = _Known(boot)
        return known

    def _set(self, node: NodeId, known: _Known, key: _Key, blocks: bool) -> None:
        before = known.entries.get(key)
        if before is not blocks:
            if before is None:
                known.size += len(key[0]) + len(key[1])
            known.entries[key] = blocks
            self._index.set(node, key, blocks)
            self._changed(key[0])

    def _discard(self, node: NodeId, known: _Known, key: _Key) -> None:
        if known.entries.pop(key, None) is not None:
            known.size -= len(key[0]) + len(key[1])
            self._index.discard(node, key)
            self._changed(key[0])

    def _ask(self, node: NodeId, source: NodeId, outputs: list[Output]) -> None:
        """Ask who told of it for what is missing: once for each state, and again at the next comparison of tables."""
        known = self._find(node)
        have = (known.boot, known.version) if known is not None else (0, 0)
        if self._asked.get(node) != have:
            self._asked[node] = have
            outputs.append(SendFrame(source, Discover(want=(node,), have_interest=((node, *have),))))

    # --- members ----------------------------------------------------------------------------------------------------

    def member_gone(self, node: NodeId) -> None:
        """A member has failed or left: it is matched no more, and not forgotten."""
        if node in self._gone:
            return
        self._gone[node] = None
        if len(self._gone) > self._gone_max:
            self._forget_unlisted()
        self._changed_of(node)

    def member_back(self, node: NodeId) -> None:
        """A member that was gone lives."""
        if node in self._gone:
            del self._gone[node]
            self._changed_of(node)
        self.member_moved(node)

    def member_moved(self, node: NodeId) -> None:
        """The record of a member has changed. What an earlier boot of it wanted is void."""
        entry, known = self._table.get(node), self._find(node)
        if entry is not None and known is not None and known.boot < entry.record.boot:
            self._own_copy(node, entry.record.boot)
            self._table.set_interest_version(node, entry.record.boot, 0)

    def _forget_unlisted(self) -> None:
        """Forget what members wanted that have been gone for so long that the table has forgotten them."""
        for node in [node for node in self._gone if self._table.get(node) is None]:
            self.forget(node)
        self._gone_max = max(64, 2 * len(self._gone))

    def forget(self, node: NodeId) -> None:
        """The table has forgotten a member."""
        self._gone.pop(node, None)
        self._asked.pop(node, None)
        known = self._find(node)
        if known is not None:
            self._own_copy(node, known.boot + 1)
            del self._known[node]

    # --- what is known ----------------------------------------------------------------------------------------------

    def version(self, node: NodeId) -> int:
        """How far the interest of a member is known; 0: not at all."""
        known = self._find(node)
        return 0 if known is None else known.version

    def since(self, node: NodeId, boot: int, version: int) -> tuple[Signed, ...]:
        """Return the pieces that lead from a version to what is known; all of them where that is another boot."""
        known = self._find(node)
        if known is None or not known.log:
            return ()
        if boot != known.boot:
            version = 0
        return tuple([signed for number, signed in known.log if number > version])

    def blocks(self, node: NodeId, filter: str) -> bool:
        """Whether a member has said that it has subscribers with the policy `block` to all that a filter matches."""
        known = self._find(node)
        if known is None or not filter:
            return False
        if known.entries.get((filter, "")):
            return True
        if known.blocking is None:
            known.blocking = tuple(
                [
                    SplitFilter(each)
                    for (each, group), blocks in known.entries.items()
                    if blocks and (group or has_wildcards(each))
                ]
            )
        if len(known.blocking) > MAX_BLOCKING:
            return True
        other = SplitFilter(filter)
        return any(each.covers(other) for each in known.blocking)

    def match(self, topic: str) -> Match:
        """Return who wants a topic."""
        plain: dict[NodeId, bool] = {}
        groups: dict[_Key, dict[NodeId, bool]] = {}
        for index, hidden in ((self._base.index, self._hidden), (self._index, {})):
            for wanted in index.trie.match(topic):
                into = groups.setdefault((wanted.group, wanted.filter), {}) if wanted.group else plain
                self._add(wanted.nodes, hidden, into)
        return Match(plain, tuple((*key, nodes) for key, nodes in groups.items() if nodes))

    def _add(self, nodes: dict[NodeId, bool], hidden: dict[NodeId, None], into: dict[NodeId, bool]) -> None:
        for node, blocks in nodes.items():
            if node not in hidden and node not in self._gone:
                into[node] = into.get(node, False) or blocks

    def _find(self, node: NodeId) -> _Known | None:
        known = self._known.get(node)
        if known is not None or node in self._hidden:
            return known
        return self._base.known.get(node)

    def _changed(self, filter: str) -> None:
        self.on_change(None if has_wildcards(filter) else filter)

    def _changed_of(self, node: NodeId) -> None:
        known = self._find(node)
        if known is not None:
            for filter, _ in known.entries:
                self._changed(filter)
                if has_wildcards(filter):
                    return


def _check_entries(piece: InterestPiece) -> None:
    """Raises `InvalidTopic`."""
    entry: InterestEntry
    for entry in piece.added:
        check_filter(entry.filter)
        if entry.group:
            check_group(entry.group)


def _ignore(topic: str | None) -> None:
    """What `on_change` does until someone listens."""
