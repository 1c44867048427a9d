"""Which frames bring the trust list to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.frames import Trust
from quicbus.wire.node_frames import TrustVersion
from quicbus_broker.mesh.outputs import Misbehaved, SendFrame, TrustChanged, TrustLearned
from quicbus_broker.mesh.trust.spreading import ASK_AGAIN_S, FLOOD_LINKS, REFUSED_FOR_S, SEND_AGAIN_S, Spreading
from quicbus_broker.simulation.stand_in_trust import StandInTrust, trust_list

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import Output

OSLO, LIMA, ROME = b"o" * 16, b"l" * 16, b"r" * 16
NOW = 100.0


def make(version: int) -> Spreading:
    return Spreading(StandInTrust(trust_list(version, []) if version else b""))


def version(node: bytes, number: int) -> SendFrame:
    return SendFrame(node, TrustVersion(version=number))


def trust(node: bytes, number: int) -> SendFrame:
    return SendFrame(node, Trust(signed=trust_list(number, [])))


def test_a_node_says_which_list_it_has_when_a_connection_opens() -> None:
    outputs: list[Output] = []
    make(3).connected(OSLO, outputs)
    assert outputs == [version(OSLO, 3)]


def test_a_node_without_a_list_says_nothing() -> None:
    outputs: list[Output] = []
    spreading = make(0)
    spreading.connected(OSLO, outputs)
    spreading.remind([OSLO], outputs)
    assert outputs == []


def test_who_has_an_earlier_list_is_sent_the_later_one() -> None:
    outputs: list[Output] = []
    make(3).on_version(OSLO, TrustVersion(version=2), NOW, outputs)
    assert outputs == [trust(OSLO, 3)]


def test_who_has_the_same_list_is_answered_nothing() -> None:
    outputs: list[Output] = []
    make(3).on_version(OSLO, TrustVersion(version=3), NOW, outputs)
    assert outputs == []


def test_a_later_list_is_asked_for() -> None:
    outputs: list[Output] = []
    make(0).on_version(OSLO, TrustVersion(version=3), NOW, outputs)
    assert outputs == [version(OSLO, 0)]


def test_the_same_list_goes_to_the_same_node_only_now_and_then() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    for after_s in (0.0, 1.0, SEND_AGAIN_S - 0.1, SEND_AGAIN_S + 0.1):
        spreading.on_version(OSLO, TrustVersion(version=0), NOW + after_s, outputs)
    assert outputs == [trust(OSLO, 3), trust(OSLO, 3)]


def test_it_goes_again_at_once_over_a_new_connection() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    spreading.on_version(OSLO, TrustVersion(version=0), NOW, outputs)
    spreading.connected(OSLO, outputs)
    spreading.on_version(OSLO, TrustVersion(version=0), NOW, outputs)
    assert outputs == [trust(OSLO, 3), version(OSLO, 3), trust(OSLO, 3)]


def test_a_later_list_is_taken_kept_and_told() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    spreading.on_trust(OSLO, Trust(signed=trust_list(4, [])), NOW, outputs)
    assert outputs == [TrustLearned(trust_list(4, [])), TrustChanged(OSLO)]


def test_a_list_that_is_not_later_changes_nothing() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    for number in (2, 3):
        spreading.on_trust(OSLO, Trust(signed=trust_list(number, [])), NOW, outputs)
    assert outputs == []


def test_a_list_that_nobody_signed_is_held_against_who_sent_it() -> None:
    outputs: list[Output] = []
    make(3).on_trust(OSLO, Trust(signed=b"made up"), NOW, outputs)
    assert outputs == [Misbehaved(OSLO, "a trust list that no authority has signed")]


def test_a_list_that_is_too_large_is_not_even_looked_at() -> None:
    outputs: list[Output] = []
    make(3).on_trust(OSLO, Trust(signed=bytes(limits.MAX_TRUST_SIZE + 1)), NOW, outputs)
    assert outputs == [Misbehaved(OSLO, "a trust list of 200001 bytes")]


def test_a_change_goes_to_all_neighbors_but_its_source_and_those_that_have_it() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    spreading.on_version(ROME, TrustVersion(version=3), NOW, outputs)
    spreading.spread([OSLO, LIMA, ROME], [], OSLO, NOW, outputs)
    assert outputs == [trust(LIMA, 3)]


def test_in_a_large_mesh_a_change_goes_along_the_tree_and_is_told_to_the_others() -> None:
    outputs: list[Output] = []
    nodes = [bytes([number]) * 16 for number in range(FLOOD_LINKS + 1)]
    make(3).spread(nodes, nodes[:2], None, NOW, outputs)
    assert outputs == [trust(node, 3) for node in nodes[:2]] + [version(node, 3) for node in nodes[2:]]


def test_of_many_that_have_a_later_list_one_at_a_time_is_asked() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    for node in (OSLO, LIMA, ROME):
        spreading.on_version(node, TrustVersion(version=4), NOW, outputs)
    assert outputs == [version(OSLO, 3)]
    spreading.on_version(LIMA, TrustVersion(version=5), NOW, outputs)
    spreading.on_version(ROME, TrustVersion(version=5), NOW + ASK_AGAIN_S, outputs)
    assert outputs == [version(OSLO, 3), version(LIMA, 3), version(ROME, 3)]


def test_each_neighbor_in_turn_is_reminded() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    for _ in range(4):
        spreading.remind([OSLO, LIMA], outputs)
    assert outputs == [version(node, 3) for node in (LIMA, OSLO, LIMA, OSLO)]
    spreading.remind([], outputs)
    assert len(outputs) == 4


def test_a_revoked_node_was_told_for_a_while() -> None:
    outputs: list[Output] = []
    spreading = make(3)
    assert not spreading.was_told(OSLO, NOW)
    spreading.tell(OSLO, NOW, outputs)
    assert outputs == [trust(OSLO, 3)]
    assert spreading.was_told(OSLO, NOW + REFUSED_FOR_S - 1)
    assert not spreading.was_told(OSLO, NOW + REFUSED_FOR_S + 1)
