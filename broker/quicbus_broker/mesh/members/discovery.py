"""Compares tables: a node that joins fills its own, and tables that drifted apart become equal again.

`Discover` carries hashes of buckets; the answer lists the members of those that differ, in short. Who asked then asks
for what it lacks and tells what the other lacks. An empty table asks for everything.
"""

from __future__ import annotations

import math
from struct import iter_unpack
from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Claim, Discover, DiscoveryResponse, Update
from quicbus_broker.mesh.members.gossip import updates
from quicbus_broker.mesh.members.response_pages import ResponsePages, summary_pages
from quicbus_broker.mesh.members.table import BUCKETS
from quicbus_broker.mesh.outputs import Misbehaved, NewsLearned, SendFrame, State

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from quicbus.wire.node_frames import Head, Signed, Summary
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.membership import Membership
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.outputs import NodeId, Output

__all__ = ["Discovery"]

DIGEST_SIZE = BUCKETS * 8
WANT_MAX = 1000
"""Members asked for in one frame: 60 bytes each."""
PATIENCE = 12
"""Ticks, two minutes in all, for one node to tell everything: then another is asked, at random."""
_RANKS = {"alive": 0, "suspect": 0, "failed": 1, "left": 2}


class Discovery:
    def __init__(
        self,
        me: NodeId,
        table: MemberTable,
        membership: Membership,
        config: MeshConfig,
        rng: random.Random,
        interest_since: Callable[[NodeId, int, int], tuple[Signed, ...]],
    ) -> None:
        """`interest_since(node, boot, version)` returns what follows that version of a node's interest."""
        self._me = me
        self._table = table
        self._membership = membership
        self._config = config
        self._rng = rng
        self._interest_since = interest_since
        self._asked: NodeId | None = None
        """Whom everything was asked of; its last page ends joining."""
        self._is_answering = False
        """A page of that came since the last tick."""
        self._comparing: dict[NodeId, dict[int, None]] = {}
        """Who was sent the digest, with the buckets that it has listed since."""
        self._patience = PATIENCE
        self._met: dict[NodeId, None] = {}
        """Whom this node met while joining: compared with when that is done."""
        self._timer = math.inf
        self.is_joined = False
        """Whether a first full exchange with the mesh is done, or this node is the mesh."""
        self.is_on_its_own = False
        """Not joined, and nobody has answered for as long as joining takes: until somebody does."""

    def start(self, now: float, *, is_alone: bool) -> None:
        """`is_alone`: there is no one to ask; this node is joined from the start."""
        self.is_joined = is_alone
        self._set_timer(now)

    # --- asking ---

    def connected(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """A first connection to a node is open. Of two that have joined the lower id compares."""
        self.is_on_its_own = False
        if not self.is_joined:
            if self._asked is None:
                self._ask_all(node, outputs)
            else:
                self._met[node] = None
        elif self._me < node:
            self._compare(node, outputs)

    def disconnected(self, node: NodeId) -> None:
        """The last connection to a node is closed: whatever it was asked, it will not answer."""
        self._met.pop(node, None)
        self._comparing.pop(node, None)
        if self._asked == node:
            self._asked = None
            self._is_answering = False
            # Another is asked with the next tick.
            self._timer = 0.0

    def next_timer(self) -> float:
        return self._timer

    def tick(self, now: float, neighbors: Iterable[NodeId], outputs: list[Output]) -> None:
        """Compare with a random neighbour; while joining, ask one for everything."""
        self._set_timer(now)
        nodes = list(neighbors)
        if not nodes:
            self.is_on_its_own = not self.is_joined and self._asked is None
            return
        node = nodes[int(self._rng.random() * len(nodes))]
        if self.is_joined:
            self._compare(node, outputs)
        elif not self._is_answering or self._patience <= 0:
            self._ask_all(node, outputs)
        self._patience -= 1
        self._is_answering = False

    def _ask_all(self, node: NodeId, outputs: list[Output]) -> None:
        self._asked = node
        self._patience = PATIENCE
        self._met.pop(node, None)
        outputs.append(SendFrame(node, Discover()))

    def is_asked(self, node: NodeId) -> bool:
        """Whether this is the node that everything was asked of."""
        return node == self._asked

    def _compare(self, node: NodeId, outputs: list[Output]) -> None:
        self._comparing[node] = {}
        outputs.append(SendFrame(node, Discover(digest=self._table.digest())))

    def _set_timer(self, now: float) -> None:
        # Jitter of a half to either side: nodes that started together do not stay in step.
        self._timer = now + self._config.discover_interval_s * (0.5 + self._rng.random())

    # --- answering ---

    def cost_of(self, frame: Discover) -> float:
        """Return how many members the answer tells of, about. Comparing costs a summary for each, of 60 bytes."""
        if frame.want:
            return len(frame.want)
        return len(self._table) / 16 if frame.digest else len(self._table)

    def on_discover(
        self, node: NodeId, frame: Discover, heads: Callable[[], tuple[Head, ...]], now: float, outputs: list[Output]
    ) -> None:
        """Answer. `heads`: how far the broadcasts of each origin have come, for one that joins."""
        if len(frame.want) > WANT_MAX:
            outputs.append(Misbehaved(node, f"wants {len(frame.want)} members at once, not {WANT_MAX} at most"))
            return
        if frame.want:
            responses = self._wanted(frame, now)
        elif not frame.digest:
            responses = self._everything(heads(), now)
        elif len(frame.digest) != DIGEST_SIZE:
            outputs.append(Misbehaved(node, f"a digest of {len(frame.digest)} bytes, not {DIGEST_SIZE}"))
            return
        elif not self.is_joined:
            # Everything is on its way to this node: what it lacks now says nothing.
            responses = [DiscoveryResponse(records=(self._membership.own_signed,))]
        else:
            responses = self._differences(frame.digest)
        outputs.extend([SendFrame(node, response) for response in responses])

    def _wanted(self, frame: Discover, now: float) -> list[DiscoveryResponse]:
        known = {node: (boot, version) for node, boot, version in frame.have_interest}
        pages = ResponsePages()
        for node in dict.fromkeys(frame.want):
            self._put_member(pages, node, known.get(node), now)
        return pages.finish()

    def _everything(self, heads: Sequence[Head], now: float) -> list[DiscoveryResponse]:
        pages = ResponsePages()
        # First, so that they stand before the broadcasts that are on their way arrive.
        for head in heads:
            pages.add_head(head)
        for member in self._table.nodes():
            self._put_member(pages, member, None, now)
        return pages.finish()

    def _differences(self, digest: bytes) -> list[DiscoveryResponse]:
        own = self._table.digest()
        if own == digest:
            return [DiscoveryResponse()]
        pairs = zip(iter_unpack("<Q", own), iter_unpack("<Q", digest), strict=True)
        buckets = [bucket for bucket, (mine, theirs) in enumerate(pairs) if mine != theirs]
        members = [
            (bucket, [self._table.summary(node) for node in self._table.bucket_members(bucket)]) for bucket in buckets
        ]
        return summary_pages(members)

    def _put_member(self, pages: ResponsePages, node: NodeId, known: tuple[int, int] | None, now: float) -> None:
        entry = self._table.get(node)
        if entry is None:
            return
        pages.add_member(entry.signed, self._membership.claims_about(node, now))
        if not entry.is_alive:
            return
        boot = entry.record.boot
        version = known[1] if known is not None and known[0] == boot else 0
        for piece in self._interest_since(node, boot, version):
            pages.add_interest(piece)

    # --- what comes back ---

    def on_response(self, node: NodeId, frame: DiscoveryResponse, now: float, outputs: list[Output]) -> None:
        """Take the members; the interest in it is the caller's."""
        learned: list[Output] = []
        self._membership.take(frame.records, frame.claims, node, now, learned, is_comparison=True)
        if not self.is_joined:
            # The mesh knows all this.
            learned = [item for item in learned if not (isinstance(item, NewsLearned) and item.source == node)]
        outputs.extend(learned)
        if frame.buckets:
            self._reconcile(node, frame, now, outputs)
        if node == self._asked:
            self._is_answering = frame.more
            if not frame.more:
                self._finish_joining(outputs)

    def _finish_joining(self, outputs: list[Output]) -> None:
        self.is_joined = True
        self._asked = None
        met, self._met = self._met, {}
        for node in met:
            self._compare(node, outputs)

    def _reconcile(self, node: NodeId, frame: DiscoveryResponse, now: float, outputs: list[Output]) -> None:
        """Ask for what is newer there, tell what is newer here: of each bucket once, after this node sent its hashes.

        Otherwise a frame of a few bytes would have everything told again and again.
        """
        listed_before = self._comparing.get(node)
        bad = next((bucket for bucket in frame.buckets if not 0 <= bucket < BUCKETS), None)
        if bad is not None:
            outputs.append(Misbehaved(node, f"bucket {bad} of {BUCKETS}"))
            return
        if listed_before is None:
            return
        buckets = [bucket for bucket in dict.fromkeys(frame.buckets) if bucket not in listed_before]
        listed_before.update(dict.fromkeys(buckets))
        if not frame.more:
            del self._comparing[node]
        want: list[NodeId] = []
        tell = _News()
        listed: dict[NodeId, None] = {}
        for summary in frame.summaries:
            if self._table.bucket_of(summary.node) not in buckets:
                continue
            listed[summary.node] = None
            if self._is_behind(summary):
                want.append(summary.node)
            else:
                self._tell_newer(summary, tell)
        for bucket in buckets:
            for member in self._table.bucket_members(bucket):
                if member not in listed:
                    self._tell_unknown(member, tell, now)
        parts = [want[start : start + WANT_MAX] for start in range(0, len(want), WANT_MAX)]
        outputs.extend([SendFrame(node, self._want(part)) for part in parts])
        outputs.extend([SendFrame(node, update) for update in tell.updates()])

    def _is_behind(self, summary: Summary) -> bool:
        entry = self._table.get(summary.node)
        if entry is None:
            return True
        theirs = summary.incarnation, _RANKS.get(summary.state, -1), summary.boot
        mine = entry.incarnation, _RANKS[entry.state.value], entry.record.boot
        if theirs != mine:
            return theirs > mine
        return summary.node != self._me and summary.interest > self._table.interest_version(summary.node)

    def _tell_newer(self, summary: Summary, tell: _News) -> None:
        """Add what the other lacks of a member that it knows."""
        entry = self._table.get(summary.node)
        assert entry is not None
        record = entry.record
        is_same = (entry.incarnation, record.boot) == (summary.incarnation, summary.boot)
        if not is_same or (record.left and summary.state != "left"):
            tell.records.append(entry.signed)
        if entry.state is State.FAILED and summary.state in ("alive", "suspect"):
            # As in a response: there it becomes a suspect first.
            tell.claims.append(Claim(summary.node, entry.incarnation, "suspect", self._me))
        if entry.is_alive:
            version = summary.interest if summary.boot == record.boot else 0
            if self._table.interest_version(summary.node) > version:
                tell.interest += self._interest_since(summary.node, record.boot, version)

    def _tell_unknown(self, node: NodeId, tell: _News, now: float) -> None:
        entry = self._table.get(node)
        assert entry is not None
        tell.records.append(entry.signed)
        tell.claims += self._membership.claims_about(node, now)
        if entry.is_alive:
            tell.interest += self._interest_since(node, entry.record.boot, 0)

    def _want(self, nodes: Sequence[NodeId]) -> Discover:
        have: list[tuple[NodeId, int, int]] = []
        for node in nodes:
            entry = self._table.get(node)
            version = self._table.interest_version(node)
            if entry is not None and version:
                have.append((node, entry.record.boot, version))
        return Discover(want=tuple(nodes), have_interest=tuple(have))


class _News:
    """What the other side of a comparison lacks."""

    __slots__ = ("claims", "interest", "records")

    def __init__(self) -> None:
        self.records: list[Signed] = []
        self.claims: list[Claim] = []
        self.interest: list[Signed] = []

    def updates(self) -> list[Update]:
        return updates(self.records, self.claims, self.interest)
