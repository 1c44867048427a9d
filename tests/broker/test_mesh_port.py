"""What crosses between the exchange and the mesh, with a machine that only records on the other side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

from quicbus import limits
from quicbus.wire.batch import encode_body, parse_body
from quicbus.wire.bundles import BundleBatch
from quicbus.wire.records import Envelope
from quicbus_broker.mesh.interest.forwarding import GroupPlan, MeshPlan
from quicbus_broker.mesh.messages.traffic import Publication
from quicbus_broker.mesh.outputs import Deliver
from quicbus_broker.mesh_port import MeshPort
from quicbus_broker.routing import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ME, ELSEWHERE, FURTHER = bytes(16), b"\x01" * 16, b"\x02" * 16
BODY = encode_body(b"a/b", [b"1", b"2"], number=1)
BATCH = Batch(parse_body(BODY), Envelope(ME, 1, 9, "alice", 3, 40), None, 0.0, 1e9)
ARRIVED = Batch(parse_body(BODY), Envelope(ELSEWHERE, 1, 9, "alice", 3, 40), None, 0.0, 1e9)
LANE = crc32(b"a/b") % limits.LANES


class Recorder:
    """A driver, its machine and an exchange, in one: every call is remembered."""

    def __init__(self, plan: MeshPlan | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.mesh = self
        self.is_settled = True
        self.connected: tuple[bytes, ...] = ()
        self.takes = True
        self.is_full: Callable[[bytes], bool] = lambda node: False
        self._plan = plan or MeshPlan()

    def is_connected(self, node: bytes) -> bool:
        return node in self.connected

    def plan(self, topic: bytes, local_groups: Sequence[tuple[str, str]]) -> MeshPlan:
        return self._plan

    def take_remote(self, *arguments: object) -> bool:
        self.calls.append(("take_remote", *arguments))
        return self.takes

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object) -> list[object]:
            self.calls.append((name, *arguments))
            return []

        return call


def port_of(recorder: Recorder) -> MeshPort:
    return MeshPort(recorder, recorder, lambda: 5.0)  # type: ignore[arg-type]  # as much of them as is called


def group_plan(*nodes: bytes) -> MeshPlan:
    return MeshPlan(groups=(GroupPlan("workers", "a/#", nodes, 0, lambda node: None),))


def test_a_batch_is_published_with_its_id_and_its_bytes_as_they_are() -> None:
    recorder, plan = Recorder(), MeshPlan((ELSEWHERE,))

    port_of(recorder).forward(BATCH, plan)

    publication = Publication(9, "alice", b"a/b", BODY, plan, 3, 40)
    assert recorder.calls == [("publish", publication, 5.0), ("perform", [])]


def test_a_share_goes_to_another_node_than_the_one_that_returned_it() -> None:
    plan = group_plan(ELSEWHERE, FURTHER)
    recorder = Recorder(plan)

    assert port_of(recorder).send_share(BATCH, "workers", "a/#", ELSEWHERE)

    publication = Publication(9, "alice", b"a/b", BODY, plan, 3, 40)
    assert recorder.calls[0] == ("send_share", publication, FURTHER, "workers", "a/#", 5.0)


def test_a_share_that_nobody_else_takes_is_refused() -> None:
    recorder = Recorder(group_plan(ELSEWHERE))
    port = port_of(recorder)

    assert not port.send_share(BATCH, "workers", "a/#", ELSEWHERE)
    assert not port.send_share(BATCH, "others", "a/#", b"")
    assert recorder.calls == []


def test_a_share_is_given_back_to_an_origin_that_is_connected() -> None:
    recorder = Recorder()
    port = port_of(recorder)
    assert not port.give_back(ARRIVED, "workers", "a/#")

    recorder.connected = (ELSEWHERE,)
    assert port.give_back(ARRIVED, "workers", "a/#")

    share = BundleBatch(9, LANE, 1, 3, "alice", BODY, "workers", "a/#")
    assert recorder.calls == [("give_back", ELSEWHERE, share, 40, 5.0), ("perform", [])]


def test_interest_is_told_at_the_end_of_the_turn() -> None:
    recorder = Recorder()
    port = port_of(recorder)

    port.interest_added("a/#", "", True)
    port.interest_discarded("b", "workers", False)

    assert recorder.calls == [
        ("add_interest", "a/#", "", True),
        ("wants_end_turn",),
        ("discard_interest", "b", "workers", False),
        ("wants_end_turn",),
    ]


@pytest.mark.parametrize(
    ("plan", "is_full"),
    [
        (MeshPlan((ELSEWHERE,)), False),
        (MeshPlan((ELSEWHERE, FURTHER)), True),
        (group_plan(ELSEWHERE, FURTHER), True),
        (group_plan(ELSEWHERE), False),
        (MeshPlan(is_broadcast=True), True),
    ],
)
def test_the_way_is_full_where_one_node_of_the_plan_has_no_room(plan: MeshPlan, is_full: bool) -> None:
    recorder = Recorder()
    recorder.is_full = lambda node: node == FURTHER

    assert port_of(recorder).is_full(plan) == is_full


def test_a_full_subscription_pauses_the_origin() -> None:
    recorder = Recorder()

    port_of(recorder).pause(ELSEWHERE, "a/#", True)

    assert recorder.calls == [("pause", ELSEWHERE, "a/#", True, 5.0), ("perform", [])]


def test_what_arrives_is_routed_with_its_age_and_whether_it_was_taken_is_told() -> None:
    recorder = Recorder()
    port = port_of(recorder)
    deliver = Deliver(ELSEWHERE, 7, BundleBatch(9, LANE, 1, 3, "alice", BODY, "workers", "a/#"), 40, 1)

    assert port.deliver(deliver)
    recorder.takes = False
    assert not port.deliver(deliver)

    assert recorder.calls[0] == ("take_remote", ELSEWHERE, 7, 9, 3, "alice", BODY, 40, "workers", "a/#")


def test_what_comes_back_pauses_and_congestion_reach_the_exchange() -> None:
    recorder = Recorder()
    port = port_of(recorder)

    port.returned(ELSEWHERE, BundleBatch(9, LANE, 1, 3, "alice", BODY, "workers", "a/#"), 4)
    port.pause_changed(ELSEWHERE, "a/#", True)
    port.pause_changed(ELSEWHERE, "a/#", False)
    port.congestion_changed(True)

    assert recorder.calls == [
        ("returned", ELSEWHERE, 9, 3, "alice", BODY, 4, "workers", "a/#"),
        ("hold", ELSEWHERE, "a/#"),
        ("release", ELSEWHERE, "a/#"),
        ("congestion_changed", True),
    ]
