"""What others want: taken in order, asked for where something is missing, passed on, void with its boot."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.topics import matches
from quicbus.wire.node_frames import Discover, InterestEntry, InterestPiece, InterestSeen, Signed
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.interest import interest_table
from quicbus_broker.mesh.interest.interest_table import MAX_LOG_SLACK, InterestBase, InterestTable
from quicbus_broker.mesh.interest.own_interest import OwnInterest
from quicbus_broker.mesh.members.table import Entry, MemberTable
from quicbus_broker.mesh.outputs import Misbehaved, NewsLearned, Output, SendFrame, State
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

if TYPE_CHECKING:
    from collections.abc import Sequence

ME, ANN, BEN, CID = (node_id(number) for number in range(4))


class Here:
    """The table of one node that knows Ann, Ben and Cid."""

    def __init__(self, base: InterestBase | None = None) -> None:
        self.signing = FakeSigning(ME)
        self.members = MemberTable()
        for node in (ME, ANN, BEN, CID):
            self.learn(node)
        self.table = InterestTable(ME, self.signing, self.members, base)

    def learn(self, node: bytes, boot: int = 1) -> None:
        record = sealed(node, boot=boot)
        self.members.put(Entry(self.signing.open_record(record), record, State.ALIVE))

    def take(self, *pieces: Signed, source: bytes = CID) -> list[Output]:
        outputs: list[Output] = []
        self.table.take(pieces, source, 0.0, outputs)
        return outputs

    def who(self, topic: str) -> list[bytes]:
        return list(self.table.match(topic).plain)


def piece(
    node: bytes,
    version: int,
    *added: str | InterestEntry,
    removed: Sequence[str] = (),
    boot: int = 1,
    base: int = -1,
    reset: bool = False,
) -> Signed:
    entries = tuple(InterestEntry(each) if isinstance(each, str) else each for each in added)
    value = InterestPiece(
        node=node,
        boot=boot,
        base=version - 1 if base < 0 else base,
        version=version,
        reset=reset,
        added=entries,
        removed=tuple(InterestEntry(each) for each in removed),
    )
    return FakeSigning(node).seal_interest(value)


def test_what_is_new_is_matched_and_passed_on() -> None:
    here = Here()
    first = piece(ANN, 1, "a/#", InterestEntry("a/b", "workers", blocks=True))

    outputs = here.take(first)

    assert outputs == [NewsLearned(CID, interest=(first,))]
    match = here.table.match("a/b")
    assert match.plain == {ANN: False}
    assert match.groups == (("workers", "a/b", {ANN: True}),)
    assert here.members.interest_version(ANN) == here.table.version(ANN) == 1


def test_what_is_known_is_neither_checked_nor_passed_on() -> None:
    here = Here()
    first = piece(ANN, 1, "a")
    here.take(first)
    opened = here.signing.opened

    assert here.take(first, source=BEN) == []
    assert here.signing.opened == opened


def test_a_neighbour_hears_how_far_its_own_interest_is_known_also_when_it_repeats_it() -> None:
    here = Here()
    pieces = (piece(ANN, 1, "a"), piece(ANN, 2, "b"))

    assert here.take(*pieces, source=ANN)[-1] == SendFrame(ANN, InterestSeen(version=2))
    assert here.take(pieces[0], source=ANN) == [SendFrame(ANN, InterestSeen(version=2))]


def test_a_gap_is_asked_for_once_and_nothing_beyond_it_is_taken() -> None:
    here = Here()
    here.take(piece(ANN, 1, "a"))

    outputs = here.take(piece(ANN, 3, "c"))

    assert outputs == [SendFrame(CID, Discover(want=(ANN,), have_interest=((ANN, 1, 1),)))]
    assert here.take(piece(ANN, 4, "d"), source=BEN) == []
    assert here.who("c") == []
    here.take(piece(ANN, 2, "b"), piece(ANN, 3, "c"))
    assert here.who("c") == [ANN]


def test_a_reset_is_taken_over_any_gap_and_voids_what_was() -> None:
    here = Here()
    here.take(piece(ANN, 1, "a", "b"))

    here.take(piece(ANN, 9, "b", "c", reset=True))

    assert [here.who(topic) for topic in "abc"] == [[], [ANN], [ANN]]
    assert len(here.table.since(ANN, 1, 0)) == 1


def test_forged_unreadable_and_impossible_pieces_change_nothing() -> None:
    here = Here()
    good = piece(ANN, 1, "a")
    bad = (
        Signed(good.payload, b"x" * 16),
        Signed(b"\xc1", b""),
        piece(ANN, 1, "a/#/b"),
        piece(ANN, 1, InterestEntry("a", "no/group")),
    )

    outputs = here.take(*bad)

    assert [type(output) for output in outputs] == [Misbehaved] * 4
    assert here.who("a") == []
    assert here.take(good)


def test_pieces_of_strangers_of_oneself_and_of_older_boots_are_passed_over() -> None:
    here = Here()
    here.learn(ANN, boot=2)

    assert here.take(piece(node_id(9), 1, "a"), piece(ME, 1, "a"), piece(ANN, 5, "a", boot=1)) == []
    assert here.who("a") == []


def test_a_boot_that_is_not_known_yet_is_asked_for() -> None:
    here = Here()

    outputs = here.take(piece(ANN, 1, "a", boot=2))

    assert outputs == [SendFrame(CID, Discover(want=(ANN,), have_interest=((ANN, 0, 0),)))]


def test_a_new_boot_voids_what_the_old_one_wanted() -> None:
    here = Here()
    here.take(piece(ANN, 1, "a"), piece(ANN, 2, "b"))
    here.learn(ANN, boot=2)

    here.table.member_moved(ANN)
    assert (here.who("a"), here.who("b")) == ([], [])
    assert here.members.interest_version(ANN) == 0

    here.take(piece(ANN, 1, "b", boot=2))
    assert (here.who("a"), here.who("b")) == ([], [ANN])


def test_who_is_gone_is_not_matched_and_not_forgotten() -> None:
    here = Here()
    here.take(piece(ANN, 1, "a", InterestEntry("a", "g")))

    here.table.member_gone(ANN)
    match = here.table.match("a")
    assert (match.plain, match.groups) == ({}, ())

    here.table.member_back(ANN)
    assert here.who("a") == [ANN]


def test_pieces_are_passed_on_from_any_version() -> None:
    here, other = Here(), Here()
    pieces = [piece(ANN, 1, "a"), piece(ANN, 2, "b"), piece(ANN, 3, removed=["a"])]
    here.take(*pieces)

    assert here.table.since(ANN, 1, 1) == tuple(pieces[1:])
    assert here.table.since(ANN, 7, 1) == tuple(pieces)
    other.take(*here.table.since(ANN, 0, 0))
    assert (other.who("a"), other.who("b")) == ([], [ANN])


def test_the_pieces_of_a_member_that_never_tells_all_anew_are_bounded() -> None:
    here = Here()
    for version in range(1, 2 * MAX_LOG_SLACK):
        here.take(piece(ANN, version, *([] if version % 2 else ["a"]), removed=["a"] if version % 2 else []))

    assert len(here.table.since(ANN, 1, 0)) < MAX_LOG_SLACK


def test_who_listens_hears_which_topics_are_matched_differently() -> None:
    here = Here()
    heard: list[str | None] = []
    here.table.on_change = heard.append

    here.take(piece(ANN, 1, "a/b"))
    here.take(piece(ANN, 2, "a/+"))
    here.table.member_gone(ANN)

    assert heard == ["a/b", None, "a/b", None]


def test_tables_on_a_shared_start_differ_from_it_alone() -> None:
    signing = Here().signing
    pieces = [piece(node, 1, "a", InterestEntry("a", "g")) for node in (ME, ANN, BEN)]
    base = InterestBase.of(pieces, signing)
    one, other = Here(base), Here(base)
    assert base.versions()[ANN] == (1, 1)

    assert one.take(piece(ANN, 2, "b", removed=["a"]))
    one.table.member_gone(BEN)

    assert (one.who("a"), one.who("b")) == ([], [ANN])
    assert one.table.match("a").groups == (("g", "a", {ANN: False}),)
    assert len(one.table.since(ANN, 1, 0)) == 2
    assert (other.who("a"), other.who("b")) == ([ANN, BEN], [])
    assert other.table.since(ANN, 1, 0) == (pieces[1],)


def test_what_the_member_table_has_forgotten_is_forgotten() -> None:
    here = Here()
    here.take(piece(ANN, 1, "a"))
    here.table.member_gone(ANN)
    here.members.remove(ANN)
    for number in range(100, 165):
        here.table.member_gone(node_id(number))

    assert here.table.version(ANN) == 0
    assert here.table.since(ANN, 1, 0) == ()


@pytest.mark.parametrize("seed", range(30))
def test_in_whatever_order_pieces_come_tables_end_equal(seed: int) -> None:
    """Three nodes subscribe at random; a table that hears late, twice and out of order asks until it knows all."""
    rng = random.Random(seed)
    here = Here()
    owners = {node: OwnInterest(node, 1, FakeSigning(node), MeshConfig()) for node in (ANN, BEN, CID)}
    held: dict[bytes, list[str]] = {node: [] for node in owners}
    told: list[Signed] = []
    filters = ["a", "b", "a/b", "a/+", "#", "+/b"]
    for _ in range(100):
        node = rng.choice((ANN, BEN, CID))
        if held[node] and rng.random() < 0.5:
            owners[node].discard(held[node].pop(), "", False)
        else:
            held[node].append(rng.choice(filters))
            owners[node].add(held[node][-1], "", False)
        outputs: list[Output] = []
        owners[node].flush(0.0, outputs)
        told += [signed for output in outputs if isinstance(output, NewsLearned) for signed in output.interest]
        here.take(*rng.sample(told, min(len(told), 3)))

    for node, own in owners.items():
        here.take(*own.since(node, 1, here.table.version(node)))
        assert here.table.version(node) == own.version, f"seed {seed}"
    for topic in ("a", "b", "a/b", "x", "x/b"):
        wanted = {node for node in owners if any(matches(filter, topic) for filter in held[node])}
        assert set(here.who(topic)) == wanted, f"seed {seed}: {topic}"


def test_a_member_may_want_so_many_bytes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_INTEREST_SIZE", 10)
    here = Here()
    assert isinstance(here.take(piece(ANN, 1, "12345", InterestEntry("1", "123")))[0], NewsLearned)
    assert here.take(piece(ANN, 2, "12")) == []
    assert any(isinstance(each, Misbehaved) for each in here.take(piece(ANN, 2, "12"), source=ANN))
    assert here.table.dropped == {"interest_too_large": 2}
    assert here.who("12") == []
    here.take(piece(ANN, 2, removed=("12345",)))
    here.take(piece(ANN, 3, "123456"))
    assert here.who("123456") == [ANN]
    here.take(piece(ANN, 4, "1234567890", reset=True))
    assert here.who("1234567890") == [ANN]


def test_the_pieces_kept_of_a_member_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest_table, "MAX_LOG_SIZE_SLACK", 2_000)
    here = Here()
    for version in range(1, 50):
        here.take(piece(ANN, version, "x" * 400, removed=("x" * 400,)))
        assert sum(len(signed.payload) for signed in here.table.since(ANN, 1, 0)) < 2_000 + 5 * 400
    assert here.table.version(ANN) == 49


@pytest.mark.parametrize(
    ("filter", "blocks"),
    [("a/b", True), ("a/+", True), ("g/h", True), ("c", False), ("a", False), ("c/d", False), ("", False)],
)
def test_who_blocks_what_is_known_also_where_another_filter_covers_it(filter: str, blocks: bool) -> None:
    here = Here()
    here.take(piece(ANN, 1, InterestEntry("a/+", "", True), InterestEntry("g/h", "workers", True), "c", "c/#"))
    assert here.table.blocks(ANN, filter) is blocks
    assert not here.table.blocks(BEN, filter)


def test_who_blocks_what_changes_with_its_interest() -> None:
    here = Here()
    here.take(piece(ANN, 1, InterestEntry("a/+", "", True)))
    assert here.table.blocks(ANN, "a/b")
    here.take(piece(ANN, 2, InterestEntry("a/+", "", False)))
    assert not here.table.blocks(ANN, "a/b")


def test_who_blocks_more_than_can_be_compared_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest_table, "MAX_BLOCKING", 2)
    here = Here()
    here.take(piece(ANN, 1, *(InterestEntry(f"a/{number}/+", "", True) for number in range(3))))
    assert here.table.blocks(ANN, "b")
