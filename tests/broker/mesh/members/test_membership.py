"""Records: new, repeated, stale, conflicting, after leaving, about oneself, forged."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from quicbus.wire.node_frames import Claim, MemberRecord, Signed
from quicbus_broker.mesh.members.membership import MAX_ADDRESSES, Membership
from quicbus_broker.mesh.members.own_record import INCARNATION_STEP_MAX
from quicbus_broker.mesh.members.table import MemberTable, TableBase
from quicbus_broker.mesh.outputs import Misbehaved, NewsLearned, Output, SendFrame, Superseded
from quicbus_broker.mesh.signing import Expired
from tests.broker.mesh.fake_signing import FakeSigning, altered, sealed
from tests.broker.mesh.members.membership_node import (
    ALIVE,
    BOOT,
    CONFIG,
    FAILED,
    LEFT,
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
