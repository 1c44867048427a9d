"""What this node's subscribers want, as others need to know it: aggregated, and told in signed, versioned differences.

Equal filters are one, and a filter that another one covers is not told. Above a number of filters siblings are told as
one coarser filter: what comes in vain is then dropped at this node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.topics import REPLY_PREFIX
from quicbus.wire.node_frames import InterestEntry, InterestPiece
from quicbus_broker.mesh.interest.aggregate import Aggregate
from quicbus_broker.mesh.interest.coarsening import coarse_filters
from quicbus_broker.mesh.interest.tracked import TrackedDict
from quicbus_broker.mesh.outputs import NewsLearned, SpreadReached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quicbus.wire.node_frames import Signed
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.signing import Signing

__all__ = ["MAX_GROUPS", "OwnInterest"]

MAX_GROUPS = 50_000
"""Groups cannot be made coarser; further ones are unknown elsewhere, and counted as `unannounced`."""
MAX_TOLD_SIZE = limits.MAX_INTEREST_SIZE // 2
"""Bytes of what is told; further filters and groups are unknown elsewhere. Half, as others count a difference that
replaces all of it on top of what it replaces."""
PIECE_SIZE = 64 * 1024
"""Bytes of filters after which a difference is cut in two: with one entry of the largest size it fits a frame."""
FLUSH_STEPS = 128
"""Of covering and making coarse, in one turn: up to a millisecond."""
_ENTRY_OVERHEAD = 8
_LOG_SLACK = 64
"""Entries that the differences may hold beyond twice what is wanted, before all is told anew."""

_Key = tuple[str, str]


class _Local(msgspec.Struct, gc=False):
    """What local subscriptions ask of one (filter, group)."""

    subscriptions: int = 0
    blocking: int = 0


class OwnInterest:
    """`add` and `discard` as subscriptions come and go, `flush` once a turn.

    `version` is what was told last, `spread_version` what all neighbours have acknowledged of it.
    """

    def __init__(
        self, me: NodeId, boot: int, signing: Signing, config: MeshConfig, table: MemberTable | None = None
    ) -> None:
        """`table`: where the own version is noted, since tables are compared by it."""
        self.version = 0
        self.spread_version = 0
        self._unannounced = 0
        self._me = me
        self._boot = boot
        self._signing = signing
        self._config = config
        self._table = table
        self._local: dict[_Key, _Local] = TrackedDict()
        self._aggregate = Aggregate()
        self._plain = 0
        self._groups: dict[_Key, bool] = TrackedDict()
        self._told: dict[_Key, bool] = TrackedDict()
        self._told_size = 0
        self._left_out: dict[_Key, None] = {}
        """What is wanted and not told: there is no room for it."""
        self._groups_changed: dict[_Key, None] = {}
        self._coarse: dict[str, None] = {}
        self._is_coarsening = False
        self._log: list[tuple[int, Signed]] = []
        self._log_entries = 0
        self._acknowledged: dict[NodeId, int] = {}

    @property
    def unannounced(self) -> int:
        """Groups and filters that others are not told of."""
        return self._unannounced + len(self._left_out)

    @property
    def is_busy(self) -> bool:
        """Whether `flush` left something to do: covering many filters, or making them coarse."""
        return self._aggregate.is_busy

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def add(self, filter: str, group: str, blocks: bool) -> None:
        """A subscription begins; `group` is empty for none. Reply topics are found without being told."""
        if filter.startswith(REPLY_PREFIX):
            return
        key = (filter, group)
        local = self._local.get(key)
        if local is None:
            local = self._local[key] = _Local()
            self._plain += not group
        before = local.blocking > 0
        local.subscriptions += 1
        local.blocking += blocks
        if local.subscriptions == 1 or before != (local.blocking > 0):
            self._set(key, local.blocking > 0)

    def discard(self, filter: str, group: str, blocks: bool) -> None:
        """A subscription that was added has ended."""
        key = (filter, group)
        local = self._local.get(key)
        if local is None:
            return
        before = local.blocking > 0
        local.subscriptions -= 1
        local.blocking -= blocks
        if not local.subscriptions:
            del self._local[key]
            self._plain -= not group
            self._set(key, None)
        elif before != (local.blocking > 0):
            self._set(key, local.blocking > 0)

    def flush(self, now: float, outputs: list[Output]) -> None:
        """Tell what has changed since the last time, if anything. While `is_busy`, flush again in the next turn."""
        self._keep_few()
        changed = {(filter, ""): None for filter in self._aggregate.take_changed()} | self._groups_changed
        if not changed:
            return
        added: list[InterestEntry] = []
        removed: list[InterestEntry] = []
        left_out, self._left_out = self._left_out, {}
        for key in changed | left_out:
            wanted, told = self._wanted(key), self._told.get(key)
            if wanted == told:
                continue
            if told is not None:
                del self._told[key]
                self._told_size -= _size_of(key)
                removed.append(InterestEntry(*key, told))
            if wanted is None:
                continue
            if self._told_size + _size_of(key) > MAX_TOLD_SIZE:
                self._left_out[key] = None
                continue
            self._told[key] = wanted
            self._told_size += _size_of(key)
            added.append(InterestEntry(*key, wanted))
        self._groups_changed.clear()
        if added or removed:
            self._tell(added, removed, outputs)

    # --- who knows it -----------------------------------------------------------------------------------------------

    def since(self, node: NodeId, boot: int, version: int) -> tuple[Signed, ...]:
        """Return what leads from this version of this boot to the present one; `node` is this one."""
        if boot != self._boot:
            version = 0
        return _since(self._log, version)

    def neighbor_up(self, node: NodeId) -> None:
        """A neighbour that has acknowledged nothing yet."""
        self._acknowledged[node] = 0
        self.spread_version = min(self.spread_version, 0)

    def neighbor_down(self, node: NodeId, outputs: list[Output]) -> None:
        self._acknowledged.pop(node, None)
        self._note_spread(outputs)

    def acknowledged(self, node: NodeId, version: int, outputs: list[Output]) -> None:
        """A neighbour knows the own interest up to this version."""
        before = self._acknowledged.get(node)
        if before is not None and before < version <= self.version:
            self._acknowledged[node] = version
            self._note_spread(outputs)

    def _note_spread(self, outputs: list[Output]) -> None:
        spread = min(self._acknowledged.values(), default=self.version)
        if spread > self.spread_version:
            self.spread_version = spread
            outputs.append(SpreadReached(spread))

    # --- aggregation ------------------------------------------------------------------------------------------------

    def _wanted(self, key: _Key) -> bool | None:
        return self._groups.get(key) if key[1] else self._aggregate.wanted.get(key[0])

    def _set(self, key: _Key, blocks: bool | None) -> None:
        """Set what the local subscriptions ask for; `None`: nothing."""
        filter, group = key
        if not group:
            self._aggregate.set(filter, self._with_coarse(filter, blocks))
            if blocks is None:
                self._drop_empty_coarse()
            return
        if blocks is not None:
            if key not in self._groups and len(self._groups) >= MAX_GROUPS:
                self._unannounced += 1
                return
            self._groups[key] = blocks
        elif self._groups.pop(key, None) is None:
            self._unannounced -= 1
        self._groups_changed[key] = None

    def _with_coarse(self, filter: str, blocks: bool | None) -> bool | None:
        return False if blocks is None and filter in self._coarse else blocks

    def _keep_few(self) -> None:
        """Bound what is told. What was made coarse stays so until there is half the room again."""
        self._aggregate.work(FLUSH_STEPS)
        self._drop_empty_coarse()
        if self._is_coarsening or self._aggregate.is_busy:
            return
        most = self._config.max_interest
        if (self._coarse and self._plain <= most // 2) or len(self._aggregate.wanted) > most:
            self._is_coarsening = True
            self._aggregate.begin(self._coarsen(most))
            self._aggregate.work(FLUSH_STEPS)

    def _coarsen(self, most: int) -> Iterator[None]:
        if self._plain <= most // 2:
            for filter in list(self._coarse):
                yield
                if filter in self._coarse:
                    self._uncoarsen(filter)
        elif len(self._aggregate.wanted) > most:
            # A quarter below, so that not every further filter does this again.
            for filter in (yield from coarse_filters(list(self._aggregate.wanted), most - most // 4)):
                yield from self._make_coarse(filter)
        self._is_coarsening = False

    def _make_coarse(self, filter: str) -> Iterator[None]:
        wanted = self._aggregate.wanted
        blocks, covers = wanted.get(filter, False), False
        for each in self._aggregate.walk_below(filter):
            yield
            covers = covers or each is not None
            blocks = blocks or (each is not None and wanted.get(each, False))
        if covers:  # it may all have gone meanwhile
            self._coarse[filter] = None
            self._aggregate.set(filter, blocks)

    def _drop_empty_coarse(self) -> None:
        """A coarse filter that nothing is below any more would bring messages for nobody."""
        for filter in self._aggregate.take_childless():
            if filter in self._coarse:
                self._uncoarsen(filter)

    def _uncoarsen(self, filter: str) -> None:
        del self._coarse[filter]
        local = self._local.get((filter, ""))
        self._aggregate.set(filter, None if local is None else local.blocking > 0)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell(self, added: list[InterestEntry], removed: list[InterestEntry], outputs: list[Output]) -> None:
        is_reset = not self._log or self._log_entries + len(added) + len(removed) > 2 * len(self._told) + _LOG_SLACK
        if is_reset:
            self._log.clear()
            self._log_entries = 0
            added, removed = [InterestEntry(*key, blocks) for key, blocks in self._told.items()], []
        pieces = [self._seal(*part, is_reset and not index) for index, part in enumerate(_parts(removed, added))]
        if self._table is not None:
            self._table.set_interest_version(self._me, self._boot, self.version)
        outputs.append(NewsLearned(None, interest=tuple(pieces)))
        self._note_spread(outputs)

    def _seal(self, removed: Sequence[InterestEntry], added: Sequence[InterestEntry], is_reset: bool) -> Signed:
        self.version += 1
        piece = InterestPiece(
            node=self._me,
            boot=self._boot,
            base=self.version - 1,
            version=self.version,
            reset=is_reset,
            added=tuple(added),
            removed=tuple(removed),
        )
        signed = self._signing.seal_interest(piece)
        self._log.append((self.version, signed))
        self._log_entries += len(added) + len(removed)
        return signed


def _size_of(key: _Key) -> int:
    return len(key[0].encode()) + len(key[1].encode())


def _since(log: Sequence[tuple[int, Signed]], version: int) -> tuple[Signed, ...]:
    """Return the pieces of a log, which begins with a reset and has no gaps, that lead on from a version."""
    if not log:
        return ()
    return tuple([signed for _, signed in log[max(0, version + 1 - log[0][0]) :]])


def _parts(
    removed: Sequence[InterestEntry], added: Sequence[InterestEntry]
) -> list[tuple[list[InterestEntry], list[InterestEntry]]]:
    """Cut a difference where it gets too large for a frame; there is at least one part."""
    parts: list[tuple[list[InterestEntry], list[InterestEntry]]] = [([], [])]
    size = 0
    for index, entries in enumerate((removed, added)):
        for entry in entries:
            if size >= PIECE_SIZE:
                parts.append(([], []))
                size = 0
            parts[-1][index].append(entry)
            size += len(entry.filter.encode()) + len(entry.group.encode()) + _ENTRY_OVERHEAD
    return parts
