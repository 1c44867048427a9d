"""Claims about others: new, repeated, late, refuted, this node's own, and what comes of them in time."""

from __future__ import annotations

import math

import pytest

from quicbus.wire.node_frames import Claim, Signed, Update
from quicbus_broker.mesh.config import MeshConfig, suspicion_timeout_s
from quicbus_broker.mesh.outputs import MemberForgotten, NewsLearned, SendFrame
from tests.broker.mesh.fake_signing import node_id, sealed
from tests.broker.mesh.members.membership_node import (
    ALIVE,
    CONFIG,
    FAILED,
    ME,
    SUSPECT,
    A,
    B,
    C,
    D,
    E,
    Node,
    changed,
    failed,
    suspect,
)

# --- claims ---


def test_a_suspicion_is_told_on_and_waits_for_a_refutation() -> None:
    node = Node(sealed(A))
    assert node.take(suspect(A)) == [NewsLearned(E, claims=(suspect(A),)), changed(A, ALIVE, SUSPECT)]
    assert node.membership.claims_about(A, node.now) == (suspect(A),)


def test_a_repeated_suspicion_says_nothing_new() -> None:
    node = Node(sealed(A), suspect(A))
    assert node.take(suspect(A), suspect(A)) == []


def test_another_accuser_is_told_on_until_enough_confirm() -> None:
    node = Node(sealed(A), suspect(A, by=B))
    accusers = [node_id(number) for number in range(10, 20)]
    told = [node.take(suspect(A, by=accuser)) for accuser in accusers]
    enough = CONFIG.suspicion_confirmations
    assert told[:enough] == [[NewsLearned(E, claims=(suspect(A, by=accuser),))] for accuser in accusers[:enough]]
    assert told[enough:] == [[]] * (len(accusers) - enough)


def test_a_failure_beats_alive_and_suspect() -> None:
    node = Node(sealed(A), sealed(B), suspect(B))
    outputs = node.take(failed(A), failed(B))
    news = NewsLearned(E, claims=(failed(A), failed(B)))
    assert outputs == [news, changed(A, ALIVE, FAILED), changed(B, SUSPECT, FAILED)]


def test_after_a_failure_claims_of_that_incarnation_say_nothing() -> None:
    node = Node(sealed(A), failed(A))
    assert node.take(failed(A, by=B), suspect(A), failed(A)) == []
    assert node.suspect(A) == []


@pytest.mark.parametrize("incarnation", [1, 3])
def test_a_claim_about_another_incarnation_is_dropped(incarnation: int) -> None:
    node = Node(sealed(A, incarnation=2))
    assert node.take(suspect(A, incarnation), failed(A, incarnation)) == []
    assert node.state(A) is ALIVE


def test_a_claim_about_nobody_known_is_dropped() -> None:
    assert Node().take(suspect(A), failed(A)) == []


def test_a_claim_of_a_kind_that_is_not_known_is_dropped() -> None:
    node = Node(sealed(A))
    assert node.take(Claim(A, 1, "alive", C), Claim(A, 1, "left", C), Claim(A, 1, "gone", C)) == []
    assert node.state(A) is ALIVE


@pytest.mark.parametrize("claim", [suspect(A), failed(A)])
def test_a_higher_incarnation_refutes(claim: Claim) -> None:
    node = Node(sealed(A))
    node.take(claim)
    before = node.state(A)
    assert before is not None
    refutation = sealed(A, incarnation=2)
    assert node.take(refutation) == [NewsLearned(E, records=(refutation,)), changed(A, before, ALIVE)]
    assert node.take(claim) == [], "the claim comes late"
    assert node.tick_at(node.membership.next_timer()) == []


def test_a_record_and_a_claim_about_it_in_one_frame_are_one_change() -> None:
    node = Node()
    record = sealed(A)
    assert node.take(record, failed(A)) == [NewsLearned(E, (record,), (failed(A),)), changed(A, None, FAILED)]


def test_whoever_is_accused_and_connected_is_told_first() -> None:
    node = Node(sealed(A), connected=(A,))
    assert node.take(suspect(A))[0] == SendFrame(A, Update(claims=(suspect(A),)))
    node = Node(sealed(A), connected=(A,))
    assert node.suspect(A)[0] == SendFrame(A, Update(claims=(suspect(A, by=ME),)))


# --- comparing with a table that was apart ---


def test_who_failed_elsewhere_and_is_alive_here_is_a_suspect_first() -> None:
    node = Node(sealed(A))
    outputs = node.take(failed(A, by=B, age_s=50), is_comparison=True)
    assert outputs == [NewsLearned(E, claims=(suspect(A, by=B),)), changed(A, ALIVE, SUSPECT)]
    node.tick_at(node.membership.next_timer())
    assert node.state(A) is FAILED


def test_a_member_that_is_learned_as_failed_is_no_suspect() -> None:
    node = Node()
    assert changed(A, None, FAILED) in node.take(sealed(A), failed(A), is_comparison=True)


def test_who_failed_here_too_in_an_older_incarnation_is_no_suspect() -> None:
    node = Node(sealed(A), failed(A))
    assert changed(A, FAILED, FAILED) in node.take(sealed(A, incarnation=2), failed(A, 2), is_comparison=True)


# --- what this node finds itself ---


def test_an_own_suspicion_is_told_to_all() -> None:
    node = Node(sealed(A))
    claim = suspect(A, by=ME)
    assert node.suspect(A) == [NewsLearned(None, claims=(claim,)), changed(A, ALIVE, SUSPECT)]
    assert node.suspect(A) == []


def test_an_own_suspicion_confirms_that_of_others() -> None:
    node = Node(sealed(A), suspect(A))
    assert node.suspect(A) == [NewsLearned(None, claims=(suspect(A, by=ME),))]


def test_nobody_suspects_itself_or_a_stranger() -> None:
    node = Node()
    assert node.suspect(ME) == []
    assert node.suspect(A) == []


def test_a_sign_of_life_ends_the_own_accusation_and_tells_the_accused() -> None:
    node = Node(sealed(A))
    node.suspect(A)
    told = SendFrame(A, Update(claims=(suspect(A, by=ME),)))
    assert node.alive_seen(A) == [told, changed(A, SUSPECT, ALIVE)]
    assert node.take(suspect(A, by=ME)) == [], "an echo of the own claim"
    assert node.tick_at(math.ceil(node.membership.next_timer())) == []
    assert node.state(A) is ALIVE


def test_a_sign_of_life_does_not_end_what_others_say() -> None:
    node = Node(sealed(A), suspect(A, by=B))
    node.suspect(A)
    told = SendFrame(A, Update(claims=(suspect(A, by=B), suspect(A, by=ME))))
    assert node.alive_seen(A) == [told]
    assert node.state(A) is SUSPECT
    assert node.membership.claims_about(A, node.now) == (suspect(A, by=B),)


def test_a_sign_of_life_of_one_that_is_alive_says_nothing() -> None:
    node = Node(sealed(A))
    assert node.alive_seen(A) == node.alive_seen(B) == node.alive_seen(ME) == []


def test_who_connects_is_told_what_it_must_refute() -> None:
    node = Node(sealed(A), failed(A), sealed(B), suspect(B, by=D), sealed(C))
    node.now += 30
    assert node.call(node.membership.connected, A, 1) == [
        SendFrame(A, Update(claims=(failed(A, by=ME, age_s=30),))),
    ]
    assert node.call(node.membership.connected, B, 1) == [SendFrame(B, Update(claims=(suspect(B, by=D),)))]
    assert node.call(node.membership.connected, C, 1) == []
    assert node.call(node.membership.connected, D, 1) == []


# --- time ---


def mesh_of(count: int, config: MeshConfig = CONFIG) -> Node:
    return Node(*(sealed(node_id(number)) for number in range(1, count)), config=config)


@pytest.mark.parametrize("confirmations", range(4))
def test_a_suspicion_that_nobody_refutes_becomes_a_failure_the_sooner_the_more_share_it(confirmations: int) -> None:
    node = mesh_of(20)
    accusers = [node_id(number) for number in range(2, 3 + confirmations)]
    node.take(*[suspect(A, by=accuser) for accuser in accusers])
    end = node.now + suspicion_timeout_s(CONFIG, 20, confirmations)
    assert node.tick_at(end - 0.2) == []
    claim = failed(A, by=ME)
    assert node.tick_at(end + 0.1) == [NewsLearned(ME, claims=(claim,)), changed(A, SUSPECT, FAILED)]


def test_next_timer_is_when_something_happens() -> None:
    node = mesh_of(20)
    assert node.membership.next_timer() == math.inf
    node.suspect(A)
    assert node.tick_at(node.membership.next_timer()) != []
    assert node.membership.next_timer() == pytest.approx(node.now + CONFIG.failed_retention_s, abs=0.2)


def test_confirmations_that_come_late_end_the_suspicion_at_once() -> None:
    node = mesh_of(20)
    node.suspect(A)
    node.now += suspicion_timeout_s(CONFIG, 20, 3) + 1
    node.take(*[suspect(A, by=node_id(number)) for number in (2, 3, 4)])
    assert node.membership.next_timer() <= node.now
    assert changed(A, SUSPECT, FAILED) in node.tick_at(node.now)


def test_a_new_suspicion_does_not_end_with_an_old_one() -> None:
    node = mesh_of(20)
    node.suspect(A)
    first_end = node.membership.next_timer()
    node.now = first_end - 1
    node.take(sealed(A, incarnation=2))
    node.suspect(A)
    assert node.tick_at(first_end) == []
    assert node.state(A) is SUSPECT
    assert changed(A, SUSPECT, FAILED) in node.tick_at(node.membership.next_timer())


def test_a_suspicion_lasts_longer_in_a_mesh_that_grew_meanwhile() -> None:
    node = mesh_of(5)
    node.suspect(A)
    end = node.membership.next_timer()
    node.take(*(sealed(node_id(number)) for number in range(5, 500)))
    assert node.tick_at(end) == []
    assert changed(A, SUSPECT, FAILED) in node.tick_at(node.membership.next_timer())


@pytest.mark.parametrize(
    ("gone", "retention"),
    [(failed(A), CONFIG.failed_retention_s), (sealed(A, incarnation=2, left=True), CONFIG.left_retention_s)],
)
def test_who_is_gone_for_long_is_forgotten(gone: Signed | Claim, retention: float) -> None:
    node = Node(sealed(A), gone)
    start = node.now
    assert node.tick_at(start + retention - 1) == []
    assert len(node.table) == 2
    assert node.tick_at(start + retention + 0.2) == [MemberForgotten(A)]
    assert len(node.table) == 1
    assert node.membership.next_timer() == math.inf


@pytest.mark.parametrize("is_left", [False, True])
def test_who_is_learned_from_another_is_forgotten_with_it(is_left: bool) -> None:
    teacher = Node(sealed(A, left=True)) if is_left else Node(sealed(A), failed(A))
    teacher.now += 3000
    entry = teacher.table.get(A)
    assert entry is not None
    learner = Node()
    learner.now = teacher.now
    learner.take(entry.signed, *teacher.membership.claims_about(A, teacher.now))
    for node in (teacher, learner):
        node.tick_at(10 + (CONFIG.left_retention_s if is_left else CONFIG.failed_retention_s) + 1)
        assert len(node.table) == 1


@pytest.mark.parametrize("age_s", [10**6, 2**63])
def test_a_claim_cannot_have_a_living_member_forgotten_at_once(age_s: int) -> None:
    node = Node(sealed(A))
    assert changed(A, ALIVE, FAILED) in node.take(failed(A, age_s=age_s))
    assert node.tick_at(node.now + CONFIG.failed_retention_s - 1) == []
    assert node.state(A) is FAILED
