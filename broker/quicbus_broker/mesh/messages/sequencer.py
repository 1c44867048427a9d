"""The receiver's side of order: batches of an origin come out by number, each at most once.

There is one space of numbers for an origin's broadcasts and one for what it sends to this node alone, both by lane. A
missing number is waited for, and so is what a batch names in `after`; but no batch waits longer than `gap_timeout_s`
for those before it. What comes after it was given up is late, and dropped.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from typing import TYPE_CHECKING

from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import peek_body
from quicbus.wire.bundles import EVERYONE
from quicbus.wire.node_frames import Head
from quicbus_broker.mesh.messages.reordering import Held, Lane, Ranges
from quicbus_broker.mesh.outputs import Deliver

if TYPE_CHECKING:
    from quicbus.wire.bundles import BundleBatch
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId, Output

__all__ = ["Sequencer", "SequencerCounters"]

MAX_LANES = 256
"""A lane is one byte on the wire."""

ANY_NUMBER = 0
"""In the place of a lane's next number: the first that comes is the next."""

_Key = tuple[bool, int]
"""Whether it is the space of this node alone, and the lane."""


class SequencerCounters:
    """`delivered`, `hops_sum` and `lost_in_mesh` count batches; `late` and `dropped` (by reason) messages."""

    __slots__ = ("delivered", "dropped", "hops_max", "hops_sum", "late", "lost_in_mesh")

    def __init__(self) -> None:
        self.delivered = 0
        self.hops_sum = 0
        self.hops_max = 0
        self.lost_in_mesh = 0
        self.late = 0
        self.dropped: Counter[str] = Counter()


class _Origin:
    """One boot of an origin: the numbers that come next by lane. Only lanes in which something waits need a `Lane`."""

    __slots__ = ("boot", "direct", "everyone", "lanes", "lost", "node")

    def __init__(self, node: NodeId, boot: int) -> None:
        self.node = node
        self.boot = boot
        self.everyone: list[int] = []
        self.direct: list[int] = []
        self.lanes: dict[_Key, Lane] = {}
        self.lost: dict[_Key, Ranges] = {}
        """Numbers given up: what comes of them all the same is late, anything else below the next is a duplicate."""

    def next_of(self, key: _Key) -> int:
        nexts = self.direct if key[0] else self.everyone
        return nexts[key[1]] if key[1] < len(nexts) else 1

    def set_next(self, key: _Key, number: int) -> None:
        nexts = self.direct if key[0] else self.everyone
        while len(nexts) <= key[1]:
            nexts.append(1)
        nexts[key[1]] = number


class Sequencer:
    """Brings what arrives from all origins into order.

    `boot` is this node's own: what batches name of the space of another boot of it is not waited for (0: all is).
    """

    def __init__(self, me: NodeId, config: MeshConfig, boot: int = 0) -> None:
        self.counters = SequencerCounters()
        self.held_size = 0
        """Bytes of the batches that wait."""
        self._me = me
        self._boot = boot
        self._timeout_s = config.gap_timeout_s
        self._max_held = config.reorder_size
        self._origins: dict[NodeId, _Origin] = {}
        self._deadlines: list[tuple[float, int, _Origin, _Key, Lane]] = []
        self._timed = 0

    # --- what arrives ---

    def arrive(
        self,
        node: NodeId,
        boot: int,
        space: bytes,
        batch: BundleBatch,
        age_ms: int,
        hops: int,
        now: float,
        outputs: list[Output],
    ) -> None:
        """Take a batch of the origin `node` in `space`: `EVERYONE`, or this node's id for what came to it alone.

        Appends a `Deliver` for it, and for those that waited for it, as soon as nothing before them is missing.
        """
        origin = self._origins.get(node)
        if origin is None or origin.boot != boot:
            origin = self._enter(node, boot, now, outputs)
            if origin is None:
                self.counters.dropped["old_boot"] += _messages(batch)
                return
        key = (space != EVERYONE, batch.lane)
        number = origin.next_of(key)
        if not number:
            number = batch.sequence
            origin.set_next(key, number)
        if batch.sequence == number and not origin.lanes and (not batch.after or self._is_finished(origin, key, batch)):
            origin.set_next(key, number + 1)
            self._deliver(origin, batch, age_ms, hops, outputs)
        elif batch.sequence < number:
            self._count_past(origin, key, batch)
        else:
            self._hold(origin, key, Held(batch, age_ms, hops, now), now, outputs)

    def skipped(
        self, node: NodeId, lane: int, first: int, last: int, now: float, outputs: list[Output], boot: int = 0
    ) -> None:
        """The origin dropped what these numbers of the space of this node alone were for: they are not waited for.

        `boot` is the origin's; 0: the one that is known.
        """
        origin = self._origins.get(node)
        if boot and (origin is None or origin.boot < boot):
            origin = self._enter(node, boot, now, outputs)
        if origin is None or (boot and origin.boot != boot) or last < first:
            return
        key = (True, lane)
        if last < origin.next_of(key):
            return
        self._lane(origin, key).skips.add(first, last)
        self._advance(origin, lane, now, outputs)

    def set_head(self, head: Head) -> None:
        """Take nothing of an origin at or below these numbers: it was broadcast before this node joined."""
        origin = self._origins.get(head.origin)
        if origin is None or origin.boot < head.boot:
            self.forget(head.origin)
            origin = self._origins[head.origin] = _Origin(head.origin, head.boot)
        if origin.boot > head.boot:
            return
        for number, last in enumerate(head.lanes[:MAX_LANES]):
            self._raise(origin, (False, number), last)

    def reopen(self, node: NodeId, boot: int) -> None:
        """Nothing is known of the numbers of an origin's broadcasts any more: begin with what comes next."""
        origin = self._origins.get(node)
        if origin is not None and origin.boot == boot:
            origin.everyone = [ANY_NUMBER] * MAX_LANES

    def heads(self) -> list[Head]:
        """Return the highest number of each lane that came, by origin; bundles are not known here."""
        return [
            Head(
                origin.node,
                origin.boot,
                0,
                tuple(
                    max(last - 1, 0, *origin.lanes[False, number].held)
                    if (False, number) in origin.lanes
                    else max(last - 1, 0)
                    for number, last in enumerate(origin.everyone)
                ),
            )
            for origin in self._origins.values()
        ]

    def forget(self, node: NodeId) -> None:
        """The node is no longer a member."""
        origin = self._origins.pop(node, None)
        if origin is None:
            return
        for lane in origin.lanes.values():
            for held in lane.held.values():
                self.held_size -= held.size
                self.counters.dropped["forgotten"] += _messages(held.batch)
            lane.held.clear()

    # --- time ---

    def next_timer(self) -> float:
        deadlines = self._deadlines
        while deadlines and not deadlines[0][4].held:
            heapq.heappop(deadlines)[4].is_timed = False
        return deadlines[0][0] if deadlines else math.inf

    def tick(self, now: float, outputs: list[Output]) -> None:
        """Give up what has been waited for long enough."""
        while self._deadlines and self._deadlines[0][0] <= now:
            self._give_up_first(now, outputs, is_due_only=True)

    def _give_up_first(self, now: float, outputs: list[Output], is_due_only: bool) -> None:
        _, _, origin, key, lane = heapq.heappop(self._deadlines)
        lane.is_timed = False
        self._advance(origin, key[1], now, outputs)
        if lane.held and (not is_due_only or lane.oldest_at + self._timeout_s <= now):
            self._release(origin, key, next(iter(lane.held)), now, outputs)
            self._advance(origin, key[1], now, outputs)
        self._time(origin, key, lane)

    def _time(self, origin: _Origin, key: _Key, lane: Lane, deadline: float | None = None) -> None:
        """Watch a lane in which something waits: once, until then."""
        if lane.held and not lane.is_timed:
            lane.is_timed = True
            self._timed += 1
            at = lane.oldest_at + self._timeout_s if deadline is None else deadline
            heapq.heappush(self._deadlines, (at, self._timed, origin, key, lane))

    # --- order ---

    def _enter(self, node: NodeId, boot: int, now: float, outputs: list[Output]) -> _Origin | None:
        """Return the state of a boot, new if it is later than the one known; `None` for an earlier one."""
        known = self._origins.get(node)
        if known is not None:
            if boot < known.boot:
                return None
            for key, lane in list(known.lanes.items()):
                if lane.held:
                    self._release(known, key, max(lane.held), now, outputs)
        origin = self._origins[node] = _Origin(node, boot)
        return origin

    def _hold(self, origin: _Origin, key: _Key, held: Held, now: float, outputs: list[Output]) -> None:
        lane = self._lane(origin, key)
        sequence = held.batch.sequence
        if sequence in lane.held:
            self.counters.dropped["duplicate"] += _messages(held.batch)
            return
        origin.set_next(key, origin.next_of(key))
        lane.held[sequence] = held
        self.held_size += held.size
        self._advance(origin, key[1], now, outputs)
        self._time(origin, key, lane)
        while self.held_size > self._max_held and self._deadlines:
            self._give_up_first(now, outputs, is_due_only=False)

    def _lane(self, origin: _Origin, key: _Key) -> Lane:
        lane = origin.lanes.get(key)
        if lane is None:
            lane = origin.lanes[key] = Lane()
        return lane

    def _advance(self, origin: _Origin, number: int, now: float, outputs: list[Output]) -> None:
        """Deliver what has come to its turn in both spaces of a lane: each can be what the other waits for."""
        moved = True
        while moved:
            moved = self._drain(origin, (False, number), now, outputs)
            moved = self._drain(origin, (True, number), now, outputs) or moved

    def _drain(self, origin: _Origin, key: _Key, now: float, outputs: list[Output]) -> bool:
        lane = origin.lanes.get(key)
        if lane is None:
            return False
        start = number = origin.next_of(key)
        while True:
            held = lane.held.get(number)
            if held is not None:
                if not self._is_finished(origin, key, held.batch):
                    break
                self._pass(origin, key, lane, number, now, outputs)
                number += 1
            elif last := lane.skips.end_of(number):
                number = min([last + 1, *(each for each in lane.held if number < each <= last)])
                origin.set_next(key, number)
            else:
                break
        lane.skips.discard_below(number)
        if not lane.held and not lane.skips:
            del origin.lanes[key]
        return number != start

    def _is_finished(self, origin: _Origin, key: _Key, batch: BundleBatch) -> bool:
        """Whether what the batch names of the other space has been delivered, or given up."""
        return all(origin.next_of((not key[0], key[1])) > number for number in self._named(key, batch))

    def _named(self, key: _Key, batch: BundleBatch) -> list[int]:
        """Return the numbers of the other space that a batch names."""
        if key[0]:
            return [number for node, _, number in batch.after if node == EVERYONE]
        return [n for node, boot, n in batch.after if node == self._me and (boot == self._boot or not self._boot)]

    def _release(
        self, origin: _Origin, key: _Key, through: int, now: float, outputs: list[Output], is_nested: bool = False
    ) -> None:
        """Deliver what is there up to the number `through`, and give up what is not."""
        lane = self._lane(origin, key)
        for number in sorted([each for each in lane.held if each <= through]):
            self._lose(origin, key, lane, number - 1)
            if not is_nested:
                # What is named there was published before, and can name nothing here that comes later.
                for named in self._named(key, lane.held[number].batch):
                    self._release(origin, (not key[0], key[1]), named, now, outputs, is_nested=True)
            self._pass(origin, key, lane, number, now, outputs)
        self._lose(origin, key, lane, through)
        lane.skips.discard_below(origin.next_of(key))
        if not lane.held and not lane.skips:
            del origin.lanes[key]

    def _lose(self, origin: _Origin, key: _Key, lane: Lane, last: int) -> None:
        """Give up what is missing up to the number `last`."""
        first = origin.next_of(key)
        if last < first:
            return
        if first == ANY_NUMBER:
            origin.set_next(key, last + 1)
            return
        self.counters.lost_in_mesh += last - first + 1 - lane.skips.count_in(first, last)
        lost = origin.lost.get(key)
        if lost is None:
            lost = origin.lost[key] = Ranges()
        lost.push(first, last)
        origin.set_next(key, last + 1)

    def _raise(self, origin: _Origin, key: _Key, last: int) -> None:
        if last < origin.next_of(key):
            return
        origin.set_next(key, last + 1)
        lane = origin.lanes.get(key)
        if lane is None:
            return
        for number in [each for each in lane.held if each <= last]:
            held = lane.held.pop(number)
            self.held_size -= held.size
            self.counters.dropped["replayed"] += _messages(held.batch)
        # What is left may have come to its turn; the next tick, at once, delivers it.
        lane.is_timed = False
        self._time(origin, key, lane, deadline=0.0)

    # --- out ---

    def _pass(self, origin: _Origin, key: _Key, lane: Lane, number: int, now: float, outputs: list[Output]) -> None:
        held = lane.held.pop(number)
        self.held_size -= held.size
        origin.set_next(key, number + 1)
        self._deliver(origin, held.batch, held.age_ms + round(1000 * (now - held.at)), held.hops, outputs)

    def _deliver(self, origin: _Origin, batch: BundleBatch, age_ms: int, hops: int, outputs: list[Output]) -> None:
        counters = self.counters
        counters.delivered += 1
        counters.hops_sum += hops
        counters.hops_max = max(counters.hops_max, hops)
        outputs.append(Deliver(origin.node, origin.boot, batch, age_ms, hops))

    def _count_past(self, origin: _Origin, key: _Key, batch: BundleBatch) -> None:
        lost = origin.lost.get(key)
        if lost is not None and batch.sequence in lost:
            self.counters.late += _messages(batch)
        else:
            self.counters.dropped["duplicate"] += _messages(batch)


def _messages(batch: BundleBatch) -> int:
    """Return how many messages a batch has, as it says: nobody after the edge decodes it."""
    try:
        return peek_body(batch.body)[0]
    except ProtocolViolation:
        return 1
