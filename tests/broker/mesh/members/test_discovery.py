"""Joining by pages, and tables that drifted apart becoming equal again."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from quicbus import limits
from quicbus.wire.frames import Frame, encode_frame
from quicbus.wire.node_frames import (
    Claim,
    Discover,
    DiscoveryResponse,
    Head,
    InterestEntry,
    InterestPiece,
    Signed,
    Summary,
    Update,
)
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.members.discovery import Discovery
from quicbus_broker.mesh.members.gossip import Gossip
from quicbus_broker.mesh.members.membership import Membership
from quicbus_broker.mesh.members.response_pages import summary_pages
from quicbus_broker.mesh.members.table import BUCKETS, MemberTable
from quicbus_broker.mesh.outputs import MemberChanged, Misbehaved, NewsLearned, Output, SendFrame, State
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

if TYPE_CHECKING:
    from collections.abc import Iterable

CONFIG = MeshConfig()
CHAIN = (b"c" * 650,)


def member(number: int, **fields: Any) -> Signed:
    return sealed(node_id(number), chain=CHAIN, addresses=("[2001:db8::1]:4433", "192.0.2.1:4433"), **fields)


class Node:
    """The parts of a node that know members, with a plain store in place of the interest table."""

    def __init__(self, number: int, *, is_alone: bool = True) -> None:
        self.id = node_id(number)
        self.now = 0.0
        self.table = MemberTable()
        self.membership = Membership(self.id, self.table, FakeSigning(self.id), CONFIG, random.Random(number))
        self.gossip = Gossip(0.0)
        self.interest: dict[bytes, list[Signed]] = {}
        self.discovery = Discovery(
            self.id, self.table, self.membership, CONFIG, random.Random(number), self.interest_since
        )
        self.heads: tuple[Head, ...] = ()
        self.seen_heads: list[Head] = []
        self.changes: list[MemberChanged] = []
        self.offences: list[Misbehaved] = []
        self.neighbors: dict[bytes, None] = {}
        self.membership.start(f"node {number}", 1, "hybrid", (), 0.0, [])
        self.discovery.start(0.0, is_alone=is_alone)

    def interest_since(self, node: bytes, boot: int, version: int) -> tuple[Signed, ...]:
        return tuple(self.interest.get(node, [])[version:])

    def want(self, node: bytes, *filters: str) -> None:
        """Know that a node wants these, a version for each."""
        pieces = self.interest.setdefault(node, [])
        for filter in filters:
            base = len(pieces)
            piece = InterestPiece(node=node, boot=1, base=base, version=base + 1, added=(InterestEntry(filter),))
            pieces.append(FakeSigning(node).seal_interest(piece))
        self.table.set_interest_version(node, 1, len(pieces))

    def take_interest(self, pieces: Iterable[Signed]) -> None:
        for signed in pieces:
            piece = FakeSigning(self.id)._open(signed, InterestPiece)
            log = self.interest.setdefault(piece.node, [])
            if piece.base == len(log):
                log.append(signed)
                self.table.set_interest_version(piece.node, 1, piece.version)

    def learn(self, *news: Signed | Claim) -> None:
        records = [item for item in news if isinstance(item, Signed)]
        self.membership.take(records, [item for item in news if isinstance(item, Claim)], None, self.now, [])

    def handle(self, source: bytes, frame: Frame) -> list[SendFrame]:
        outputs: list[Output] = []
        if isinstance(frame, Discover):
            self.discovery.on_discover(source, frame, lambda: self.heads, self.now, outputs)
        elif isinstance(frame, DiscoveryResponse):
            self.seen_heads += frame.heads
            self.discovery.on_response(source, frame, self.now, outputs)
            self.take_interest(frame.interest)
        else:
            assert isinstance(frame, Update)
            self.membership.take(frame.records, frame.claims, source, self.now, outputs)
            self.take_interest(frame.interest)
        return self.settle(outputs)

    def settle(self, outputs: list[Output]) -> list[SendFrame]:
        frames = [output for output in outputs if isinstance(output, SendFrame)]
        self.changes += [output for output in outputs if isinstance(output, MemberChanged)]
        self.offences += [output for output in outputs if isinstance(output, Misbehaved)]
        for output in outputs:
            if isinstance(output, NewsLearned):
                self.gossip.learned(output)
        told: list[Output] = []
        self.gossip.flush(0.0, self.neighbors, self.neighbors, told)
        return frames + [output for output in told if isinstance(output, SendFrame)]

    def state(self, number: int) -> State | None:
        entry = self.table.get(node_id(number))
        return entry.state if entry else None


class Wire:
    """Carries frames between nodes that are linked, and counts them."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.frames: list[tuple[bytes, Frame]] = []
        self._queue: deque[tuple[bytes, SendFrame]] = deque()

    def link(self, one: Node, other: Node) -> None:
        """Open a connection, carry what follows."""
        for node, peer in ((one, other), (other, one)):
            node.neighbors[peer.id] = None
            outputs: list[Output] = [SendFrame(peer.id, Update(records=(node.membership.own_signed,)))]
            node.discovery.connected(peer.id, node.now, outputs)
            self.send(node, node.settle(outputs))
        self.carry()

    def tick(self, node: Node) -> None:
        outputs: list[Output] = []
        node.discovery.tick(node.discovery.next_timer(), node.neighbors, outputs)
        self.send(node, node.settle(outputs))
        self.carry()

    def send(self, node: Node, frames: list[SendFrame]) -> None:
        self._queue.extend((node.id, frame) for frame in frames)

    def carry(self) -> None:
        for _ in range(100_000):
            if not self._queue:
                return
            source, output = self._queue.popleft()
            self.frames.append((source, output.frame))
            assert len(encode_frame(output.frame)) <= limits.MAX_CONTROL_FRAME_SIZE
            if output.node in self.nodes:
                self.send(self.nodes[output.node], self.nodes[output.node].handle(source, output.frame))
        raise AssertionError("they never stop talking")


# --- joining ---


def test_two_nodes_that_name_each_other_as_seeds_join() -> None:
    one, other = Node(1, is_alone=False), Node(2, is_alone=False)
    Wire(one, other).link(one, other)
    assert one.discovery.is_joined
    assert other.discovery.is_joined
    assert list(one.table.nodes()) == list(other.table.nodes()) == sorted([one.id, other.id])
    assert one.table.digest() == other.table.digest()


@pytest.mark.parametrize("number", [1, 2])
def test_a_table_of_a_thousand_members_is_joined_by_pages(number: int) -> None:
    old, new = Node(3 - number), Node(number, is_alone=False)
    old.learn(*(member(other) for other in range(10, 1009)))
    old.learn(*(Claim(node_id(other), 1, "failed", old.id) for other in range(10, 60)))
    for other in range(100, 200):
        old.want(node_id(other), "a/b", "c/#")
    old.heads = tuple(Head(node_id(other), 1, other, (1, 2, 3)) for other in range(10, 1009))
    wire = Wire(old, new)
    wire.link(old, new)
    assert new.discovery.is_joined
    assert old.table.digest() == new.table.digest()
    assert len(new.table) == 1001
    assert new.interest == old.interest
    assert (new.state(10), new.state(59), new.state(60)) == (State.FAILED, State.FAILED, State.ALIVE)
    assert new.seen_heads == list(old.heads)
    pages = [frame for source, frame in wire.frames if source == old.id and isinstance(frame, DiscoveryResponse)]
    assert 4 < len(pages) < 30
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
    from_new = sum(len(encode_frame(frame)) for source, frame in wire.frames if source == new.id)
    assert from_new < 4000, "the table does not go back to where it came from"
    assert not [change for change in new.changes if change.before is not None], "failed ones were never alive here"


def test_who_joins_tells_its_other_links_nothing_that_the_mesh_knows() -> None:
    old, new = Node(1), Node(2, is_alone=False)
    old.learn(*(member(number) for number in range(10, 50)))
    new.neighbors[node_id(7)] = None
    wire = Wire(old, new)
    wire.link(old, new)
    assert len(new.table) == 42
    assert (
        sum(len(frame.records) for source, frame in wire.frames if source == new.id and isinstance(frame, Update)) < 3
    )


def test_joining_ends_with_the_last_page_of_whom_was_asked() -> None:
    new = Node(1, is_alone=False)
    outputs: list[Output] = []
    new.discovery.connected(node_id(2), 0.0, outputs)
    new.discovery.connected(node_id(3), 0.0, outputs)
    assert outputs == [SendFrame(node_id(2), Discover())], "one is asked for everything"
    new.handle(node_id(2), DiscoveryResponse(more=True))
    new.handle(node_id(3), DiscoveryResponse())
    was_joined = new.discovery.is_joined
    compared = new.handle(node_id(2), DiscoveryResponse())
    assert (was_joined, new.discovery.is_joined) == (False, True)
    assert compared == [SendFrame(node_id(3), Discover(digest=new.table.digest()))], "whom it met is compared with"


def test_when_whom_was_asked_is_gone_another_is_asked() -> None:
    new = Node(1, is_alone=False)
    new.discovery.connected(node_id(2), 0.0, [])
    new.discovery.disconnected(node_id(2))
    assert new.discovery.next_timer() <= 0.0
    outputs: list[Output] = []
    new.discovery.tick(0.0, [node_id(3)], outputs)
    assert outputs == [SendFrame(node_id(3), Discover())]
    assert new.discovery.next_timer() > 0.0


def test_whom_was_asked_in_vain_is_not_waited_for_for_ever() -> None:
    new = Node(1, is_alone=False)
    new.discovery.connected(node_id(2), 0.0, [])
    outputs: list[Output] = []
    new.discovery.tick(new.discovery.next_timer(), [node_id(3)], outputs)
    assert outputs == [SendFrame(node_id(3), Discover())]


def test_whoever_still_answers_is_waited_for() -> None:
    new = Node(1, is_alone=False)
    new.discovery.connected(node_id(2), 0.0, [])
    new.handle(node_id(2), DiscoveryResponse(more=True))
    outputs: list[Output] = []
    new.discovery.tick(10.0, [node_id(2), node_id(3)], outputs)
    assert outputs == []
    new.discovery.tick(20.0, [node_id(3)], outputs)
    assert outputs == [SendFrame(node_id(3), Discover())], "no page came since"


def test_a_node_without_seeds_is_joined() -> None:
    assert Node(1).discovery.is_joined


def test_a_node_that_is_joining_is_no_reference() -> None:
    new = Node(1, is_alone=False)
    answer = new.handle(node_id(2), Discover(digest=bytes(8 * BUCKETS)))
    assert answer == [SendFrame(node_id(2), DiscoveryResponse(records=(new.membership.own_signed,)))]


# --- comparing ---


def test_equal_tables_say_so_in_two_frames_of_flat_size() -> None:
    for size in (0, 1000):
        one, other = Node(1), Node(2)
        for node in (one, other):
            node.learn(one.membership.own_signed, other.membership.own_signed)
            node.learn(*(member(number) for number in range(10, 10 + size)))
            node.neighbors = {one.id: None, other.id: None}
            del node.neighbors[node.id]
        wire = Wire(one, other)
        wire.tick(one)
        assert [type(frame) for _, frame in wire.frames] == [Discover, DiscoveryResponse]
        assert sum(len(encode_frame(frame)) for _, frame in wire.frames) < 600


def test_a_lone_node_asks_nobody() -> None:
    outputs: list[Output] = []
    node = Node(1)
    node.discovery.tick(5.0, {}, outputs)
    assert outputs == []
    assert 5.0 + CONFIG.discover_interval_s / 2 <= node.discovery.next_timer() < 5.0 + CONFIG.discover_interval_s * 1.5


def test_one_difference_among_a_thousand_costs_one_bucket() -> None:
    one, other = Node(1), Node(2)
    for node in (one, other):
        node.learn(one.membership.own_signed, other.membership.own_signed)
        node.learn(*(member(number) for number in range(10, 1010)))
    other.learn(member(500, incarnation=5))
    one.neighbors = {other.id: None}
    wire = Wire(one, other)
    wire.tick(one)
    assert one.table.digest() == other.table.digest()
    listed = [len(frame.summaries) for _, frame in wire.frames if isinstance(frame, DiscoveryResponse)]
    assert max(listed) < 40


def drift(node: Node, rng: random.Random, numbers: range) -> None:
    """Let a node learn, each with some chance, what members say and what is said about them."""
    for number in numbers:
        if rng.random() < 0.6:
            node.learn(member(number, incarnation=rng.choice([1, 2, 3]), boot=1, left=rng.random() < 0.1))
        entry = node.table.get(node_id(number))
        if entry is None:
            continue
        if rng.random() < 0.2:
            state = rng.choice(["suspect", "failed"])
            node.learn(Claim(node_id(number), entry.incarnation, state, node_id(rng.choice(numbers))))
        if rng.random() < 0.3:
            node.want(node_id(number), *[f"f/{version}" for version in range(rng.randrange(4))])


@pytest.mark.parametrize("seed", range(20))
def test_tables_that_drifted_apart_become_equal_again(seed: int) -> None:
    rng = random.Random(seed)
    one, other = Node(1), Node(2)
    for node in (one, other):
        drift(node, rng, range(10, 200))
    wire = Wire(one, other)
    wire.link(one, other)
    for _ in range(3):
        # What failed at one side only is suspected first, and nobody is there to refute.
        for node in (one, other):
            node.now += 100.0
            outputs: list[Output] = []
            node.membership.tick(node.now, outputs)
            wire.send(node, node.settle(outputs))
        wire.carry()
        wire.tick(rng.choice([one, other]))
    assert one.table.digest() == other.table.digest(), f"seed {seed}"
    assert len(one.table) == len(other.table), f"seed {seed}"
    versions = [
        {number: node.table.interest_version(node_id(number)) for number in range(200)} for node in (one, other)
    ]
    assert versions[0] == versions[1], f"seed {seed}"


def test_two_halves_that_meet_again_refute_and_nobody_is_expelled() -> None:
    nodes = [Node(number) for number in range(8)]
    half = nodes[:4], nodes[4:]
    wire = Wire(*nodes)
    for node in nodes:
        node.learn(*(other.membership.own_signed for other in nodes))
    for mine, others in (half, half[::-1]):
        for node in mine:
            node.neighbors = {other.id: None for other in mine if other is not node}
            node.learn(*(Claim(other.id, 1, "failed", mine[0].id) for other in others))
    wire.link(nodes[0], nodes[4])
    for node in nodes:
        node.changes.clear()
        wire.tick(node)
    assert len({node.table.digest() for node in nodes}) == 1
    assert all(state is State.ALIVE for node in nodes for state in node.table.states())
    failures = [change for node in nodes for change in node.changes if change.after is State.FAILED]
    assert not failures


def test_interest_that_is_known_is_not_sent_again() -> None:
    one, other = Node(1), Node(2)
    for node in (one, other):
        node.learn(one.membership.own_signed, other.membership.own_signed, member(5))
    one.want(node_id(5), "a", "b")
    other.take_interest(one.interest[node_id(5)])
    one.want(node_id(5), "c")
    for asker in (one, other):
        asker.neighbors = {(other if asker is one else one).id: None}
    wire = Wire(one, other)
    wire.tick(other)
    assert one.interest == other.interest
    sent = [piece for _, frame in wire.frames if isinstance(frame, DiscoveryResponse) for piece in frame.interest]
    assert sent == one.interest[node_id(5)][2:]


def test_whoever_knows_less_of_interest_is_told() -> None:
    one, other = Node(1), Node(2)
    for node in (one, other):
        node.learn(one.membership.own_signed, other.membership.own_signed, member(5))
    one.want(node_id(5), "a", "b")
    one.neighbors = {other.id: None}
    Wire(one, other).tick(one)
    assert one.interest == other.interest


def test_of_a_large_table_all_buckets_that_differ_are_listed_by_pages() -> None:
    summaries = [
        (bucket, [Summary(node_id(bucket), (1 << 64) - 1, "suspect", (1 << 64) - 1, (1 << 64) - 1)] * 800)
        for bucket in range(BUCKETS)
    ]
    pages = summary_pages(summaries)
    assert [bucket for page in pages for bucket in page.buckets] == list(range(BUCKETS))
    assert all(len(page.summaries) == 800 * len(page.buckets) for page in pages)
    assert max(len(encode_frame(page)) for page in pages) <= limits.MAX_CONTROL_FRAME_SIZE
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]


# --- what no honest node sends ---


@pytest.mark.parametrize(
    "frame",
    [
        Discover(digest=b"short"),
        DiscoveryResponse(buckets=(BUCKETS,)),
        DiscoveryResponse(records=(Signed(b"junk", b""),)),
    ],
)
def test_nonsense_is_blamed_on_who_sent_it(frame: Frame) -> None:
    node = Node(1)
    assert node.handle(node_id(2), frame) == []
    assert [offence.node for offence in node.offences] == [node_id(2)]


def test_what_is_asked_twice_or_not_known_is_answered_once_or_not() -> None:
    node = Node(1)
    answers = node.handle(node_id(2), Discover(want=(node.id, node_id(9), node.id)))
    assert answers == [SendFrame(node_id(2), DiscoveryResponse(records=(node.membership.own_signed,)))]


def test_a_summary_with_an_unknown_state_asks_for_nothing() -> None:
    node = Node(1)
    bucket = MemberTable.bucket_of(node.id)
    summary = Summary(node.id, 1, "asleep", 1, 0)
    others = [other for other in node.table.bucket_members(bucket) if other != node.id]
    answers = node.handle(node_id(2), DiscoveryResponse(buckets=(bucket,), summaries=(summary,)))
    assert (answers, others) == ([], [])
