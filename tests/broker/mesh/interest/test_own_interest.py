"""The own interest: aggregated, told in differences, told anew when those outweigh it, acknowledged."""

from __future__ import annotations

import random

import pytest

from quicbus.topics import matches
from quicbus.wire.node_frames import InterestEntry, InterestPiece
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.interest import aggregate, own_interest
from quicbus_broker.mesh.interest.own_interest import OwnInterest
from quicbus_broker.mesh.members.table import Entry, MemberTable
from quicbus_broker.mesh.outputs import NewsLearned, Output, SpreadReached, State
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

ME, ANN, BEN = node_id(0), node_id(1), node_id(2)
BOOT = 5


class Told:
    """An own interest, and what a node that hears all of it knows."""

    def __init__(self, **config: int) -> None:
        self.signing = FakeSigning(ME)
        record = self.signing.open_record(sealed(ME, boot=BOOT))
        self.table = MemberTable()
        self.table.put(Entry(record, sealed(ME, boot=BOOT), State.ALIVE))
        self.own = OwnInterest(ME, BOOT, self.signing, MeshConfig(**config), self.table)  # type: ignore[arg-type]
        self.known: dict[tuple[str, str], bool] = {}
        self.version = 0
        self.outputs: list[Output] = []

    def flush(self) -> list[InterestPiece]:
        outputs: list[Output] = []
        self.own.flush(0.0, outputs)
        self.outputs += outputs
        pieces = [
            self.signing.open_interest(signed)
            for output in outputs
            if isinstance(output, NewsLearned)
            for signed in output.interest
        ]
        for piece in pieces:
            assert piece.base == self.version
            self.version = piece.version
            apply(self.known, piece)
        return pieces

    def finish(self) -> list[InterestPiece]:
        """Flush until there is nothing left to do."""
        pieces = self.flush()
        while self.own.is_busy:
            pieces += self.flush()
        return pieces


def apply(known: dict[tuple[str, str], bool], piece: InterestPiece) -> None:
    if piece.reset:
        known.clear()
    for entry in piece.removed:
        del known[(entry.filter, entry.group)]
    for entry in piece.added:
        known[(entry.filter, entry.group)] = entry.blocks


def test_what_a_turn_brought_is_one_difference() -> None:
    told = Told()
    told.own.add("a", "", False)
    told.own.add("b", "workers", False)

    (piece,) = told.flush()

    assert piece.added == (InterestEntry("a"), InterestEntry("b", "workers"))
    assert (piece.boot, piece.base, piece.version, piece.reset) == (BOOT, 0, 1, True)
    assert told.flush() == []
    assert told.table.interest_version(ME) == told.own.version == 1


def test_what_came_and_went_in_one_turn_is_not_told() -> None:
    told = Told()
    told.own.add("a", "", False)
    told.own.discard("a", "", False)

    assert told.flush() == []


def test_equal_filters_are_told_once_and_go_with_the_last() -> None:
    told = Told()
    told.own.add("a", "", False)
    told.flush()
    told.own.add("a", "", False)
    told.own.discard("a", "", False)
    assert told.flush() == []

    told.own.discard("a", "", False)

    (piece,) = told.flush()
    assert piece.removed == (InterestEntry("a"),)
    assert told.known == {}


def test_reply_topics_are_never_interest() -> None:
    told = Told()
    told.own.add(f"$quicbus/reply/{ME.hex()}/{ME.hex()}/#", "", False)

    assert told.flush() == []


def test_a_covered_filter_is_not_told_until_its_cover_goes() -> None:
    told = Told()
    told.own.add("a/#", "", False)
    told.own.add("a/b", "", False)
    told.flush()
    assert list(told.known) == [("a/#", "")]

    told.own.discard("a/#", "", False)
    told.flush()

    assert list(told.known) == [("a/b", "")]


def test_a_later_cover_takes_the_place_of_what_it_covers() -> None:
    told = Told()
    for filter in ("a/b", "a/+", "c"):
        told.own.add(filter, "", False)
    told.flush()
    told.own.add("a/#", "", False)

    (piece,) = told.flush()

    assert (piece.removed, piece.added) == ((InterestEntry("a/+"),), (InterestEntry("a/#"),))


def test_a_filter_that_blocks_is_covered_only_by_one_that_does() -> None:
    told = Told()
    told.own.add("#", "", False)
    told.own.add("a", "", True)
    told.flush()
    assert told.known == {("#", ""): False, ("a", ""): True}

    told.own.add("#", "", True)
    told.flush()
    assert told.known == {("#", ""): True}

    told.own.discard("#", "", True)
    told.flush()
    assert told.known == {("#", ""): False, ("a", ""): True}


def test_groups_neither_cover_nor_are_covered() -> None:
    told = Told()
    for filter, group in (("a/#", ""), ("a/b", "g"), ("#", "g"), ("x", "g"), ("x", "")):
        told.own.add(filter, group, False)
    told.flush()

    assert len(told.known) == 5


def test_all_is_told_anew_once_the_differences_outweigh_it() -> None:
    told = Told()
    told.own.add("stays", "", False)
    told.flush()
    resets = 0
    for _ in range(200):
        told.own.add("comes", "", False)
        resets += sum(piece.reset for piece in told.flush())
        told.own.discard("comes", "", False)
        resets += sum(piece.reset for piece in told.flush())

    assert 2 <= resets <= 10
    assert told.known == {("stays", ""): False}
    assert len(told.own.since(ME, BOOT, 0)) < 200


def test_since_leads_from_every_version_to_the_present_one() -> None:
    told = Told()
    states: list[dict[tuple[str, str], bool]] = [{}]
    for number in range(150):
        told.own.add(f"t{number % 7}", "", False)
        if number % 3 == 0:
            told.own.discard(f"t{number % 5}", "", False)
        if told.flush():
            states.append(dict(told.known))

    for version, state in enumerate(states):
        for signed in told.own.since(ME, BOOT, version):
            apply(state, told.signing.open_interest(signed))
        assert state == told.known, version
    assert told.own.since(ME, BOOT - 1, 10_000) == told.own.since(ME, BOOT, 0)


def test_a_large_difference_is_cut_so_that_each_piece_fits_a_frame() -> None:
    told = Told()
    for number in range(10):
        told.own.add(f"{number}{'x' * 65_000}", "g" * 60_000, False)

    pieces = told.flush()

    assert len(pieces) > 1
    assert [piece.reset for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert len(told.known) == 10
    assert max(len(signed.payload) for signed in told.own.since(ME, BOOT, 0)) < 200_000


def test_above_the_bound_siblings_are_told_as_one_until_there_is_room_again() -> None:
    told = Told(max_interest=20)
    for number in range(21):
        told.own.add(f"a/{number}", "", number == 3)
    told.flush()
    assert told.known == {("a/+", ""): True}

    for number in range(11):
        told.own.discard(f"a/{number}", "", number == 3)
    told.own.add("other", "", False)
    told.own.discard("other", "", False)
    told.flush()

    assert sorted(told.known) == sorted((f"a/{number}", "") for number in range(11, 21))


def test_a_coarse_filter_goes_with_the_last_that_it_stands_for() -> None:
    told = Told(max_interest=20)
    for number in range(30):
        told.own.add(f"a/{number}", "", False)
    for number in range(14):
        told.own.add(f"b/{number}", "", False)
    told.flush()
    for number in range(30):
        told.own.discard(f"a/{number}", "", False)
    told.flush()

    assert not any(matches(filter, "a/1") for filter, _ in told.known)


def test_spread_is_what_all_neighbours_have_acknowledged() -> None:
    told, outputs = Told(), list[Output]()
    told.own.add("a", "", False)
    told.flush()
    assert told.outputs[-1] == SpreadReached(1)

    told.own.neighbor_up(ANN)
    told.own.neighbor_up(BEN)
    assert told.own.spread_version == 0
    told.own.acknowledged(ANN, 1, outputs)
    told.own.acknowledged(BEN, 99, outputs)
    assert outputs == []
    told.own.neighbor_down(BEN, outputs)

    assert outputs == [SpreadReached(1)]
    told.own.acknowledged(BEN, 1, outputs)
    assert outputs == [SpreadReached(1)]


@pytest.mark.parametrize("steps", [own_interest.FLUSH_STEPS, 1])
@pytest.mark.parametrize("seed", range(40))
def test_others_know_of_every_topic_that_is_wanted(seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random subscriptions, some beyond the bound: what is told covers all of them, and blocks where one does; also
    while only a step a turn is done of what follows from each."""
    monkeypatch.setattr(own_interest, "FLUSH_STEPS", steps)
    monkeypatch.setattr(aggregate, "AT_ONCE_STEPS", min(steps, aggregate.AT_ONCE_STEPS))
    rng = random.Random(seed)
    most = rng.choice((4, 8, 1000))
    told = Told(max_interest=most)
    held: list[tuple[str, str, bool]] = []
    topics = [f"{a}/{b}/{c}" for a in "abx" for b in "ab" for c in "abc"] + ["a", "a/b", "$s/a", "$s"]
    filters = [*topics, "#", "+/b", "a/#", "a/+/b", "+/+/+", "a/+", "$s/#", "+"]
    for _ in range(120):
        if held and rng.random() < 0.45:
            told.own.discard(*held.pop(rng.randrange(len(held))))
        else:
            held.append((rng.choice(filters), rng.choice(("", "", "", "g")), rng.random() < 0.2))
            told.own.add(*held[-1])
        if rng.random() < 0.5:
            continue
        told.flush()
        if rng.random() < 0.1:
            told.finish()
        for topic in topics:
            wanted = [each for each in held if not each[1] and matches(each[0], topic)]
            heard = [blocks for (filter, group), blocks in told.known.items() if not group and matches(filter, topic)]
            assert bool(wanted) <= bool(heard), f"seed {seed}: {topic}"
            assert any(each[2] for each in wanted) <= any(heard), f"seed {seed}: {topic}"
            if most == 1000 and not told.own.is_busy:
                assert bool(wanted) == bool(heard), f"seed {seed}: {topic}"
                assert any(each[2] for each in wanted) == any(heard), f"seed {seed}: {topic}"
        assert {key for key in told.known if key[1]} == {(each[0], "g") for each in held if each[1]}, f"seed {seed}"
    for each in held:
        told.own.discard(*each)
    told.finish()
    assert told.known == {}, f"seed {seed}"


def test_what_covers_thousands_is_worked_through_in_pieces_and_nothing_is_unknown_meanwhile() -> None:
    told = Told()
    for number in range(5_000):
        told.own.add(f"a/{number}", "", False)
    told.finish()
    told.own.add("a/#", "", False)
    pieces = [len(piece.removed) for piece in told.flush()]
    assert ("a/#", "") in told.known
    pieces += [len(piece.removed) for piece in told.finish()]
    assert list(told.known) == [("a/#", "")]
    assert max(pieces) <= own_interest.FLUSH_STEPS + aggregate.AT_ONCE_STEPS

    told.own.discard("a/#", "", False)
    pieces = []
    while told.own.is_busy:
        assert ("a/#", "") in told.known
        pieces += [len(piece.added) for piece in told.flush() if not piece.reset]
    assert len(told.known) == 5_000
    assert max(pieces) <= own_interest.FLUSH_STEPS + aggregate.AT_ONCE_STEPS


def test_making_thousands_coarse_and_fine_again_is_done_in_pieces() -> None:
    told = Told(max_interest=2_000)
    for number in range(2_500):
        told.own.add(f"a/+/{number}/#", "", False)
    told.flush()
    assert told.own.is_busy
    assert len(told.known) == 2_500
    told.finish()
    assert list(told.known) == [("a/+/#", "")]

    for number in range(1_500):
        told.own.discard(f"a/+/{number}/#", "", False)
    told.flush()
    assert told.own.is_busy
    assert ("a/+/#", "") in told.known
    told.finish()
    assert set(told.known) == {(f"a/+/{number}/#", "") for number in range(1_500, 2_500)}


def test_what_there_is_no_room_for_is_counted_and_told_once_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_interest, "MAX_TOLD_SIZE", 10)
    told = Told()
    for filter, group in (("123456", ""), ("78", "x" * 9), ("90", "")):
        told.own.add(filter, group, False)
    told.flush()
    assert told.known == {("123456", ""): False, ("90", ""): False}
    assert told.own.unannounced == 1
    told.own.discard("123456", "", False)
    told.own.discard("78", "x" * 9, False)
    told.own.add("abcdefgh", "", True)
    told.flush()
    assert told.known == {("90", ""): False, ("abcdefgh", ""): True}
    assert told.own.unannounced == 0
