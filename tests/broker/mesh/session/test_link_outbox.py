"""The queue towards one neighbour: order, window, age, and who has to go when it is full."""

from __future__ import annotations

import sys

import pytest

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import EVERYONE, KIND_BROADCAST, KIND_DIRECT, Bundle, BundleBatch, decode_bundle
from quicbus.wire.records import Record, RecordParser
from quicbus_broker.mesh.session.link_outbox import LinkOutbox, lane_of

ORIGIN = bytes(range(16))
TARGET = bytes(range(16, 32))


def direct(sequence: int, body: bytes = b"body" * 10, lane: int = 3) -> Bundle:
    batch = BundleBatch(sequence, lane, sequence, 0, "alice", body)
    return Bundle(KIND_DIRECT, ORIGIN, 1, sequence, TARGET, 2, (batch,))


def received(*takes: dict[int, list[bytes]]) -> list[Bundle]:
    """Return the bundles that a neighbour reads out of what was taken, lane by lane."""
    parsers: dict[int, RecordParser] = {}
    bundles = []
    for take in takes:
        for lane, parts in take.items():
            for record in parsers.setdefault(lane, RecordParser(1 << 30)).feed(b"".join(parts)):
                assert isinstance(record, Record)
                bundles.append(decode_bundle(record.kind, record.payload))
    return bundles


def sequences(bundles: list[Bundle]) -> list[int]:
    return [bundle.batches[0].sequence for bundle in bundles]


def test_bundles_leave_in_order_as_they_were_put() -> None:
    outbox = LinkOutbox()
    for sequence in (1, 2, 3):
        assert outbox.put(direct(sequence), False, 10.0) == []

    found = received(outbox.take(10.0))

    assert [bundle.batches for bundle in found] == [direct(sequence).batches for sequence in (1, 2, 3)]
    assert outbox.is_empty
    assert outbox.take(11.0) == {}


def test_age_grows_by_the_time_in_the_queue() -> None:
    outbox = LinkOutbox()
    outbox.put(direct(1), False, 10.0)

    (bundle,) = received(outbox.take(10.25))

    assert bundle.age_ms == 250


def test_what_was_signed_leaves_as_it_came() -> None:
    outbox = LinkOutbox()
    batch = BundleBatch(1, 5, 1, 0, "alice", b"body" * 10)
    origin_outbox = LinkOutbox()
    origin_outbox.put(Bundle(KIND_BROADCAST, ORIGIN, 1, 9, EVERYONE, 0, (batch,), 32, signature=b"s" * 70), False, 0.0)
    (relayed,) = received(origin_outbox.take(0.0))

    outbox.put(relayed, False, 0.0)

    assert received(outbox.take(0.0)) == [relayed]


def test_broadcasts_spread_over_the_lanes_and_direct_ones_keep_theirs() -> None:
    batch = BundleBatch(1, 5, 1, 0, "alice", b"body" * 10)
    lanes = [lane_of(Bundle(KIND_BROADCAST, ORIGIN, 1, number, EVERYONE, 0, (batch,))) for number in range(1, 10)]

    assert sorted(lanes) == [0, 1, 1, 2, 3, 4, 5, 6, 7]
    assert lane_of(direct(1, lane=5)) == 5


def test_no_more_than_the_window_is_under_way() -> None:
    outbox = LinkOutbox(window=1000)
    for sequence in range(1, 6):
        outbox.put(direct(sequence, bytes(300)), False, 0.0)

    first = outbox.take(0.0)
    assert outbox.under_way == 1000
    assert outbox.take(0.0) == {}
    outbox.taken(600)
    second = outbox.take(0.0)
    assert outbox.under_way == 1000
    outbox.taken(1600)

    assert sequences(received(first, second, outbox.take(0.0))) == [1, 2, 3, 4, 5]


def test_a_record_larger_than_the_window_gets_through_in_parts() -> None:
    outbox = LinkOutbox(window=1000)
    outbox.put(direct(1, bytes(5000)), False, 0.0)
    takes = []
    while not outbox.is_empty:
        takes.append(outbox.take(0.0))
        outbox.taken(outbox.sent)

    assert len(takes) > 5
    assert sequences(received(*takes)) == [1]


def test_when_full_the_oldest_goes_and_is_named() -> None:
    outbox = LinkOutbox(window=1, queue_size=1000)
    dropped = [gone for sequence in range(1, 6) for gone in outbox.put(direct(sequence, bytes(300)), False, 0.0)]

    assert sequences(dropped) == [1, 2, 3]
    assert sequences([bundle for bundle, _ in outbox.withdraw(0.0)]) == [4, 5]


def test_what_publishers_wait_for_has_room_of_its_own() -> None:
    outbox = LinkOutbox(window=1, queue_size=1000, waiting_size=2000)
    dropped = [
        gone for sequence in range(1, 14) for gone in outbox.put(direct(sequence, bytes(300)), sequence % 2 == 0, 0.0)
    ]

    assert sequences(dropped) == [1, 3, 5, 7, 2, 9]
    assert sequences([bundle for bundle, _ in outbox.withdraw(0.0)]) == [4, 6, 8, 10, 11, 12, 13]


def test_one_bundle_larger_than_the_queue_is_taken_all_the_same() -> None:
    outbox = LinkOutbox(queue_size=100)

    assert outbox.put(direct(1, bytes(500)), False, 0.0) == []
    assert sequences(outbox.put(direct(2, bytes(500)), False, 0.0)) == [1]


def test_congestion_begins_when_a_window_waits_and_ends_at_half_of_it() -> None:
    outbox = LinkOutbox(window=1000)
    told = []
    for sequence in range(1, 7):
        outbox.put(direct(sequence, bytes(300)), True, 0.0)
        outbox.put(direct(sequence, bytes(300)), False, 0.0)
        told.append(outbox.is_congested)
    assert told == [False] * 2 + [True] * 4

    while outbox.is_congested:
        outbox.taken(outbox.sent)
        waiting = outbox.waiting
        outbox.take(0.0)
    assert outbox.waiting <= 500 < waiting


def test_drops_alone_are_no_congestion() -> None:
    outbox = LinkOutbox(window=1, queue_size=1000)
    for sequence in range(1, 4):
        outbox.put(direct(sequence, bytes(300)), False, 0.0)

    assert not outbox.is_congested


def test_what_was_not_sent_whole_can_be_withdrawn_for_another_connection() -> None:
    outbox = LinkOutbox(window=600)
    for sequence in (1, 2, 3):
        outbox.put(direct(sequence, bytes(300)), sequence == 3, 0.0)
    outbox.take(0.0)

    left = outbox.withdraw(0.5)

    assert [(bundle.batches[0].sequence, bundle.age_ms, waits) for bundle, waits in left] == [
        (2, 500, False),
        (3, 500, True),
    ]
    assert outbox.is_empty


@pytest.mark.parametrize("size", [99, 1001])
def test_a_neighbour_that_took_what_was_not_sent_is_a_violation(size: int) -> None:
    outbox = LinkOutbox(window=1000)
    outbox.put(direct(1, bytes(2000)), False, 0.0)
    outbox.take(0.0)
    outbox.taken(100)

    with pytest.raises(ProtocolViolation, match="LinkTaken"):
        outbox.taken(size)


def test_the_limits_fit_each_other() -> None:
    assert limits.LINK_WINDOW < limits.LINK_QUEUE_SIZE // 4


def test_what_was_sent_and_never_reported_as_taken_is_possibly_lost() -> None:
    outbox = LinkOutbox()
    body = encode_body(b"a", [b"one", b"two"], number=1)
    for sequence in (1, 2):
        outbox.put(direct(sequence, body), False, 0.0)
    outbox.take(0.0)
    assert outbox.possibly_lost == 4

    outbox.taken(outbox.sent // 2)
    assert outbox.possibly_lost == 2

    outbox.taken(outbox.sent)
    assert outbox.possibly_lost == 0


def test_a_broadcast_is_repaired_and_so_not_possibly_lost() -> None:
    outbox = LinkOutbox()
    batch = BundleBatch(1, 0, 1, 0, "alice", encode_body(b"a", [b"one"], number=1))
    outbox.put(Bundle(KIND_BROADCAST, ORIGIN, 1, 1, EVERYONE, 0, (batch,)), False, 0.0)
    outbox.take(0.0)
    assert outbox.possibly_lost == 0


def test_what_was_dropped_is_let_go_though_something_that_waits_is_before_it() -> None:
    outbox = LinkOutbox(window=1, queue_size=1000)
    outbox.put(direct(1, bytes(300)), True, 0.0)
    bodies = [encode_body(b"a", [bytes(280)], number=number) for number in range(100)]
    references = [sys.getrefcount(bodies[number]) for number in range(100)]

    for number in range(100):
        outbox.put(direct(number + 2, bodies[number]), False, 0.0)

    held = [number for number in range(97) if sys.getrefcount(bodies[number]) > references[number]]
    assert held == []
    assert outbox.queued - outbox.waiting <= 1000


def test_what_waits_and_what_does_not_leaves_in_one_order() -> None:
    outbox = LinkOutbox(window=1500)
    for sequence in range(1, 10):
        outbox.put(direct(sequence, bytes(300)), sequence % 3 == 0, 0.0)
    first = outbox.take(0.0)

    left = sequences([bundle for bundle, _ in outbox.withdraw(0.0)])

    assert sequences(received(first)) + left == list(range(1, 10))
