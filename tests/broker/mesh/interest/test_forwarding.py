"""Which way a topic takes: nobody, few, many, one of a group, and back to who asked."""

from __future__ import annotations

import random

import pytest

from quicbus.wire.node_frames import InterestEntry
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.interest.forwarding import (
    CACHED_TOPICS_SIZE,
    EMPTY_PLAN,
    Forwarding,
    GroupPlan,
    MeshPlan,
    are_few,
)
from quicbus_broker.mesh.members.table import Entry
from quicbus_broker.mesh.outputs import State
from tests.broker.mesh.fake_signing import node_id, sealed
from tests.broker.mesh.interest.test_interest_table import ANN, BEN, CID, ME, Here, piece


class Node(Here):
    def __init__(self) -> None:
        super().__init__()
        self.rtt_s: dict[bytes, float] = {}
        self.forwarding = Forwarding(
            ME, self.members, self.table, MeshConfig(), random.Random(1), lambda node: self.rtt_s.get(node)
        )

    def plan(self, topic: str, *local_groups: tuple[str, str]) -> MeshPlan:
        return self.forwarding.plan(topic.encode(), local_groups)


def test_what_nobody_elsewhere_wants_stays_home() -> None:
    node = Node()
    node.take(piece(ANN, 1, "a"))

    assert node.plan("b") is EMPTY_PLAN
    assert node.plan("b").is_empty


def test_few_are_served_one_by_one_in_the_order_of_their_ids() -> None:
    node = Node()
    node.take(piece(BEN, 1, "a"), piece(ANN, 1, "#"), piece(CID, 1, InterestEntry("a", blocks=True)))

    assert node.plan("a") == MeshPlan(tuple(sorted((ANN, BEN, CID))), waits=True)
    assert not node.plan("a").is_empty


def test_many_are_served_by_broadcast() -> None:
    node = Node()
    for number in range(10, 19):
        node.learn(node_id(number))
        node.take(piece(node_id(number), 1, "a"))

    assert node.plan("a") == MeshPlan(is_broadcast=True)


def test_a_plan_is_kept_until_the_interest_in_its_topic_changes() -> None:
    node = Node()
    node.take(piece(ANN, 1, "a", "b"))
    before = node.plan("a")

    node.take(piece(BEN, 1, "b"))
    assert node.plan("a") is before
    node.take(piece(BEN, 2, "a"))
    assert node.plan("a").direct == tuple(sorted((ANN, BEN)))
    node.table.member_gone(ANN)
    assert node.plan("a").direct == (BEN,)
    node.take(piece(CID, 1, "+"))
    assert node.plan("a").direct == tuple(sorted((BEN, CID)))


def test_a_group_with_members_here_keeps_its_share_here() -> None:
    node = Node()
    node.take(piece(ANN, 1, InterestEntry("a", "g"), InterestEntry("+", "g")))

    (group,) = node.plan("a", ("g", "a")).groups
    assert (group.group, group.filter, group.pick()) == ("g", "+", ANN)
    assert len(node.plan("a").groups) == 2
    assert node.plan("a", ("g", "a"), ("g", "+")).is_empty


def test_a_share_that_came_back_goes_to_another_node() -> None:
    node = Node()
    node.take(piece(ANN, 1, InterestEntry("a", "g")), piece(BEN, 1, InterestEntry("a", "g")))

    group = node.forwarding.group(b"a", "g", "a")

    assert group is not None
    assert group.pick(exclude=ANN) == BEN
    assert node.forwarding.group(b"a", "other", "a") is None


def test_the_nearest_of_a_group_take_turns() -> None:
    rtt_s = {ANN: 0.010, BEN: 0.020, CID: 0.050}
    group = GroupPlan("g", "a", (ANN, BEN, CID), 0, rtt_s.get)

    picks = [group.pick() for _ in range(10)]

    assert picks == [BEN, ANN] * 5
    assert group.pick(exclude=ANN) == BEN
    assert GroupPlan("g", "a", (ANN,), 0, rtt_s.get).pick(exclude=ANN) is None


def test_nodes_of_a_group_that_are_not_measured_come_last() -> None:
    near = GroupPlan("g", "a", (ANN, BEN), 0, {BEN: 9.0}.get)
    unknown = GroupPlan("g", "a", (ANN, BEN), 0, lambda node: None)

    assert {near.pick() for _ in range(4)} == {BEN}
    assert {unknown.pick() for _ in range(4)} == {ANN, BEN}


def test_replies_go_to_the_node_in_their_topic_and_their_plans_are_not_kept() -> None:
    node = Node()

    def reply(to: bytes) -> str:
        return f"$quicbus/reply/{to.hex()}/{bytes(16).hex()}/1"

    assert node.plan(reply(ANN)) == MeshPlan((ANN,))
    assert node.plan(reply(ME)).is_empty
    assert node.plan(reply(node_id(99))).is_empty
    assert node.plan("$quicbus/reply/zz/1").is_empty
    assert not node.forwarding._plans


def test_replies_to_a_node_that_has_failed_stay_home() -> None:
    node = Node()
    record = sealed(ANN)
    node.members.put(Entry(node.signing.open_record(record), record, State.FAILED))

    assert node.plan(f"$quicbus/reply/{ANN.hex()}/{bytes(16).hex()}/1").is_empty


def test_the_memory_of_plans_is_bounded_in_bytes() -> None:
    node = Node()
    for number in range(200):
        node.plan(f"{number}{'x' * 60_000}")

    assert sum(map(len, node.forwarding._plans)) <= CACHED_TOPICS_SIZE


@pytest.mark.parametrize(
    ("interested", "others", "expected"),
    [
        (1, 1, True),
        (8, 8, True),
        (9, 9, False),
        (9, 575, False),
        (9, 576, True),
        (16, 10_000, True),
        (17, 10_000, False),
    ],
)
def test_few_depends_on_the_size_of_the_mesh(interested: int, others: int, expected: bool) -> None:
    assert are_few(interested, others, MeshConfig()) is expected
