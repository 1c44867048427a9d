"""The count of what a peer makes a connection hold."""

from __future__ import annotations

from quicbus import limits
from quicbus.transport.undelivered import (
    DATAGRAM_OVERHEAD,
    DELIVERED_SHARE,
    QUIET_BYTES_PER_S,
    SENT_SHARE,
    UndeliveredBytes,
)

STRANGER = limits.UNDELIVERED_BEFORE_PROOF
PROVEN = limits.UNDELIVERED_SLACK


def test_a_stranger_may_have_just_its_bound_under_way() -> None:
    count = UndeliveredBytes(0.0)
    count.fed(STRANGER)
    assert count.excess(0, 0, 0.0) is None
    count.fed(1)
    assert count.excess(0, 0, 0.0) == STRANGER + 1


def test_for_a_stranger_neither_time_nor_what_was_sent_to_it_counts() -> None:
    count = UndeliveredBytes(0.0)
    count.fed(STRANGER + 1)
    assert count.excess(10**9, 0, 10**6) == STRANGER + 1


def test_what_came_out_of_streams_is_taken_off_with_its_headers() -> None:
    count = UndeliveredBytes(0.0)
    for _ in range(100):
        count.fed(STRANGER)
        count.delivered(STRANGER * DELIVERED_SHARE // (DELIVERED_SHARE + 1))
    assert count.excess(0, 0, 0.0) is None


def test_what_was_delivered_is_no_credit_for_later() -> None:
    count = UndeliveredBytes(0.0)
    count.delivered(10**9)
    count.fed(STRANGER + 1)
    assert count.excess(0, 0, 0.0) is not None


def test_acknowledgements_of_what_was_sent_are_taken_off_once() -> None:
    count = UndeliveredBytes(0.0)
    count.allow(PROVEN)
    count.fed(PROVEN + 1000)
    assert count.excess(1000 * SENT_SHARE, 0, 0.0) is None
    count.fed(1000)
    assert count.excess(1000 * SENT_SHARE, 0, 0.0) == PROVEN + 1000


def test_a_quiet_connection_may_ping_for_ever() -> None:
    count = UndeliveredBytes(0.0)
    count.allow(PROVEN)
    for second in range(0, 10**6, 10):
        count.fed(10 * QUIET_BYTES_PER_S)
        assert count.excess(0, 0, float(second + 10)) is None


def test_datagrams_that_only_acknowledge_add_up_to_nothing() -> None:
    count = UndeliveredBytes(0.0)
    count.allow(PROVEN)
    for number in range(1, 100_000):
        count.fed(DATAGRAM_OVERHEAD)
        assert count.excess(0, number, 0.0) is None


def test_overhead_of_datagrams_is_taken_off_once() -> None:
    count = UndeliveredBytes(0.0)
    count.allow(PROVEN)
    count.fed(PROVEN + DATAGRAM_OVERHEAD)
    assert count.excess(0, 1, 0.0) is None
    count.fed(DATAGRAM_OVERHEAD)
    assert count.excess(0, 1, 0.0) == PROVEN + DATAGRAM_OVERHEAD
