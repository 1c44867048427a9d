"""Messages through the mesh: numbered and bundled on their way out, brought into order on their way in.

What many nodes want is broadcast, one bundle for all batches of a turn. What few want goes to each of them: over its
connection, through a node that has one, or once one has been dialed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec
from msgspec.structs import replace

from quicbus import limits
from quicbus.wire.batch import peek_body
from quicbus.wire.bundles import (
    EVERYONE,
    KIND_BROADCAST,
    KIND_DIRECT,
    KIND_RELAY,
    KIND_RETURNED,
    Bundle,
    BundleBatch,
    encode_bundle,
)
from quicbus.wire.node_frames import Head
from quicbus_broker.mesh.messages.broadcast import Broadcast
from quicbus_broker.mesh.messages.numbering import Numbering
from quicbus_broker.mesh.messages.sequencer import Sequencer
from quicbus_broker.mesh.messages.shares import SentShares, ShareAltered, ShareUnknown
from quicbus_broker.mesh.messages.waiting import Waiting
from quicbus_broker.mesh.outputs import Misbehaved, Returned, SendBundle, SendFrame

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from quicbus.wire.node_frames import Skipped
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.interest.forwarding import MeshPlan
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.messages.numbering import After
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.signing import Signing

__all__ = ["Publication", "Traffic", "Ways"]

BUNDLE_SIZE = 512 * 1024
"""Bytes of bodies after which a bundle is sealed before its turn ends: it travels whole, on one stream."""
_RELAY_HOPS = 2
"""What a node that dials nobody has for one that nobody dials goes to a neighbour, and on to one linked to it."""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A batch of a client of this node, for others. `id` is the `sequence` of its envelope."""

    id: int
    publisher: str
    topic: bytes
    body: bytes
    plan: MeshPlan
    first: int = 0
    age_ms: int = 0
    """How long it has waited in queues of nodes."""


class Ways(msgspec.Struct, frozen=True):
    """How nodes can be reached."""

    is_connected: Callable[[NodeId], bool]
    want_contact: Callable[[NodeId, float, list[Output]], bool]
    """Dial a node; False where that is impossible."""
    touch: Callable[[NodeId, float], None]
    """A connection is being used."""
    neighbors: Callable[[], Sequence[NodeId]] = tuple


class Traffic:
    """`dropped` counts messages by reason."""

    def __init__(
        self,
        me: NodeId,
        boot: int,
        table: MemberTable,
        ways: Ways,
        signing: Signing,
        config: MeshConfig,
        rng: random.Random,
    ) -> None:
        self.broadcast = Broadcast(me, config, signing, rng, self._boot_of)
        self.numbering = Numbering()
        self.sequencer = Sequencer(me, config, boot)
        self.broadcast.on_head_dropped = self.sequencer.reopen
        self.dropped: Counter[str] = Counter()
        self.sent_direct = 0
        self.received_direct = 0
        self.relayed = 0
        self._me = me
        self._boot = boot
        self._table = table
        self._ways = ways
        self._signing = signing
        self._config = config
        self._waiting = Waiting(config.dial_timeout_s)
        self._shares = SentShares()
        self._broadcasts = 0
        """Numbered without holes: what is missing of them is noticed."""
        self._number = 0
        """Of direct bundles; those that are broadcast have numbers of their own, without holes."""
        self._gathered: list[BundleBatch] = []
        self._gathered_size = 0

    @property
    def shares_size(self) -> int:
        """Bytes of shares that may come back."""
        return self._shares.size

    # --- out ---

    def publish(self, publication: Publication, now: float, outputs: list[Output]) -> None:
        """Send a batch to the nodes that its plan names; a broadcast leaves with `seal`."""
        plan = publication.plan
        lane = crc32(publication.topic) % limits.LANES
        if plan.is_broadcast:
            after = self.numbering.way_changed(publication.topic, lane, EVERYONE, now)
            batch = self._batch(publication, lane, self.numbering.next_broadcast(lane), after)
            self._gathered.append(batch)
            self._gathered_size += len(batch.body)
            if self._gathered_size >= BUNDLE_SIZE:
                self.seal(now, outputs)
        elif plan.direct:
            after = self.numbering.way_changed(publication.topic, lane, plan.direct, now)
            for node in plan.direct:
                self._send_direct(publication, node, lane, after, plan.waits, now, outputs)
        for group in plan.groups:
            picked = group.pick()
            if picked is not None:
                self._send_direct(publication, picked, lane, (), plan.waits, now, outputs, group.group, group.filter)

    def send_share(
        self, publication: Publication, node: NodeId, group: str, filter: str, now: float, outputs: list[Output]
    ) -> None:
        """Send a batch to one member of a group at `node`."""
        lane = crc32(publication.topic) % limits.LANES
        self._send_direct(publication, node, lane, (), False, now, outputs, group, filter)

    def seal(self, now: float, outputs: list[Output]) -> None:
        """Broadcast what was gathered, as one bundle under one signature."""
        if not self._gathered:
            return
        batches, self._gathered = tuple(self._gathered), []
        self._gathered_size = 0
        self._broadcasts += 1
        number = self._broadcasts
        bundle = Bundle(KIND_BROADCAST, self._me, self._boot, number, EVERYONE, 0, batches, self._config.max_hops)
        signed = encode_bundle(bundle)
        bundle = _sealed(bundle, signed, self._signing.sign_bundle(signed))
        self.broadcast.publish(bundle, now, outputs)

    def give_back(self, origin: NodeId, batch: BundleBatch, age_ms: int, outputs: list[Output]) -> bool:
        """Return the share of a group that has no member here; False where there is no connection for it."""
        if not self._ways.is_connected(origin):
            return False
        self._number += 1
        returned = Bundle(KIND_RETURNED, self._me, self._boot, self._number, origin, 0, (batch,), age_ms=age_ms)
        outputs.append(SendBundle(origin, returned))
        return True

    def _batch(
        self,
        publication: Publication,
        lane: int,
        sequence: int,
        after: After,
        group: str = "",
        filter: str = "",
    ) -> BundleBatch:
        return BundleBatch(
            publication.id,
            lane,
            sequence,
            publication.first,
            publication.publisher,
            publication.body,
            group,
            filter,
            after,
        )

    def _send_direct(
        self,
        publication: Publication,
        node: NodeId,
        lane: int,
        after: After,
        waits: bool,
        now: float,
        outputs: list[Output],
        group: str = "",
        filter: str = "",
    ) -> None:
        entry = self._table.get(node)
        if entry is None:
            self._drop("unreachable", publication.body)
            return
        target_boot = entry.record.boot
        sequence = self.numbering.next_direct(node, target_boot, lane)
        batch = self._batch(publication, lane, sequence, after, group, filter)
        if group:
            self._shares.sent(node, batch, now)
        self._number += 1
        bundle = Bundle(
            KIND_DIRECT, self._me, self._boot, self._number, node, target_boot, (batch,), age_ms=publication.age_ms
        )
        self.sent_direct += 1
        if self._ways.is_connected(node) and node not in self._waiting:
            self._ways.touch(node, now)
            outputs.append(SendBundle(node, bundle, waits))
        elif not self._relay(bundle, entry.record.via, outputs):
            self._wait(bundle, now, outputs)

    def _relay(self, bundle: Bundle, via: tuple[NodeId, ...], outputs: list[Output]) -> bool:
        """Send through a node that has a link to the target: what a third node passes on is signed."""
        through = next((node for node in via if self._ways.is_connected(node)), None)
        if through is None:
            return False
        outputs.append(SendBundle(through, self._signed_relay(bundle)))
        return True

    def _signed_relay(self, bundle: Bundle) -> Bundle:
        relay = Bundle(
            KIND_RELAY,
            bundle.origin,
            bundle.boot,
            bundle.number,
            bundle.target,
            bundle.target_boot,
            bundle.batches,
            _RELAY_HOPS,
            bundle.age_ms,
        )
        signed = encode_bundle(relay)
        return _sealed(relay, signed, self._signing.sign_bundle(signed))

    def _wait(self, bundle: Bundle, now: float, outputs: list[Output]) -> None:
        """Keep a bundle while its target, or a node that has a link to it, is dialed."""
        node = bundle.target
        entry = self._table.get(node)
        ways = (node, *entry.record.via) if entry is not None else (node,)
        if node not in self._waiting and not any(self._ways.want_contact(way, now, outputs) for way in ways):
            if not self._relay(bundle, self._helpers(node), outputs):
                self._waiting.skip(node, bundle)
                self._drop("unreachable", *(batch.body for batch in bundle.batches))
            return
        for dropped in self._waiting.put(node, bundle, now):
            self._drop("unreachable", *(batch.body for batch in dropped.batches))

    def _helpers(self, node: NodeId) -> tuple[NodeId, ...]:
        """Return a neighbour that may reach a node that this one cannot dial: always the same, while they are."""
        neighbors = [each for each in self._ways.neighbors() if self._can_dial(each)]
        return (neighbors[crc32(node) % len(neighbors)],) if neighbors else ()

    def _boot_of(self, node: NodeId) -> int | None:
        entry = self._table.get(node)
        return None if entry is None else entry.record.boot

    def _can_dial(self, node: NodeId) -> bool:
        entry = self._table.get(node)
        return entry is not None and entry.record.mode != "server"

    # --- connections ---

    def connected(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """A connection is open: send what waited for it."""
        skips, bundles = self._waiting.take(node)
        outputs.extend(SendFrame(node, skip) for skip in skips)
        for since, bundle in bundles:
            outputs.append(SendBundle(node, _aged(bundle, now - since)))
        for target in [each for each in self._waiting.nodes() if self._is_via(node, each)]:
            for since, bundle in self._waiting.take_bundles(target):
                relay = bundle if bundle.kind == KIND_RELAY else self._signed_relay(bundle)
                outputs.append(SendBundle(node, _aged(relay, now - since)))

    def _is_via(self, node: NodeId, target: NodeId) -> bool:
        entry = self._table.get(target)
        return entry is not None and node in entry.record.via

    def unreachable(self, node: NodeId) -> None:
        """Dialing a node has failed."""
        for dropped in self._waiting.give_up(node):
            self._drop("unreachable", *(batch.body for batch in dropped.batches))

    def forget(self, node: NodeId) -> None:
        """The node is no longer a member."""
        self._waiting.forget(node)
        self._shares.forget(node)
        self.broadcast.forget(node)
        self.sequencer.forget(node)
        self.numbering.forget(node)

    def member_gone(self, node: NodeId) -> None:
        self._waiting.forget(node)

    def told_head(self, head: Head) -> None:
        """A joining node is told how far an origin has come."""
        self.broadcast.heads_told.told(head)

    def joined(self, now: float) -> None:
        """Take nothing of the origins at or below the numbers that were told."""
        for head in self.broadcast.heads_told.begin(now, self._boot_of):
            self.broadcast.set_head(head.origin, head.boot, head.bundle)
            self.sequencer.set_head(head)

    def heads(self) -> tuple[Head, ...]:
        """Return how far the broadcasts of all origins have come, for a node that joins."""
        bundles = self.broadcast.heads()
        others = [
            Head(each.origin, each.boot, bundles[each.origin][1], each.lanes)
            for each in self.sequencer.heads()
            if each.origin in bundles and bundles[each.origin][0] == each.boot
        ]
        return (Head(self._me, self._boot, self._broadcasts, self.numbering.lanes()), *others)

    # --- in ---

    def on_bundle(self, node: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> None:
        """Take a bundle that `node` sent."""
        if bundle.kind == KIND_BROADCAST:
            if self.broadcast.on_bundle(node, bundle, now, outputs):
                # A node that is set to more hops may have sent it.
                self._arrive(bundle, EVERYONE, max(1, self._config.max_hops - bundle.hops + 1), now, outputs)
        elif bundle.kind == KIND_DIRECT:
            if bundle.origin != node or bundle.target != self._me:
                outputs.append(Misbehaved(node, "a direct bundle of, or for, another node"))
            else:
                self._ways.touch(node, now)
                self._take_direct(bundle, 1, now, outputs)
        elif bundle.kind == KIND_RELAY:
            self._on_relay(node, bundle, now, outputs)
        elif bundle.origin != node or bundle.target != self._me:
            outputs.append(Misbehaved(node, "returned by, or to, another node"))
        else:
            for batch in bundle.batches:
                self._take_back(node, batch, bundle.age_ms, outputs)

    def _take_back(self, node: NodeId, returned: BundleBatch, age_ms: int, outputs: list[Output]) -> None:
        try:
            sent = self._shares.take_back(node, returned)
        except ShareUnknown:
            self._drop("unknown_share", returned.body)
        except ShareAltered:
            self._drop("altered_share", returned.body)
            outputs.append(Misbehaved(node, "gave back a share with other messages than it was sent"))
        else:
            outputs.append(Returned(node, sent, age_ms))

    def on_skipped(self, node: NodeId, skipped: Skipped, now: float, outputs: list[Output]) -> None:
        if skipped.boot == self._boot:
            self.dropped["dropped_at_origin"] += skipped.messages
            entry = self._table.get(node)
            boot = 0 if entry is None else entry.record.boot
            self.sequencer.skipped(node, skipped.lane, skipped.first, skipped.last, now, outputs, boot)

    def _on_relay(self, node: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> None:
        boot = self._boot_of(bundle.origin)
        if boot is None or not self._signing.knows(bundle.origin):
            self._drop("unknown_origin", *(batch.body for batch in bundle.batches))
        elif not self._signing.check_bundle(bundle.origin, bundle.signed, bundle.signature):
            self._drop("forged", *(batch.body for batch in bundle.batches))
            outputs.append(Misbehaved(node, "a forged relay"))
        elif bundle.boot < boot:
            self._drop("old_boot", *(batch.body for batch in bundle.batches))
        elif bundle.target == self._me:
            self._take_direct(bundle, max(1, _RELAY_HOPS - bundle.hops + 1), now, outputs)
        elif not self._pass_on(node, bundle, now, outputs):
            self._drop("no_route", *(batch.body for batch in bundle.batches))

    def _pass_on(self, source: NodeId, bundle: Bundle, now: float, outputs: list[Output]) -> bool:
        """Send a relay on, to its target or to a node that has a link to it: now, or once that is dialed."""
        if not bundle.hops:
            return False
        entry = self._table.get(bundle.target)
        via = entry.record.via if entry is not None and bundle.hops > 1 else ()
        ways = [bundle.target, *(each for each in via if each not in (source, self._me))]
        through = next((each for each in ways if self._ways.is_connected(each)), None)
        if through is not None:
            outputs.append(SendBundle(through, _passed_on(bundle)))
        elif any(self._ways.want_contact(each, now, outputs) for each in ways):
            for dropped in self._waiting.put(bundle.target, _passed_on(bundle), now):
                self._drop("unreachable", *(batch.body for batch in dropped.batches))
        else:
            return False
        self.relayed += 1
        return True

    def _take_direct(self, bundle: Bundle, hops: int, now: float, outputs: list[Output]) -> None:
        if bundle.target_boot != self._boot:
            self._drop("old_boot", *(batch.body for batch in bundle.batches))
        else:
            self.received_direct += 1
            self._arrive(bundle, self._me, hops, now, outputs)

    def _arrive(self, bundle: Bundle, space: NodeId, hops: int, now: float, outputs: list[Output]) -> None:
        for batch in bundle.batches:
            self.sequencer.arrive(bundle.origin, bundle.boot, space, batch, bundle.age_ms, hops, now, outputs)

    def _drop(self, reason: str, *bodies: bytes) -> None:
        self.dropped[reason] += sum(peek_body(body)[0] for body in bodies)

    # --- time ---

    def next_timer(self) -> float:
        return min(self.broadcast.next_timer(), self.sequencer.next_timer(), self._waiting.next_timer())

    def sweep(self, now: float) -> None:
        """Forget what is over. Called now and then."""
        self._shares.expire(now)

    def tick(self, now: float, outputs: list[Output]) -> None:
        if now >= self.broadcast.next_timer():
            self.broadcast.tick(now, outputs)
        if now >= self.sequencer.next_timer():
            self.sequencer.tick(now, outputs)
        for node in self._waiting.overdue(now):
            self.unreachable(node)


def _sealed(bundle: Bundle, signed: bytes, signature: bytes) -> Bundle:
    return replace(bundle, signed=signed, signature=signature)


def _aged(bundle: Bundle, by_s: float) -> Bundle:
    return replace(bundle, age_ms=bundle.age_ms + round(1000 * by_s))


def _passed_on(bundle: Bundle) -> Bundle:
    return replace(bundle, hops=bundle.hops - 1)
