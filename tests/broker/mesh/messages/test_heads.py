"""What one member says of all origins when a node joins, and how it turns out to be wrong."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus.wire.node_frames import Head
from quicbus_broker.mesh.messages.heads import SLACK_S, Heads

ORIGIN, FIRST, SECOND = b"o" * 16, b"1" * 16, b"2" * 16
RETENTION_S = 30.0
QUIET_S = RETENTION_S + SLACK_S
HEAD = Head(ORIGIN, 3, 100, (7, 8))


def begun(head: Head = HEAD, boot: int | None = 3) -> Heads:
    heads = Heads(RETENTION_S)
    heads.told(head)
    heads.begin(0.0, lambda origin: boot)
    return heads


@pytest.mark.parametrize(("boot", "is_taken"), [(3, True), (4, True), (2, False), (None, False)])
def test_heads_count_for_members_and_for_boots_that_they_have_told_of(boot: int | None, is_taken: bool) -> None:
    heads = Heads(RETENTION_S)
    heads.told(HEAD)
    assert heads.begin(0.0, lambda origin: boot) == ([HEAD] if is_taken else [])
    assert bool(heads) is is_taken


def test_what_is_told_is_bounded() -> None:
    heads = Heads(RETENTION_S, max_told=2)
    for number in range(5):
        heads.told(Head(bytes([number]) * 16, 3, 1, tuple(range(300))))
    heads.told(Head(bytes(16), 3, 9, ()))
    told = heads.begin(0.0, lambda origin: 3)
    assert [(head.bundle, len(head.lanes)) for head in told] == [(9, 0), (1, limits.LANES)]


def test_two_neighbors_that_still_bring_what_is_said_to_be_over_outweigh_the_one_that_said_so() -> None:
    heads = begun()
    assert not heads.doubt((ORIGIN, 3, 50), FIRST, 2, QUIET_S - 0.1)
    assert not heads.doubt((ORIGIN, 3, 50), FIRST, 2, QUIET_S)
    assert not heads.doubt((ORIGIN, 3, 51), FIRST, 2, QUIET_S)
    assert heads.doubt((ORIGIN, 3, 52), SECOND, 2, QUIET_S)
    assert not heads


@pytest.mark.parametrize("id", [(ORIGIN, 2, 50), (ORIGIN, 3, 101), (FIRST, 3, 50)])
def test_other_bundles_say_nothing_about_a_head(id: tuple[bytes, int, int]) -> None:
    heads = begun()
    for node in (FIRST, SECOND):
        assert not heads.doubt(id, node, 2, QUIET_S)


def test_the_origin_itself_and_an_only_neighbor_need_nobody_else() -> None:
    assert begun().doubt((ORIGIN, 3, 50), ORIGIN, 5, QUIET_S)
    assert begun().doubt((ORIGIN, 3, 50), FIRST, 1, QUIET_S)


def test_an_origin_that_has_come_past_its_head_confirms_it() -> None:
    heads = begun()
    heads.confirm((ORIGIN, 3, 100))
    assert heads
    heads.confirm((ORIGIN, 3, 101))
    assert not heads


def test_a_member_that_is_forgotten_takes_its_head_with_it() -> None:
    heads = begun()
    heads.forget(ORIGIN)
    assert not heads
