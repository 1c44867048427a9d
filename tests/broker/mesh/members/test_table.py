"""The member table: order, digest, random picks, and standing on a shared start."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from quicbus_broker.mesh.members.table import BUCKETS, Entry, MemberTable, TableBase
from quicbus_broker.mesh.outputs import State
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

if TYPE_CHECKING:
    from collections.abc import Sequence

ME = node_id(0)
SIGNING = FakeSigning(ME)
NODES = [node_id(number) for number in range(200)]
A, B, C = NODES[:3]


def entry_of(node: bytes, state: State = State.ALIVE, **fields: object) -> Entry:
    signed = sealed(node, **fields)
    return Entry(SIGNING.open_record(signed), signed, state)


def table_of(nodes: Sequence[bytes], base: Sequence[bytes] = ()) -> MemberTable:
    table = MemberTable(TableBase.of([sealed(node) for node in base], SIGNING) if base else None)
    for node in nodes:
        table.put(entry_of(node))
    return table


def state_in(table: MemberTable, node: bytes) -> State | None:
    entry = table.get(node)
    return entry.state if entry else None


@pytest.mark.parametrize("shared", [0, 50, 200], ids=["no base", "half in a base", "all in a base"])
def test_members_are_in_the_order_of_their_ids(shared: int) -> None:
    table = table_of(NODES[shared:], NODES[:shared])
    assert list(table.nodes()) == sorted(NODES)
    assert len(table) == table.alive_count == len(NODES)
    in_buckets = [node for bucket in range(BUCKETS) for node in table.bucket_members(bucket)]
    assert in_buckets == sorted(NODES)
    assert all(table.bucket_of(node) == bucket for bucket in range(BUCKETS) for node in table.bucket_members(bucket))


def test_the_last_bucket_holds_the_highest_id() -> None:
    table = table_of([b"\xff" * 16, bytes(16)])
    assert table.bucket_members(BUCKETS - 1) == [b"\xff" * 16]
    assert table.bucket_members(0) == [bytes(16)]


def test_tables_on_one_base_do_not_see_each_others_changes() -> None:
    base = TableBase.of([sealed(node) for node in NODES], SIGNING)
    one, other = MemberTable(base), MemberTable(base)
    entry = one.get(A)
    assert entry is not None
    one.put(entry.as_state(State.FAILED))
    one.put(entry_of(B, boot=2))
    one.remove(C)
    assert (state_in(one, A), state_in(one, C), len(one), one.alive_count) == (State.FAILED, None, 199, 198)
    assert (state_in(other, A), state_in(other, C), len(other), other.alive_count) == (
        State.ALIVE,
        State.ALIVE,
        200,
        200,
    )
    assert other.digest() == MemberTable(base).digest()
    assert list(one.nodes()) == sorted(set(NODES) - {C})
    assert list(one.states()).count(State.FAILED) == 1


def test_tables_on_one_base_share_what_they_learn_later() -> None:
    base = TableBase.of([sealed(node) for node in NODES], SIGNING)
    signed = sealed(A, incarnation=2)
    record = SIGNING.open_record(signed)
    one, other = (MemberTable(base).entry(record, signed, State.ALIVE) for _ in range(2))
    assert one is other
    assert MemberTable(base).entry(record, signed, State.FAILED) is one.as_state(State.FAILED)


@pytest.mark.parametrize("seed", range(5))
def test_the_digest_depends_on_what_is_known_and_not_on_the_way_there(seed: int) -> None:
    rng = random.Random(seed)
    tables = [table_of([], NODES[:100]), table_of([]), table_of([], NODES)]
    for table in tables:
        todo = list(NODES)
        rng.shuffle(todo)
        for node in todo:
            for state in rng.sample([State.SUSPECT, State.LEFT, State.ALIVE], 3):
                table.put(entry_of(node, state, incarnation=rng.randrange(9)))
            if rng.random() < 0.3:
                table.remove(node)
            table.set_interest_version(node, rng.randrange(3), rng.randrange(5))
            number = NODES.index(node)
            table.put(entry_of(node, State.FAILED if number % 3 else State.ALIVE, boot=2))
            table.set_interest_version(node, 2, number)
    assert len({table.digest() for table in tables}) == 1, f"seed {seed}"
    assert len({(len(table), table.alive_count) for table in tables}) == 1, f"seed {seed}"


def test_removing_all_leaves_an_empty_digest() -> None:
    table = table_of(NODES[:50], NODES[50:])
    table.set_interest_version(A, 1, 7)
    for node in NODES:
        table.remove(node)
        table.remove(node)
    assert table.digest() == bytes(8 * BUCKETS)
    assert (len(table), table.alive_count, list(table.nodes())) == (0, 0, [])


def test_a_change_shows_in_one_bucket() -> None:
    table = table_of(NODES)
    before = table.digest()
    table.put(entry_of(A, incarnation=2))
    after = table.digest()
    bucket = table.bucket_of(A)
    assert [i for i in range(BUCKETS) if before[8 * i : 8 * i + 8] != after[8 * i : 8 * i + 8]] == [bucket]


def test_suspects_count_as_alive_in_the_digest_and_others_do_not() -> None:
    tables = {state: MemberTable() for state in State}
    for state, table in tables.items():
        table.put(entry_of(A, state))
    digests = {state: table.digest() for state, table in tables.items()}
    assert digests[State.SUSPECT] == digests[State.ALIVE]
    assert len(set(digests.values())) == 3


def test_interest_of_another_boot_or_of_a_member_that_is_gone_does_not_count() -> None:
    table = table_of([A])
    plain = table.digest()
    table.set_interest_version(A, 2, 5)
    assert (table.interest_version(A), table.digest()) == (0, plain)
    table.put(entry_of(A, boot=2))
    assert (table.interest_version(A), table.summary(A).interest) == (5, 5)
    table.put(entry_of(A, State.FAILED, boot=2))
    assert table.interest_version(A) == 0
    table.put(entry_of(A, boot=2, incarnation=3))
    assert table.interest_version(A) == 5, "it is back, and what it wants is still known"


def test_interest_may_come_before_the_record() -> None:
    early, late = MemberTable(), table_of([A])
    early.set_interest_version(A, 1, 3)
    early.put(entry_of(A))
    late.set_interest_version(A, 1, 3)
    assert early.digest() == late.digest()


def test_a_base_may_begin_with_interest() -> None:
    table = MemberTable(TableBase.of([sealed(A), sealed(B)], SIGNING, {A: (1, 4)}))
    other = table_of([A, B])
    other.set_interest_version(A, 1, 4)
    assert table.digest() == other.digest()
    assert (table.interest_version(A), table.interest_version(B)) == (4, 0)
    for each in (table, other):
        each.set_interest_version(A, 1, 5)
    assert table.digest() == other.digest()


@pytest.mark.parametrize("shared", [0, 20, 60])
def test_every_accepted_member_is_picked_about_as_often(shared: int) -> None:
    table = table_of(NODES[shared:60], NODES[:shared])
    for node in NODES[:60:2]:
        entry = table.get(node)
        assert entry is not None
        table.put(entry.as_state(State.FAILED))
    rng = random.Random(5)
    picked = Counter(table.pick(rng, lambda entry: entry.is_alive) for _ in range(6000))
    assert set(picked) == set(NODES[1:60:2])
    assert 140 < min(picked.values()) <= max(picked.values()) < 260


def test_in_a_small_table_the_only_accepted_member_is_found() -> None:
    table = table_of(NODES[10:20], NODES[:10])
    rng = random.Random(1)
    assert all(table.pick(rng, lambda entry: entry.record.node == B) == B for _ in range(20))
    assert table.pick(rng, lambda entry: False) is None
    assert MemberTable().pick(rng, lambda entry: True) is None


def test_picking_is_given_up_after_some_tries() -> None:
    asked: list[Entry] = []

    def refuse(entry: Entry) -> bool:
        asked.append(entry)
        return False

    assert table_of(NODES).pick(random.Random(1), refuse, tries=10) is None
    assert len(asked) == 10


def test_an_entry_in_another_state_is_made_once() -> None:
    entry = entry_of(A)
    failed = entry.as_state(State.FAILED)
    assert failed is entry.as_state(State.FAILED) is failed.as_state(State.FAILED)
    assert failed.as_state(State.ALIVE) is entry
    assert (failed.record, failed.signed, failed.incarnation) == (entry.record, entry.signed, entry.incarnation)
