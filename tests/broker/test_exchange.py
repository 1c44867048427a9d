"""The exchange with a mesh behind it: what goes out, what comes in, what comes back, and who is held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from quicbus.wire.batch import FLAG_REQUEST, encode_body, parse_body, read_messages
from quicbus.wire.frames import NoResponder, Taken, Unsubscribe
from tests.broker.fakes import NODE, FakeBroker, FakeClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.routing import Batch

TOKYO, LIMA = b"t" * 16, b"l" * 16


@dataclass
class FakePlan:
    is_empty: bool = True
    waits: bool = False
    is_full: bool = True


@dataclass
class FakeRemote:
    """A mesh in which the topics in `wanted` are wanted elsewhere."""

    wanted: dict[bytes, FakePlan] = field(default_factory=dict)
    is_joined: bool = True
    takes_shares: bool = False
    gives_back: bool = True
    forwarded: list[Batch] = field(default_factory=list)
    shares: list[tuple[str, str, bytes, list[bytes]]] = field(default_factory=list)
    given_back: list[tuple[Batch, str, str]] = field(default_factory=list)
    interest: list[tuple[str, str, bool]] = field(default_factory=list)
    pauses: list[tuple[bytes, str, bool]] = field(default_factory=list)
    local_groups: Sequence[tuple[str, str]] = ()

    def plan(self, topic: bytes, local_groups: Sequence[tuple[str, str]]) -> FakePlan:
        self.local_groups = local_groups
        return self.wanted.get(topic, FakePlan())

    def forward(self, batch: Batch, plan: object) -> None:
        assert plan is self.wanted[batch.body.topic]
        self.forwarded.append(batch)

    def is_full(self, plan: object) -> bool:
        assert isinstance(plan, FakePlan)
        return plan.is_full

    def send_share(self, batch: Batch, group: str, filter: str, exclude: bytes) -> bool:
        self.shares.append((group, filter, exclude, read_messages(batch.body)))
        return self.takes_shares

    def give_back(self, batch: Batch, group: str, filter: str) -> bool:
        self.given_back.append((batch, group, filter))
        return self.gives_back

    def interest_added(self, filter: str, group: str, blocks: bool) -> None:
        self.interest.append((filter, group, blocks))

    def interest_discarded(self, filter: str, group: str, blocks: bool) -> None:
        self.interest.remove((filter, group, blocks))

    def pause(self, origin: bytes, filter: str, is_paused: bool) -> None:
        self.pauses.append((origin, filter, is_paused))


class Node(FakeBroker):
    """A broker in a mesh. `arrive` is a batch of another node."""

    def __init__(self) -> None:
        super().__init__()
        self.remote = FakeRemote()
        self.exchange.join(self.remote)

    def wants(self, topic: bytes, *, waits: bool = False) -> None:
        self.remote.wanted[topic] = FakePlan(is_empty=False, waits=waits)

    def arrive(
        self,
        topic: str,
        *messages: bytes,
        origin: bytes = TOKYO,
        age_ms: int = 0,
        group: str = "",
        filter: str = "",
        expires_in_ms: int = 0,
    ) -> bool:
        body = encode_body(topic.encode(), messages, number=1, expires_in_ms=expires_in_ms)
        return self.exchange.take_remote(origin, 3, 17, 5, "ann", body, age_ms, group, filter)

    def come_back(self, *messages: bytes, id: int = 1) -> None:
        body = encode_body(b"t", messages, number=1)
        self.exchange.returned(TOKYO, id, 0, "alice", body, 0, "g", "t")

    def is_balanced(self) -> bool:
        return self.router.books().balance == 0

    def last_credit(self, client: FakeClient) -> int | None:
        return next((frame.credit for frame in reversed(client.frames()) if isinstance(frame, Taken)), None)


def test_what_is_wanted_elsewhere_too_is_forwarded_as_it_came() -> None:
    node = Node()
    alice, bob = node.client(), node.client()
    bob.subscribe("t")
    node.wants(b"t")

    alice.publish("t", b"one", b"two")
    alice.publish("other", b"three")

    (batch,) = node.remote.forwarded
    assert read_messages(batch.body) == [b"one", b"two"]
    assert (batch.envelope.origin, batch.envelope.sequence) == (NODE, 1)
    assert bob.messages() == [b"one", b"two"]
    books = node.router.books()
    assert (books.accepted, books.forwarded, books.unmatched, books.deliveries) == (3, 2, 1, 2)


def test_what_only_others_want_is_not_unmatched() -> None:
    node = Node()
    node.wants(b"t")

    node.client().publish("t", b"one")

    books = node.router.books()
    assert (books.unmatched, books.forwarded, books.deliveries, books.balance) == (0, 1, 0, 0)


def test_groups_with_members_here_are_named_to_the_mesh() -> None:
    node = Node()
    node.client().subscribe("+", group="g")

    node.client().publish("t", b"one")

    assert node.remote.local_groups == (("g", "+"),)


def test_the_mesh_hears_of_subscriptions_as_they_begin_and_end() -> None:
    node = Node()
    alice, bob = node.client(), node.client()
    alice.subscribe("a", overflow="block")
    bob.subscribe("b", id=1, group="g")
    bob.subscribe("c", id=2, overflow="disconnect", max_pending=1, window_messages=1)
    assert node.remote.interest == [("a", "", True), ("b", "g", False), ("c", "", False)]

    alice.publish("c", b"1", b"2", b"3")
    assert node.remote.interest == [("a", "", True), ("b", "g", False)]
    bob.write(Unsubscribe(id=1))
    assert node.remote.interest == [("a", "", True)]
    alice.vanish()
    assert node.remote.interest == []


def test_a_mesh_that_comes_later_hears_of_what_is_subscribed_to_already() -> None:
    broker = FakeBroker()
    broker.client().subscribe("a", group="g")
    remote = FakeRemote()

    broker.exchange.join(remote)

    assert remote.interest == [("a", "g", False)]


@pytest.mark.parametrize(
    ("is_wanted", "is_joined", "is_told"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_no_responder_is_told_only_where_nobody_anywhere_is_known(
    is_wanted: bool, is_joined: bool, is_told: bool
) -> None:
    node = Node()
    node.remote.is_joined = is_joined
    if is_wanted:
        node.wants(b"t")
    client = node.client()

    client.publish("t", b"?", flags=FLAG_REQUEST)

    assert any(isinstance(frame, NoResponder) for frame in client.frames()) is is_told


def test_what_arrives_goes_to_all_who_are_in_no_group_under_the_name_of_its_origin() -> None:
    node = Node()
    bob, worker = node.client(), node.client()
    bob.subscribe("#")
    worker.subscribe("t", group="g")

    assert node.arrive("t", b"one", b"two", age_ms=40)

    (delivery,) = bob.deliveries()
    envelope = delivery.envelope
    assert (envelope.origin, envelope.boot, envelope.sequence, envelope.first) == (TOKYO, 3, 17, 5)
    assert (envelope.publisher, envelope.age_ms) == ("ann", 40)
    assert read_messages(parse_body(delivery.body)) == [b"one", b"two"]
    assert worker.messages() == []
    assert node.remote.forwarded == []
    books = node.router.books()
    assert (books.accepted, books.arrived, books.unmatched, books.deliveries) == (0, 2, 0, 2)


def test_what_arrives_for_a_group_goes_to_one_member_of_it() -> None:
    node = Node()
    bob, worker = node.client(), node.client()
    bob.subscribe("t")
    worker.subscribe("+", group="g")

    assert node.arrive("t", b"one", group="g", filter="+")

    assert (bob.messages(), worker.messages()) == ([], [b"one"])
    assert node.router.books().deliveries == 1


def test_a_share_for_a_group_without_members_here_is_not_taken() -> None:
    node = Node()
    node.client().subscribe("x", group="g")

    assert not node.arrive("t", b"one", group="g", filter="t")
    assert not node.arrive("t", b"one", group="g", filter="x")

    books = node.router.books()
    assert (books.arrived, books.deliveries) == (0, 0)


def test_a_lie_from_another_node_is_counted_and_dropped() -> None:
    node = Node()

    assert node.exchange.take_remote(TOKYO, 1, 1, 0, "ann", b"junk", 0, "", "")
    assert node.arrive("a/+", b"one")
    node.exchange.returned(TOKYO, 1, 0, "ann", b"junk", 0, "g", "t")
    node.exchange.hold(TOKYO, "a/#/b")

    assert node.exchange.malformed == 4
    assert node.router.books().arrived == 0


def test_time_in_the_queues_of_other_nodes_counts_towards_expiry() -> None:
    node = Node()
    bob, worker = node.client(), node.client()
    bob.subscribe("t", window_messages=1)
    worker.subscribe("t", group="g")

    node.arrive("t", b"late", age_ms=1000, expires_in_ms=1000)
    node.arrive("t", b"late", age_ms=1000, expires_in_ms=1000, group="g", filter="t")
    node.arrive("t", b"first", b"second", age_ms=900, expires_in_ms=1000)
    node.pass_time(0.2)

    assert (bob.messages(), worker.messages()) == ([b"first"], [])
    books = node.router.books()
    assert (books.arrived, books.deliveries, books.handed_over) == (4, 4, 1)
    assert books.dropped == {"expired": 3}
    assert node.is_balanced()


def test_a_share_that_came_back_goes_to_members_here_then_elsewhere_then_nowhere() -> None:
    node = Node()
    worker = node.client()
    worker.subscribe("t", group="g")
    node.come_back(b"one", id=1)
    assert worker.messages() == [b"one"]

    worker.write(Unsubscribe(id=1))
    node.remote.takes_shares = True
    node.come_back(b"two", id=2)
    assert node.remote.shares == [("g", "t", TOKYO, [b"two"])]
    assert node.router.books().dropped == {}

    node.come_back(b"two", id=2)
    node.remote.takes_shares = False
    node.come_back(b"three", id=3)
    assert node.router.books().dropped == {"no_member": 2}
    assert node.is_balanced()


def test_what_waits_for_the_last_member_here_goes_to_its_origin_or_another_node() -> None:
    node = Node()
    node.remote.takes_shares = True
    worker = node.client()
    worker.subscribe("t", group="g", window_messages=1)
    node.arrive("t", b"1", b"2", b"3", group="g", filter="t")
    node.client().publish("t", b"4", b"5")
    node.now += 1.5

    worker.write(Unsubscribe(id=1))

    ((batch, group, filter),) = node.remote.given_back
    assert (batch.envelope.origin, batch.envelope.first, group, filter) == (TOKYO, 6, "g", "t")
    assert batch.envelope.age_ms == 1500
    assert read_messages(batch.body) == [b"2", b"3"]
    assert node.remote.shares == [("g", "t", b"", [b"4", b"5"])]
    books = node.router.books()
    assert (books.deliveries, books.handed_over, books.dropped, books.balance) == (1, 1, {}, 0)


def test_what_nobody_elsewhere_takes_is_dropped_with_the_last_member() -> None:
    node = Node()
    node.remote.gives_back = False
    worker = node.client()
    worker.subscribe("t", group="g", window_messages=1)
    node.arrive("t", b"1", b"2", b"3", group="g", filter="t")

    worker.vanish()

    assert node.router.books().dropped == {"disconnected": 2}
    assert node.is_balanced()


def test_a_full_subscription_that_blocks_pauses_each_origin_for_its_filter_once() -> None:
    node = Node()
    bob, cid = node.client(), node.client()
    for client in (bob, cid):
        client.subscribe("t/#", overflow="block", max_pending=2, window_messages=1)

    node.arrive("t/a", b"1", b"2")
    node.arrive("t/b", b"3")
    node.arrive("t/b", b"4", origin=LIMA)
    assert node.remote.pauses == [(TOKYO, "t/#", True), (LIMA, "t/#", True)]

    bob.vanish()
    assert len(node.remote.pauses) == 2
    cid.write(Unsubscribe(id=1))
    assert node.remote.pauses[2:] == [(TOKYO, "t/#", False), (LIMA, "t/#", False)]

    bob = node.client()
    bob.subscribe("t/#", overflow="block", max_pending=1, window_messages=1)
    node.arrive("t/a", b"1", b"2")
    assert node.remote.pauses[4:] == [(TOKYO, "t/#", True)]


def test_who_publishes_what_another_node_has_paused_gets_no_credit_until_it_resumes() -> None:
    node = Node()
    node.wants(b"t/a")
    alice, other = node.client(), node.client()
    node.exchange.hold(TOKYO, "t/#")
    node.exchange.hold(LIMA, "t/a")

    alice.publish("t/a", bytes(1000))
    other.publish("x/a", bytes(1000))
    held, free = node.last_credit(alice), node.last_credit(other)
    assert held is not None
    assert free is not None
    assert held < free

    node.exchange.release(TOKYO, "t/#")
    assert node.last_credit(alice) is None
    node.exchange.release(LIMA, "t/a")
    assert node.last_credit(alice) == free


def test_while_the_way_is_full_only_publishers_to_subscribers_that_block_wait() -> None:
    node = Node()
    node.wants(b"waits", waits=True)
    node.wants(b"drops")
    node.wants(b"other way", waits=True)
    node.remote.wanted[b"other way"].is_full = False
    alice, bob, carol = node.client(), node.client(), node.client()
    node.exchange.congestion_changed(True)

    alice.publish("waits", b"1")
    bob.publish("drops", b"1")
    carol.publish("other way", b"1")

    held = [node.router.is_held(each.session.publisher) for each in (alice, bob, carol)]  # type: ignore[arg-type]
    assert held == [True, False, False]
    node.exchange.congestion_changed(False)
    assert not node.router.is_held(alice.session.publisher)  # type: ignore[arg-type]


def test_what_is_larger_than_clients_here_were_told_is_dropped_and_counted() -> None:
    """Nodes may be set to different sizes; a client would take the record for a violation and close."""
    node = Node()
    bob, worker = node.client(), node.client()
    bob.subscribe("t")
    worker.subscribe("t", group="g")
    largest = node.edge.limits.max_body_size - len(encode_body(b"t", [b""], number=1))

    assert node.arrive("t", bytes(largest - 2))
    assert node.edge.statistics().too_large == 0

    assert node.arrive("t", bytes(largest + 1), b"")
    assert node.arrive("t", bytes(largest + 1), b"", group="g", filter="t")
    node.come_back(bytes(largest + 1))
    assert node.edge.statistics().too_large == 5
    assert node.router.books().arrived == 1
    assert node.is_balanced()


def test_what_other_nodes_send_that_cannot_be_read_stands_in_the_statistics() -> None:
    node = Node()
    node.exchange.take_remote(TOKYO, 3, 17, 0, "ann", b"no body", 0, "", "")
    assert node.edge.statistics().malformed == 1
