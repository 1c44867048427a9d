"""Broadcast: bundles are pushed along a tree of eager links, announced on the others, and asked for where missing.

PlumTree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, 2007), over numbered bundles. The tree grows out of
what happens: the link that brings a bundle first stays eager, a duplicate prunes its link, a bundle that was announced
and does not come grafts the link that announced it.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from quicbus.wire.bundles import EVERYONE, Bundle
from quicbus.wire.node_frames import Graft, IHave, Prune
from quicbus_broker.mesh.messages.bundle_store import BundleStore
from quicbus_broker.mesh.messages.dedup import SeenWindow
from quicbus_broker.mesh.messages.heads import Heads
from quicbus_broker.mesh.messages.missing import MissingBundles
from quicbus_broker.mesh.outputs import Misbehaved, SendBundle, SendFrame

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.messages.bundle_store import BundleId, Stored
    from quicbus_broker.mesh.messages.missing import Missing
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.signing import Signing

__all__ = ["Broadcast", "BroadcastCounters"]

EAGER_AT_FIRST = 4
"""A new link is eager where a node has fewer eager ones than this. All of them would be pruned again, one duplicate
each: the first broadcast alone would come over every link."""
PRUNE_REPEAT_S = 1.0
"""A lazy link that still pushes is pruned again so often: Prune and Graft may cross."""
SHORTER_HOPS = 5
"""A way must be so much shorter before it replaces the faster one. PlumTree's threshold; iroh-gossip has 7."""
GRAFT_JITTER = 3.0
"""The longest wait for an announced bundle, in graft time-outs."""
MAX_GRAFTS = 6
"""So often a bundle is asked for; a further announcement begins anew."""
MAX_COPIES = MAX_GRAFTS + 2
"""So often one node may bring the same bundle: pushed, and once for each Graft, which a slow link may bring late, all
answers together; and one for what nobody has thought of."""
IDS_PER_FRAME = 4096
"""An id has about 40 bytes: under `limits.MAX_CONTROL_FRAME_SIZE`."""


class BroadcastCounters:
    """All count bundles: `sent` and `relayed` once for each neighbour, `dropped` by reason."""

    __slots__ = ("dropped", "duplicates", "received", "relayed", "repaired", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.relayed = 0
        self.received = 0
        self.duplicates = 0
        self.repaired = 0
        self.dropped: Counter[str] = Counter()


class Broadcast:
    """One node's part in the broadcasts of all."""

    def __init__(
        self,
        me: NodeId,
        config: MeshConfig,
        signing: Signing,
        rng: random.Random,
        boot_of: Callable[[NodeId], int | None] = lambda origin: 0,
    ) -> None:
        """`boot_of` returns the boot in the record of a member, `None` for who is none."""
        self.counters = BroadcastCounters()
        self.store = BundleStore(config.retention_s, config.retention_size)
        self._me = me
        self._config = config
        self._signing = signing
        self._rng = rng
        self._boot_of = boot_of
        self.heads_told = Heads(config.retention_s)
        """What this node was told while it joined."""
        self.on_head_dropped: Callable[[NodeId, int], None] = _ignore
        """Called with an origin and its boot, of which any number may come from here on."""
        self._eager: dict[NodeId, None] = {}
        self._lazy: dict[NodeId, float] = {}
        """With the time at which it was pruned last."""
        self._seen: dict[NodeId, SeenWindow] = {}
        self._announce: dict[BundleId, tuple[NodeId, ...]] = {}
        """With the neighbours that are known to have it."""
        self._announce_at = math.inf
        self._owed: dict[NodeId, None] = {}
        """Neighbours that became eager while something waited to be announced."""
        self._greet: dict[NodeId, None] = {}
        self._missing = MissingBundles()

    # --- neighbours ---

    @property
    def eager(self) -> tuple[NodeId, ...]:
        """Neighbours to which bundles are pushed."""
        return tuple(self._eager)

    @property
    def lazy(self) -> tuple[NodeId, ...]:
        """Neighbours to which bundles are announced."""
        return tuple(self._lazy)

    def neighbor_up(self, node: NodeId) -> None:
        """A link is open. What was broadcast lately is announced with the next tick, which is due at once."""
        if node in self._eager or node in self._lazy:
            return
        if len(self._eager) < EAGER_AT_FIRST:
            self._eager[node] = None
        else:
            self._lazy[node] = -math.inf
        if len(self.store):
            self._greet[node] = None

    def neighbor_down(self, node: NodeId) -> None:
        self._eager.pop(node, None)
        self._lazy.pop(node, None)
        self._greet.pop(node, None)

    def _make_eager(self, node: NodeId) -> None:
        if node in self._lazy:
            del self._lazy[node]
            self._eager[node] = None
            if self._announce:
                # It was passed over when these were pushed, and must still hear of them.
                self._owed[node] = None

    # --- bundles ---

    def publish(self, bundle: Bundle, now: float, outputs: list[Output]) -> None:
        """Broadcast a bundle of this node: numbered without holes, signed, with all hops left."""
        self._window(bundle.origin, bundle.boot, now).add(bundle.number)
        self.store.put(bundle.id, bundle, self._me, now)
        outputs.extend([SendBundle(node, bundle) for node in self._eager])
        self.counters.sent += len(self._eager)
        self._announce_later(bundle.id, (), now)

    def on_bundle(self, node: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> bool:
        """Take a bundle that a neighbour sent, and pass it on. Returns whether it is new: only then it counts."""
        id = bundle.id
        stored = self.store.get(id)
        if stored is not None and stored.is_same(bundle):
            self._on_duplicate(node, stored, now, outputs)
            return False
        if not self._is_genuine(node, bundle, now, outputs) or not self._is_new(node, bundle, now, outputs):
            return False
        self._window(bundle.origin, bundle.boot, now).add(bundle.number)
        if self.heads_told:
            self.heads_told.confirm(id)
        self.counters.received += 1
        missing = self._missing.end(id)
        if missing is not None and missing.grafts:
            self.counters.repaired += 1
        self.store.put(id, bundle, node, now)
        self._make_eager(node)
        self._pass_on(node, bundle, missing, now, outputs)
        return True

    def _is_genuine(self, node: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> bool:
        if bundle.target != EVERYONE:
            self._refuse(node, "misaddressed", outputs)
            return False
        if not self._is_member(bundle.origin):
            # Its record is on its way, on another stream: the bundle is asked for again once that is here.
            self.counters.dropped["unknown_origin"] += 1
            self._miss(bundle.id, node, now)
            return False
        if not self._signing.check_bundle(bundle.origin, bundle.signed, bundle.signature):
            self._refuse(node, "forged", outputs)
            return False
        return True

    def _is_new(self, node: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> bool:
        window = self._seen.get(bundle.origin)
        if window is None or bundle.boot > window.boot:
            if bundle.boot >= (self._boot_of(bundle.origin) or 0):
                return True
            # Nothing tells whether it was seen: this node is younger than that boot, or has forgotten it.
            self.counters.dropped["old_boot"] += 1
            return False
        if bundle.boot < window.boot:
            self.counters.dropped["old_boot"] += 1
            if window.since is None:
                window.since = now
            elif now - window.since > self._config.retention_s:
                outputs.append(Misbehaved(node, "replayed a bundle of an old boot"))
            return False
        if bundle.number in window and not self._is_head_doubted(node, bundle.id, now):
            # Older than what is kept, so that nobody who keeps to the retention time can have it.
            self.counters.dropped["replayed"] += 1
            self._prune(node, now, outputs)
            return False
        return True

    def _is_head_doubted(self, node: NodeId, id: BundleId, now: float) -> bool:
        """Whether what was taken for seen is taken for news from here on: a head that was told turned out wrong."""
        if not self.heads_told or not self.heads_told.doubt(id, node, len(self._eager) + len(self._lazy), now):
            return False
        self.counters.dropped["head_doubted"] += 1
        self._seen[id[0]] = SeenWindow(id[1], id[2] - 1, now)
        self.on_head_dropped(id[0], id[1])
        return True

    def _is_member(self, origin: NodeId) -> bool:
        """Whether its signature can be checked and it is not forgotten: what was seen of it is forgotten with it."""
        return self._signing.knows(origin) and self._boot_of(origin) is not None

    def _refuse(self, node: NodeId, why: str, outputs: list[Output]) -> None:
        self.counters.dropped[why] += 1
        outputs.append(Misbehaved(node, f"{why} bundle"))

    def _on_duplicate(self, node: NodeId, stored: Stored, now: float, outputs: list[Output]) -> None:
        self.counters.duplicates += 1
        if stored.copies is None:
            stored.copies = {}
        copies = stored.copies[node] = stored.copies.get(node, 0) + 1
        if copies > MAX_COPIES:
            outputs.append(Misbehaved(node, "replayed a bundle"))
        self._note_holder(stored.bundle.id, node)
        self._prune(node, now, outputs)

    def _prune(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        if node in self._eager:
            if len(self._eager) == 1:
                # PlumTree would prune it too: two that prune each other's last way leave a node to repairs alone.
                return
            del self._eager[node]
        elif now - self._lazy.get(node, now) < PRUNE_REPEAT_S:
            return
        self._lazy[node] = now
        outputs.append(SendFrame(node, Prune()))

    def _pass_on(
        self, node: NodeId, bundle: Bundle, missing: Missing | None, now: float, outputs: list[Output]
    ) -> None:
        """Push a new bundle to the eager neighbours but those that have it, and announce it to the others later."""
        if not bundle.hops:
            self.counters.dropped["hop_limit"] += 1
            return
        holders = (node,) if missing is None else (node, *missing.sources)
        relayed = _relayed(bundle, self._hops_on(bundle), 0)
        count = 0
        for neighbor in self._eager:
            if neighbor not in holders:
                outputs.append(SendBundle(neighbor, relayed))
                count += 1
        self.counters.relayed += count
        self._announce_later(bundle.id, holders, now)

    # --- announcing ---

    def _announce_later(self, id: BundleId, holders: tuple[NodeId, ...], now: float) -> None:
        if not self._announce:
            # Jitter: of two neighbours that both have a bundle one then tells the other first, who need not answer.
            self._announce_at = now + self._config.announce_interval_s * self._rng.uniform(0.5, 1.0)
        self._announce[id] = holders

    def _note_holder(self, id: BundleId, node: NodeId) -> None:
        holders = self._announce.get(id)
        if holders is not None and node not in holders:
            self._announce[id] = (*holders, node)

    def _flush_announcements(self, outputs: list[Output]) -> None:
        ids = tuple(self._announce)
        known: dict[NodeId, dict[BundleId, None]] = {}
        for id, holders in self._announce.items():
            for node in holders:
                known.setdefault(node, {})[id] = None
        self._announce = {}
        self._announce_at = math.inf
        frames = self._ihave_frames(ids)
        owed, self._owed = self._owed, {}
        for node in (*self._lazy, *[each for each in owed if each in self._eager]):
            theirs = known.get(node)
            own = frames if theirs is None else self._ihave_frames(tuple([id for id in ids if id not in theirs]))
            outputs.extend([SendFrame(node, frame) for frame in own])

    def _greet_neighbors(self, outputs: list[Output]) -> None:
        """Announce what is kept to new neighbours: a partition that heals is healed for what was just published too."""
        frames = self._ihave_frames(tuple(self.store))
        for node in self._greet:
            outputs.extend([SendFrame(node, frame) for frame in frames])
        self._greet = {}

    def _ihave_frames(self, ids: tuple[BundleId, ...]) -> list[IHave]:
        return [IHave(bundles=piece, hops=tuple(map(self._hops_left, piece))) for piece in _pieces(ids)]

    def _hops_left(self, id: BundleId) -> int:
        stored = self.store.get(id)
        return 0 if stored is None else self._hops_on(stored.bundle)

    def _hops_on(self, bundle: Bundle) -> int:
        """Return the hop limit with which a bundle leaves this node."""
        return bundle.hops if bundle.origin == self._me else min(bundle.hops, self._config.max_hops) - 1

    # --- asking ---

    def on_ihave(self, node: NodeId, frame: IHave, now: float, outputs: list[Output]) -> None:
        """A neighbour announces bundles: what does not come by itself is asked for."""
        for index, id in enumerate(frame.bundles):
            if not self._is_seen(id) or self._is_head_doubted(node, id, now):
                self._miss(id, node, now)
                continue
            if self._announce:
                self._note_holder(id, node)
            if node in self._lazy and index < len(frame.hops):
                self._shorten(node, id, frame.hops[index], now, outputs)

    def _shorten(self, node: NodeId, id: BundleId, hops: int, now: float, outputs: list[Output]) -> None:
        """Take bundles from `node` in place of the neighbour that brought this one, if the way is so much shorter.

        PlumTree, section 3.8. The tree of the first broadcast follows the fastest links, whatever their number.
        """
        stored = self.store.get(id)
        if stored is None or hops < stored.bundle.hops + SHORTER_HOPS or stored.source not in self._eager:
            return
        self._make_eager(node)
        outputs.append(SendFrame(node, Graft(bundles=())))
        self._prune(stored.source, now, outputs)

    def _is_seen(self, id: BundleId) -> bool:
        window = self._seen.get(id[0])
        if window is not None and id[1] <= window.boot:
            return id[1] < window.boot or id[2] in window
        return id[1] < (self._boot_of(id[0]) or 0)

    def _miss(self, id: BundleId, node: NodeId, now: float) -> None:
        missing = self._missing.get(id)
        if missing is None:
            missing = self._missing.begin(id, node, now)
            if missing is None:
                self.counters.dropped["too_many_missing"] += 1
                return
            self._graft_later(id, missing, now)
        missing.sources[node] = None

    def _graft_later(self, id: BundleId, missing: Missing, now: float) -> None:
        # Jitter: where the tree is cut, whoever asks first gets it and pushes it on, and the others need not ask. Many
        # that ask at once make as many loops, whose duplicates then prune too much again.
        self._missing.ask_at(id, missing, now + self._config.graft_timeout_s * self._rng.uniform(1.0, GRAFT_JITTER))

    def _graft_due(self, now: float, outputs: list[Output]) -> None:
        for id, missing in self._missing.due(now):
            source = self._next_source(missing)
            if self._is_seen(id) or source is None or missing.grafts >= MAX_GRAFTS:
                self._missing.end(id)
            elif self._is_member(id[0]):
                self._graft(source, now, outputs)
            else:
                missing.grafts += 1
                self._graft_later(id, missing, now)

    def _graft(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """Ask one neighbour for all that it has announced and that has had its time to come."""
        ids = []
        for id, missing in self._missing.items():
            if missing.since + self._config.graft_timeout_s <= now and node in missing.sources:
                ids.append(id)
                missing.grafts += 1
                missing.since = now
                self._graft_later(id, missing, now)
        self._make_eager(node)
        outputs.extend([SendFrame(node, Graft(bundles=piece)) for piece in _pieces(tuple(ids))])

    def _next_source(self, missing: Missing) -> NodeId | None:
        """Return the next neighbour to ask, each in turn."""
        while missing.sources:
            node = next(iter(missing.sources))
            del missing.sources[node]
            if node in self._eager or node in self._lazy:
                missing.sources[node] = None
                return node
        return None

    def on_graft(self, node: NodeId, frame: Graft, now: float, outputs: list[Output]) -> None:
        """A neighbour asks for bundles, and for further ones at once."""
        self._make_eager(node)
        for id in frame.bundles:
            stored = self.store.get(id)
            if stored is None or not stored.bundle.hops:
                continue
            if stored.grafts is None:
                stored.grafts = {}
            grafts = stored.grafts[node] = stored.grafts.get(node, 0) + 1
            if grafts > MAX_GRAFTS:
                # A link that brings nothing in time looks like this; what was sent is on its way.
                self.counters.dropped["asked_again"] += 1
                continue
            outputs.append(SendBundle(node, self._copy_of(stored, now)))

    def _copy_of(self, stored: Stored, now: float) -> Bundle:
        bundle = stored.bundle
        if bundle.origin == self._me:
            self.counters.sent += 1
        else:
            self.counters.relayed += 1
        return _relayed(bundle, self._hops_on(bundle), round(1000 * (now - stored.at)))

    def on_prune(self, node: NodeId, frame: Prune, now: float, outputs: list[Output]) -> None:
        """A neighbour gets broadcasts another way: from now on they are only announced to it."""
        if node not in self._eager:
            return
        del self._eager[node]
        if not self._eager and self._lazy:
            # A way must be left: the longest announced to is asked to push again.
            other = next(iter(self._lazy))
            self._make_eager(other)
            outputs.append(SendFrame(other, Graft(bundles=())))
        self._lazy[node] = now

    # --- heads ---

    def heads(self) -> dict[NodeId, tuple[int, int]]:
        """Return boot and highest number of the bundles of each origin, this node included."""
        return {origin: (window.boot, window.highest) for origin, window in self._seen.items()}

    def set_head(self, origin: NodeId, boot: int, bundle: int) -> None:
        """Take nothing of an origin at or below this number: it was broadcast before this node joined."""
        window = self._seen.get(origin)
        if window is None or window.boot < boot:
            self._seen[origin] = SeenWindow(boot, bundle, None)
        elif window.boot == boot:
            window.raise_to(bundle)

    def forget(self, origin: NodeId) -> None:
        """The node is no longer a member."""
        self._seen.pop(origin, None)
        self.heads_told.forget(origin)

    def _window(self, origin: NodeId, boot: int, now: float) -> SeenWindow:
        window = self._seen.get(origin)
        if window is None or window.boot < boot:
            window = self._seen[origin] = SeenWindow(boot, 0, now)
        return window

    # --- time ---

    def next_timer(self) -> float:
        if self._greet:
            return -math.inf
        return min(self._announce_at, self._missing.next_due, self.store.next_timer())

    def tick(self, now: float, outputs: list[Output]) -> None:
        if self._greet:
            self._greet_neighbors(outputs)
        if self._announce_at <= now:
            self._flush_announcements(outputs)
        if self._missing.next_due <= now:
            self._graft_due(now, outputs)
        if self.store.next_timer() <= now:
            self.store.expire(now)


def _ignore(origin: NodeId, boot: int) -> None:
    """What `on_head_dropped` does until someone listens."""


def _relayed(bundle: Bundle, hops: int, age_ms: int) -> Bundle:
    return Bundle(
        bundle.kind,
        bundle.origin,
        bundle.boot,
        bundle.number,
        bundle.target,
        bundle.target_boot,
        bundle.batches,
        hops,
        bundle.age_ms + age_ms,
        bundle.signed,
        bundle.signature,
    )


def _pieces(ids: tuple[BundleId, ...]) -> list[tuple[BundleId, ...]]:
    return [ids[start : start + IDS_PER_FRAME] for start in range(0, len(ids), IDS_PER_FRAME)]
