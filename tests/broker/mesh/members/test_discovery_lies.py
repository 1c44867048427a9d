"""Answers that nobody asked for, questions that are too large, and who never comes to an end."""

from __future__ import annotations

import pytest

from quicbus.wire.node_frames import Discover, DiscoveryResponse, Summary
from quicbus_broker.mesh.members.discovery import PATIENCE, WANT_MAX
from quicbus_broker.mesh.outputs import Output, SendFrame
from tests.broker.mesh.fake_signing import node_id, sealed
from tests.broker.mesh.members.test_discovery import Node, member

LIAR = node_id(99)


def knowing(*numbers: int) -> Node:
    node = Node(1)
    node.learn(*(member(number) for number in numbers))
    return node


def compared(node: Node) -> Node:
    node.neighbors[LIAR] = None
    outputs: list[Output] = []
    node.discovery.tick(node.discovery.next_timer(), node.neighbors, outputs)
    (asked,) = outputs
    assert isinstance(asked, SendFrame)
    assert isinstance(asked.frame, Discover)
    assert asked.frame.digest
    return node


ALL = tuple(range(64))


def test_buckets_that_nobody_asked_for_bring_nothing() -> None:
    assert knowing(*range(10, 30)).handle(LIAR, DiscoveryResponse(buckets=ALL)) == []


def test_of_each_bucket_everything_is_told_once_after_asking() -> None:
    node = compared(knowing(*range(10, 30)))
    told = [node.handle(LIAR, DiscoveryResponse(buckets=buckets, more=True)) for buckets in (ALL[:32], ALL, ALL)]
    assert [bool(frames) for frames in told] == [True, True, False]
    assert node.handle(LIAR, DiscoveryResponse(buckets=ALL)) == []
    assert node.handle(LIAR, DiscoveryResponse(buckets=ALL)) == []
    assert compared(node).handle(LIAR, DiscoveryResponse(buckets=ALL))


def test_members_are_asked_for_only_where_their_bucket_was_listed() -> None:
    node = compared(knowing())
    invented = tuple(Summary(node_id(number), 1, "alive", 1, 0) for number in range(100, 2_100))
    wanted = node.handle(LIAR, DiscoveryResponse(buckets=(3,), summaries=invented, more=True))
    count = sum(len(each.frame.want) for each in wanted if isinstance(each.frame, Discover))
    assert count == sum(node.table.bucket_of(each.node) == 3 for each in invented)
    assert node.handle(LIAR, DiscoveryResponse(buckets=(3,), summaries=invented)) == []


@pytest.mark.parametrize("bucket", [-1, -(2**63), 64, 2**64 - 1])
def test_a_bucket_that_there_is_not_is_an_offence(bucket: int) -> None:
    node = compared(knowing(10))
    assert node.handle(LIAR, DiscoveryResponse(buckets=(bucket,))) == []
    assert [offence.node for offence in node.offences] == [LIAR]


def test_wanting_too_many_at_once_is_an_offence() -> None:
    node = knowing(10)
    wanted = (node_id(10),) * WANT_MAX
    assert node.handle(LIAR, Discover(want=wanted))
    assert node.handle(LIAR, Discover(want=(*wanted, LIAR))) == []
    assert len(node.offences) == 1


def test_whoever_never_ends_telling_everything_is_left_for_another() -> None:
    node = Node(1, is_alone=False)
    node.neighbors[LIAR] = None
    node.discovery.connected(LIAR, 0.0, [])
    asked: list[bytes] = []
    for number in range(PATIENCE + 1):
        node.handle(LIAR, DiscoveryResponse(records=(sealed(node_id(1000 + number)),), more=True))
        outputs: list[Output] = []
        node.discovery.tick(node.discovery.next_timer(), [node_id(2)], outputs)
        asked += [each.node for each in outputs if isinstance(each, SendFrame)]
    assert asked == [node_id(2)]
    assert not node.discovery.is_asked(LIAR)
    node.handle(LIAR, DiscoveryResponse())
    assert not node.discovery.is_joined
    node.handle(node_id(2), DiscoveryResponse())
    assert node.discovery.is_joined


@pytest.mark.parametrize(
    ("frame", "cost"),
    [(Discover(), 33.0), (Discover(digest=bytes(512)), 33 / 16), (Discover(want=(LIAR,) * 5), 5.0)],
)
def test_an_answer_costs_what_it_tells(frame: Discover, cost: float) -> None:
    assert knowing(*range(10, 42)).discovery.cost_of(frame) == cost
