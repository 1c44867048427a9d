"""What a member may make others believe of third ones, and how often: claims, records, and answers to them."""

from __future__ import annotations

from quicbus.wire.node_frames import Update
from quicbus_broker.mesh.conduct import Ask, Conduct
from quicbus_broker.mesh.members.turnover import ACCUSATIONS, RECORDS, REFUTATIONS
from quicbus_broker.mesh.outputs import Misbehaved, NewsLearned, SendFrame
from quicbus_broker.mesh.signing import Expired
from tests.broker.mesh.fake_signing import node_id, sealed
from tests.broker.mesh.members.membership_node import (
    ALIVE,
    BOOT,
    FAILED,
    ME,
    SUSPECT,
    A,
    B,
    E,
    Node,
    changed,
    failed,
    suspect,
)


def refused(node: Node) -> dict[str, int]:
    return dict(node.membership._conduct.refused)


def test_a_member_that_is_linked_to_this_node_has_not_failed_because_one_says_so() -> None:
    node = Node(sealed(A), connected=(A,))
    assert node.take(failed(A, by=B)) == [
        SendFrame(A, Update(claims=(suspect(A, by=B),))),
        NewsLearned(E, claims=(suspect(A, by=B),)),
        changed(A, ALIVE, SUSPECT),
    ]
    node.take(failed(A, by=B))
    assert node.state(A) is SUSPECT


def test_it_has_once_it_did_not_answer_for_a_while() -> None:
    node = Node(sealed(A), suspect(A), connected=(A,))
    node.now += 2.0
    node.take(failed(A, by=B))
    assert node.state(A) is FAILED


def test_who_refutes_again_and_again_is_not_suspected_on_the_word_of_others_any_more() -> None:
    node = Node(sealed(A))
    burst = int(ACCUSATIONS[0])
    for incarnation in range(1, burst + 3):
        node.take(suspect(A, incarnation))
        assert (node.state(A) is SUSPECT) is (incarnation <= burst)
        node.take(sealed(A, incarnation=incarnation + 1))
    assert refused(node) == {"claims_too_often": 2}
    node.suspect(A)
    assert node.state(A) is SUSPECT


def test_who_was_not_accused_for_a_while_may_be_again() -> None:
    node = Node(sealed(A))
    for incarnation in range(1, 11):
        node.take(suspect(A, incarnation), sealed(A, incarnation=incarnation + 1))
    node.now += 1 / ACCUSATIONS[1]
    node.take(suspect(A, 11))
    assert node.state(A) is SUSPECT


def test_records_of_one_member_are_taken_so_often() -> None:
    node = Node()
    last = 1 + int(RECORDS[0])
    for incarnation in range(1, last + 4):
        node.take(sealed(A, incarnation=incarnation))
    entry = node.table.get(A)
    assert entry is not None
    assert entry.incarnation == last
    assert refused(node) == {"records_too_often": 3}
    node.now += 1 / RECORDS[1]
    node.take(sealed(A, incarnation=last + 3))
    entry = node.table.get(A)
    assert entry is not None
    assert entry.incarnation == last + 3


def test_all_that_one_frame_says_of_this_node_is_answered_once() -> None:
    node = Node()
    assert node.take(*[suspect(ME, BOOT - 1)] * 100) == [SendFrame(E, node.own_update())]
    outputs = node.take(*[suspect(ME, BOOT + step) for step in range(100)])
    assert outputs == [node.own_news(), SendFrame(E, node.own_update())]
    assert (node.own.incarnation, node.membership.refutations) == (BOOT + 100, 1)


def test_a_believable_claim_is_refuted_beside_one_that_is_not() -> None:
    node = Node()
    blame, *answer = node.take(suspect(ME, 1 << 60), suspect(ME, BOOT))
    assert isinstance(blame, Misbehaved)
    assert answer == [node.own_news(), SendFrame(E, node.own_update())]


def test_refuting_is_bounded_and_what_could_not_be_refuted_at_once_is_refuted_later() -> None:
    node = Node()
    burst = int(REFUTATIONS[0])
    for _ in range(burst + 5):
        node.take(suspect(ME, node.own.incarnation))
    assert node.membership.refutations == burst
    due = node.membership.next_timer()
    assert due <= node.now + 1 / REFUTATIONS[1]
    assert node.tick_at(due) == [node.own_news()]
    assert node.membership.refutations == burst + 1
    assert node.membership.next_timer() > due


def test_what_one_neighbour_claims_of_others_is_bounded() -> None:
    node = Node(*[sealed(node_id(number)) for number in range(10, 20)])
    conduct = node.membership._conduct
    conduct.spend(E, Ask.CLAIMS, node.now, 1e4)
    assert node.take(suspect(node_id(10))) == []
    assert refused(node) == {"claims_too_often": 1}
    assert node.take(suspect(ME, BOOT)) == [node.own_news(), SendFrame(E, node.own_update())]
    node.take(suspect(node_id(10)), source=B)
    assert node.state(node_id(10)) is SUSPECT


def test_records_with_expired_certificates_are_looked_at_so_often() -> None:
    node = Node()
    conduct = Conduct(lambda: 0)
    node.membership._conduct = conduct
    opened = 0

    def expired(signed: object) -> None:
        nonlocal opened
        opened += 1
        raise Expired("it was valid once")

    node.signing.open_record = expired  # type: ignore[assignment, method-assign]
    for number in range(300):
        node.take(sealed(node_id(number + 10)))
    assert opened == Ask.EXPIRED.value.burst
    assert conduct.refused["expired_too_often"] == 300 - opened
