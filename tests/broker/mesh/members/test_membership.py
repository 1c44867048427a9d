"""Records and claims: new, repeated, stale, refuted, conflicting, after leaving, about oneself, forged."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from quicbus.wire.node_frames import Claim, MemberRecord, Signed, Update
from quicbus_broker.mesh.config import MeshConfig, suspicion_timeout_s
from quicbus_broker.mesh.members.membership import MAX_ADDRESSES, Membership
from quicbus_broker.mesh.members.own_record import INCARNATION_STEP_MAX
from quicbus_broker.mesh.members.table import MemberTable, TableBase
from quicbus_broker.mesh.outputs import (
    MemberChanged,
    MemberForgotten,
    Misbehaved,
    NewsLearned,
    Output,
    SendFrame,
    State,
    Superseded,
)
from quicbus_broker.mesh.signing import Expired
from tests.broker.mesh.fake_signing import FakeSigning, altered, node_id, sealed

if TYPE_CHECKING:
    from collections.abc import Callable

ME, A, B, C, D, E = (node_id(number) for number in range(6))
BOOT = 100
CONFIG = MeshConfig()


class Node:
    """A membership with the calls that tests make of it; each returns its outputs."""

    def __init__(
        self, *members: Signed | Claim, config: MeshConfig = CONFIG, connected: tuple[bytes, ...] = ()
    ) -> None:
        self.table = MemberTable()
        self.signing = FakeSigning(ME)
        self.membership = Membership(
            ME, self.table, self.signing, config, random.Random(1), lambda node: node in connected
        )
        self.now = 10.0
        self.started = self.call(self.membership.start, "me", BOOT, "hybrid", ("me:1",))
        self.take(*members)

    def call(self, method: Callable[..., None], *args: Any, **options: Any) -> list[Output]:
        outputs: list[Output] = []
        method(*args, self.now, outputs, **options)
        return outputs

    def take(self, *news: Signed | Claim, source: bytes | None = E, is_comparison: bool = False) -> list[Output]:
        records = [item for item in news if isinstance(item, Signed)]
        claims = [item for item in news if isinstance(item, Claim)]
        return self.call(self.membership.take, records, claims, source, is_comparison=is_comparison)

    def suspect(self, node: bytes) -> list[Output]:
        return self.call(self.membership.suspect, node)

    def alive_seen(self, node: bytes) -> list[Output]:
        return self.call(self.membership.alive_seen, node)

    def tick_at(self, now: float) -> list[Output]:
        self.now = now
        return self.call(self.membership.tick)

    def state(self, node: bytes) -> State | None:
        entry = self.table.get(node)
        return entry.state if entry else None

    @property
    def own(self) -> MemberRecord:
        return self.membership.own

    def own_news(self) -> NewsLearned:
        return NewsLearned(None, records=(self.membership.own_signed,))

    def own_update(self) -> Update:
        return Update(records=(self.membership.own_signed,))


def suspect(node: bytes, incarnation: int = 1, by: bytes = C, age_s: int = 0) -> Claim:
    return Claim(node, incarnation, "suspect", by, age_s)


def failed(node: bytes, incarnation: int = 1, by: bytes = C, age_s: int = 0) -> Claim:
    return Claim(node, incarnation, "failed", by, age_s)


def changed(node: bytes, before: State | None, after: State, *, has_moved: bool = False) -> MemberChanged:
    return MemberChanged(node, node.hex()[:4], before, after, has_moved)


ALIVE, SUSPECT, FAILED, LEFT = State.ALIVE, State.SUSPECT, State.FAILED, State.LEFT

# --- records of others ---


def test_a_new_member_is_taken_and_told_on() -> None:
    node = Node()
    record = sealed(A)
    assert node.take(record) == [NewsLearned(E, records=(record,)), changed(A, None, ALIVE)]
    assert node.state(A) is ALIVE


def test_a_repeated_record_changes_nothing_and_is_not_opened_again() -> None:
    record = sealed(A)
    node = Node(record)
    opened = node.signing.opened
    node.signing._cache.clear()
    assert node.take(record, record) == []
    assert node.signing.opened == opened


def test_a_stale_record_changes_nothing_and_is_not_opened() -> None:
    node = Node(sealed(A, incarnation=3))
    opened = node.signing.opened
    assert node.take(sealed(A, incarnation=2, addresses=("old:1",))) == []
    assert node.signing.opened == opened


def test_a_newer_record_replaces_the_older() -> None:
    node = Node(sealed(A))
    newer = sealed(A, incarnation=2)
    assert node.take(newer) == [NewsLearned(E, records=(newer,)), changed(A, ALIVE, ALIVE)]


@pytest.mark.parametrize("fields", [{"addresses": ("h:2",), "incarnation": 2}, {"boot": 7}])
def test_a_new_address_or_boot_is_a_move_and_no_conflict(fields: dict[str, Any]) -> None:
    node = Node(sealed(A))
    moved = sealed(A, **fields)
    assert node.take(moved) == [NewsLearned(E, records=(moved,)), changed(A, ALIVE, ALIVE, has_moved=True)]
    assert len(node.table) == 2


def test_only_what_is_new_of_many_is_told_on() -> None:
    node = Node(sealed(A), sealed(B, incarnation=5))
    new = sealed(C)
    outputs = node.take(sealed(A), sealed(B), new, suspect(A), suspect(D), suspect(B, 4))
    assert outputs == [NewsLearned(E, (new,), (suspect(A),)), changed(C, None, ALIVE), changed(A, ALIVE, SUSPECT)]


def test_two_members_of_one_name_are_both_known() -> None:
    node = Node(sealed(A, name="twin"), sealed(B, name="twin"))
    assert (node.state(A), node.state(B)) == (ALIVE, ALIVE)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_records_of_one_incarnation_all_choose_the_same(is_reversed: bool) -> None:
    records = [sealed(A, incarnation=9, addresses=("x:1",)), sealed(A, incarnation=9, addresses=("y:1",))]
    node = Node(*(reversed(records) if is_reversed else records))
    entry = node.table.get(A)
    assert entry is not None
    assert entry.record.addresses == ("y:1",)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_boots_of_one_incarnation_the_later_counts(is_reversed: bool) -> None:
    records = [sealed(A, incarnation=9, boot=1), sealed(A, incarnation=9, boot=2)]
    node = Node(*(reversed(records) if is_reversed else records))
    entry = node.table.get(A)
    assert entry is not None
    assert entry.record.boot == 2


# --- leaving ---


def test_a_member_that_leaves_is_told_apart_from_one_that_failed() -> None:
    node = Node(sealed(A))
    left = sealed(A, incarnation=2, left=True)
    assert node.take(left) == [NewsLearned(E, records=(left,)), changed(A, ALIVE, LEFT)]


def test_leaving_beats_alive_of_the_same_incarnation_in_any_order() -> None:
    for records in ((sealed(A), sealed(A, left=True)), (sealed(A, left=True), sealed(A))):
        assert Node(*records).state(A) is LEFT


def test_after_leaving_claims_and_older_records_say_nothing() -> None:
    node = Node(sealed(A), sealed(A, incarnation=2, left=True))
    assert node.take(sealed(A), suspect(A), suspect(A, 2), failed(A, 2)) == []
    assert node.suspect(A) == []
    assert node.state(A) is LEFT


def test_who_failed_may_still_say_that_it_left() -> None:
    node = Node(sealed(A), sealed(B))
    node.take(failed(A))
    assert changed(A, FAILED, LEFT) in node.take(sealed(A, incarnation=2, left=True))


def test_who_left_comes_back_with_a_new_boot() -> None:
    node = Node(sealed(A, left=True))
    assert changed(A, LEFT, ALIVE, has_moved=True) in node.take(sealed(A, boot=2))
    assert node.membership.next_timer() < math.inf, "the old retention is still put down"
    assert node.tick_at(node.membership.next_timer()) == []
    assert node.state(A) is ALIVE


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


# --- about this node ---


def test_a_node_begins_with_a_record_of_its_boot() -> None:
    node = Node()
    assert node.own == MemberRecord(node=ME, name="me", boot=BOOT, incarnation=BOOT, mode="hybrid", addresses=("me:1",))
    assert node.started == [node.own_news()]
    assert node.state(ME) is ALIVE


def test_a_node_that_stands_in_the_base_begins_with_that_record() -> None:
    own = sealed(ME, boot=BOOT)
    signing = FakeSigning(ME)
    base = TableBase.of([own, sealed(A)], signing)
    membership = Membership(ME, MemberTable(base), signing, CONFIG, random.Random(1))
    outputs: list[Output] = []
    membership.start("other", BOOT, "hybrid", (), 0.0, outputs)
    assert (outputs, membership.own_signed) == ([], own)


@pytest.mark.parametrize("claim", [suspect(ME, BOOT), failed(ME, BOOT), failed(ME, BOOT + 5)])
def test_a_claim_about_this_node_is_refuted(claim: Claim) -> None:
    node = Node()
    outputs = node.take(claim)
    assert node.own.incarnation == claim.incarnation + 1
    assert outputs == [node.own_news(), SendFrame(E, node.own_update())]
    assert (node.state(ME), node.membership.refutations) == (ALIVE, 1)


def test_a_claim_that_was_refuted_is_answered_and_not_refuted_again() -> None:
    node = Node()
    node.take(suspect(ME, BOOT))
    incarnation = node.own.incarnation
    assert node.take(suspect(ME, BOOT)) == [SendFrame(E, node.own_update())]
    assert node.own.incarnation == incarnation


def test_several_claims_about_this_node_are_refuted_once() -> None:
    node = Node()
    node.take(suspect(ME, BOOT, by=A), suspect(ME, BOOT, by=B), failed(ME, BOOT))
    assert node.membership.refutations == 1


def test_an_incarnation_that_cannot_be_honest_is_not_refuted() -> None:
    node = Node()
    (blame,) = node.take(failed(ME, BOOT + INCARNATION_STEP_MAX + 1))
    assert isinstance(blame, Misbehaved)
    assert node.own.incarnation == BOOT


def test_an_echo_of_the_own_record_says_nothing() -> None:
    node = Node()
    first = node.membership.own_signed
    node.take(suspect(ME, BOOT))
    assert node.take(node.membership.own_signed, first) == []


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_record_of_an_earlier_boot_is_outdone(ahead: int) -> None:
    node = Node()
    outputs = node.take(sealed(ME, boot=BOOT - 10, incarnation=BOOT + ahead))
    assert outputs == [node.own_news(), SendFrame(E, node.own_update())]
    assert node.own.incarnation == BOOT + ahead + 1


def test_a_later_boot_supersedes_a_process_whose_incarnation_has_grown_beyond_it() -> None:
    node = Node()
    node.take(sealed(ME, boot=BOOT - 10, incarnation=BOOT + 3))
    assert node.own.incarnation == BOOT + 4
    assert node.take(sealed(ME, boot=BOOT + 1, addresses=("new:1",))) == [Superseded(BOOT + 1, ("new:1",))]


def test_a_later_boot_of_this_node_supersedes_it_once() -> None:
    node = Node()
    later = sealed(ME, boot=BOOT + 1, addresses=("new:1",))
    assert node.take(later) == [Superseded(BOOT + 1, ("new:1",))]
    assert node.take(later, suspect(ME, BOOT)) == [], "it has nothing to say any more"
    assert node.own.incarnation == BOOT


def test_new_addresses_are_told_under_a_new_incarnation() -> None:
    node = Node()
    assert node.call(node.membership.set_addresses, ("me:2",)) == [node.own_news()]
    assert (node.own.addresses, node.own.incarnation) == (("me:2",), BOOT + 1)
    assert node.call(node.membership.set_addresses, ("me:2",)) == []


def test_nodes_in_between_are_told_under_a_new_incarnation() -> None:
    node = Node()
    assert node.call(node.membership.set_via, (A, B)) == [node.own_news()]
    assert (node.own.via, node.own.incarnation) == ((A, B), BOOT + 1)
    assert node.call(node.membership.set_via, (A, B)) == []


def test_a_renewed_certificate_is_told_under_a_new_incarnation() -> None:
    node = Node()
    outputs = node.call(node.membership.renewed)
    assert node.membership.own.incarnation == BOOT + 1
    assert outputs == [NewsLearned(None, records=(node.membership.own_signed,))]
    node.call(node.membership.leave)
    assert node.call(node.membership.renewed) == []


def test_leaving_is_told_once_and_is_the_last_word() -> None:
    node = Node(sealed(A))
    assert node.call(node.membership.leave) == [node.own_news()]
    assert (node.own.left, node.own.incarnation, node.state(ME)) == (True, BOOT + 1, LEFT)
    assert node.call(node.membership.leave) == []
    assert node.take(failed(ME, BOOT + 1), suspect(ME, BOOT)) == []
    assert node.call(node.membership.set_addresses, ("me:3",)) == []


# --- what no honest node sends ---


@pytest.mark.parametrize(
    "forged",
    [
        altered(sealed(A), addresses=("evil:1",)),
        altered(sealed(A), left=True),
        Signed(b"no msgpack", b"signature"),
        Signed(b"", b""),
        Signed(sealed(A).payload, sealed(B).signature),
        altered(sealed(ME, boot=BOOT), boot=BOOT + 1, incarnation=BOOT + 1),
    ],
    ids=["address", "left", "garbage", "empty", "other signature", "own"],
)
def test_a_forged_record_changes_nothing_and_is_blamed_on_who_sent_it(forged: Signed) -> None:
    node = Node()
    good = sealed(B)
    blame, *others = node.take(forged, good)
    assert isinstance(blame, Misbehaved)
    assert blame.node == E
    assert others == [NewsLearned(E, records=(good,)), changed(B, None, ALIVE)], "the others of the frame count"
    assert list(node.table.nodes()) == sorted([ME, B])


def test_a_record_under_a_certificate_that_has_expired_is_blamed_on_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()

    def open_record(signed: Signed) -> MemberRecord:
        raise Expired("expired")

    monkeypatch.setattr(node.signing, "open_record", open_record)
    assert node.take(sealed(A)) == []
    assert node.state(A) is None


def test_a_forged_record_of_a_known_member_changes_nothing() -> None:
    node = Node(sealed(A))
    (blame,) = node.take(altered(sealed(A), incarnation=2, left=True))
    assert isinstance(blame, Misbehaved)
    assert node.state(A) is ALIVE


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "king"},
        {"addresses": ("h:1",) * (MAX_ADDRESSES + 1)},
        {"addresses": ("a" * 261,)},
        {"via": (B,) * 17},
        {"name": "n" * 256},
    ],
    ids=["mode", "addresses", "address", "via", "name"],
)
def test_a_record_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    node = Node()
    (blame,) = node.take(sealed(A, **fields))
    assert isinstance(blame, Misbehaved)
    assert node.state(A) is None
