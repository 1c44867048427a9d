"""The origin's side of order: the numbers of batches, and what a topic's receivers must finish first.

Each lane has one space of numbers for broadcasts, and one for each node that is served directly. When a topic goes
another way than before, its receivers could get the later message first. So its batches name the last number of the
other way, and a receiver finishes that first: all of them do, since the first one may be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.bundles import EVERYONE, MAX_AFTER

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["After", "Numbering", "Way"]

After = tuple[tuple[bytes, int, int], ...]
"""As in `BundleBatch.after`."""
Way = bytes | tuple[bytes, ...]
"""How the messages of a topic go: by broadcast (`EVERYONE`), or to these nodes."""

MAX_TOPICS = 16_384
"""Topics whose way is remembered. For the others the last numbers of their lane are named: that can make a receiver
wait for messages of other topics, never take them out of order."""
MAX_NAMED = MAX_AFTER
"""Nodes served directly that a broadcast names; of more the latest."""
SETTLED_S = 300.0
"""What was sent directly so long ago has arrived or is lost: a link that stalls is closed after 10 s."""


class _Target:
    """The numbers towards one boot of a node, by lane."""

    __slots__ = ("boot", "lanes")

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.lanes: dict[int, int] = {}


class _History:
    """What the receivers of a topic may still have to finish: broadcasts up to a number; direct ones, by node."""

    __slots__ = ("broadcast", "direct")

    def __init__(self, broadcast: int, direct: dict[NodeId, tuple[int, int, float]]) -> None:
        self.broadcast = broadcast
        self.direct = direct
        """Boot, number, and when."""


class _Topic:
    __slots__ = ("after", "history", "lane", "settled_at", "way")

    def __init__(self, lane: int, history: _History) -> None:
        self.lane = lane
        self.history = history
        self.way: Way | None = None
        self.after: After = ()
        self.settled_at = 0.0


class Numbering:
    """The numbers that this boot of this node has given out."""

    def __init__(self, max_topics: int = MAX_TOPICS) -> None:
        self._max_topics = max_topics
        self._broadcast: dict[int, int] = {}
        self._targets: dict[NodeId, _Target] = {}
        self._topics: dict[bytes, _Topic] = {}
        self._forgotten: dict[int, _History] = {}

    def next_broadcast(self, lane: int) -> int:
        """Return the number of the next batch that is broadcast in a lane."""
        number = self._broadcast[lane] = self._broadcast.get(lane, 0) + 1
        return number

    def next_direct(self, node: NodeId, boot: int, lane: int) -> int:
        """Return the number of the next batch for one boot of a node. Boots only grow: a higher one begins anew."""
        target = self._targets.get(node)
        if target is None or boot > target.boot:
            target = self._targets[node] = _Target(boot)
        number = target.lanes[lane] = target.lanes.get(lane, 0) + 1
        return number

    def lanes(self) -> tuple[int, ...]:
        """Return the last number broadcast in each lane: for the own `Head`."""
        return tuple(self._broadcast.get(lane, 0) for lane in range(max(self._broadcast, default=-1) + 1))

    def forget(self, node: NodeId) -> None:
        """The node is no longer a member."""
        self._targets.pop(node, None)

    def way_changed(self, topic: bytes, lane: int, way: Way, now: float = 0.0) -> After:
        """Say which way the next batch of a topic goes, and return what its receivers must finish first.

        Called for every batch, before it is numbered; a topic stays in its lane. Shares of groups promise no order:
        they are numbered without this.
        """
        known = self._topics.get(topic)
        if known is None:
            known = self._learn(topic, lane, now)
        if known.way != way:
            self._turn(known, way, now)
        elif known.after and now >= known.settled_at:
            self._settle(known, now)
        return known.after

    def _learn(self, topic: bytes, lane: int, now: float) -> _Topic:
        if len(self._topics) >= self._max_topics:
            self._forget_topic(next(iter(self._topics)), now)
        forgotten = self._forgotten.get(lane)
        history = _History(forgotten.broadcast, dict(forgotten.direct)) if forgotten is not None else _History(0, {})
        known = self._topics[topic] = _Topic(lane, history)
        return known

    def _turn(self, topic: _Topic, way: Way, now: float) -> None:
        self._note(topic.way, topic.lane, topic.history, now)
        topic.way = way
        self._settle(topic, now)

    def _settle(self, topic: _Topic, now: float) -> None:
        history = topic.history
        topic.settled_at = now + SETTLED_S
        if topic.way != EVERYONE:
            topic.after = ((EVERYONE, 0, history.broadcast),) if history.broadcast else ()
            return
        history.direct = {node: last for node, last in history.direct.items() if last[2] > now - SETTLED_S}
        topic.after = tuple((node, boot, number) for node, (boot, number, _) in history.direct.items())

    def _note(self, way: Way | None, lane: int, history: _History, now: float) -> None:
        """Take into a history what has gone a way in a lane so far."""
        if way == EVERYONE:
            history.broadcast = max(history.broadcast, self._broadcast.get(lane, 0))
        elif way is not None:
            assert isinstance(way, tuple)
            for node in way:
                target = self._targets.get(node)
                if target is not None and lane in target.lanes:
                    _remember(history.direct, node, (target.boot, target.lanes[lane], now))

    def _forget_topic(self, topic: bytes, now: float) -> None:
        """Keep of a topic what any topic of its lane that comes anew may have to finish."""
        known = self._topics.pop(topic)
        lane = known.lane
        forgotten = self._forgotten.get(lane)
        if forgotten is None:
            forgotten = self._forgotten[lane] = _History(0, {})
        self._note(known.way, lane, known.history, now)
        forgotten.broadcast = max(forgotten.broadcast, known.history.broadcast)
        for node, last in known.history.direct.items():
            if last > forgotten.direct.get(node, (0, 0, 0.0)):
                _remember(forgotten.direct, node, last)


def _remember(direct: dict[NodeId, tuple[int, int, float]], node: NodeId, last: tuple[int, int, float]) -> None:
    direct.pop(node, None)
    direct[node] = last
    if len(direct) > MAX_NAMED:
        del direct[next(iter(direct))]
