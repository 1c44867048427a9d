"""What comes while a node joins is kept in order, and bounded by what it takes in memory."""

from __future__ import annotations

from quicbus.wire.bundles import EVERYONE, KIND_BROADCAST, Bundle, BundleBatch
from quicbus.wire.node_frames import IHave
from quicbus_broker.mesh.messages.early import ID_SIZE, MAX_EARLY, MAX_EARLY_SIZE, Early
from tests.broker.mesh.fake_signing import node_id

A, B = node_id(1), node_id(2)


def bundle(number: int, size: int = 30) -> Bundle:
    return Bundle(KIND_BROADCAST, A, 1, number, EVERYONE, 0, (BundleBatch(number, 0, number, 0, "alice", bytes(size)),))


def announcement(count: int) -> IHave:
    return IHave(bundles=tuple((A, 1, number) for number in range(1, count + 1)))


def test_what_is_kept_comes_out_once_in_the_order_of_arrival() -> None:
    early = Early()
    items: list[tuple[bytes, Bundle | IHave]] = [(A, bundle(1)), (B, announcement(2)), (B, bundle(2))]
    for node, item in items:
        early.keep(node, item)

    assert early.take() == items
    assert early.take() == []


def test_bundles_are_bounded_by_their_bytes() -> None:
    early = Early()
    for number in range(1, 20):
        early.keep(A, bundle(number, 1 << 20))

    assert len(early.take()) == (MAX_EARLY_SIZE >> 20) - 1


def test_announcements_are_bounded_by_their_memory_and_not_by_their_number() -> None:
    early = Early()
    for _ in range(MAX_EARLY):
        early.keep(A, announcement(1000))

    assert len(early.take()) == MAX_EARLY_SIZE // (1000 * ID_SIZE)


def test_small_things_are_bounded_by_their_number() -> None:
    early = Early()
    for number in range(1, MAX_EARLY + 10):
        early.keep(A, bundle(number))

    assert len(early.take()) == MAX_EARLY
