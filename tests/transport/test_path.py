"""Which of two addresses gets a connection's datagrams."""

from __future__ import annotations

from quicbus.transport.network import Path
from quicbus.transport.path import CANDIDATE_TIMEOUT_S, PROBE_INTERVAL_S, PathMap

OLD = Path(("192.0.2.1", 1), ("192.0.2.1", 1))
NEW = Path(("192.0.2.2", 2), ("192.0.2.2", 2))
OTHER = Path(("192.0.2.3", 3), ("192.0.2.3", 3))
SMALL = bytes(30)
LARGE = bytes(1200)


def moving(received: int = 100) -> PathMap[Path]:
    paths = PathMap(OLD, is_fixed=False)
    assert paths.received(NEW, received, 0.0, 7)
    return paths


def test_without_a_candidate_all_goes_to_the_active_path() -> None:
    assert PathMap(OLD, is_fixed=False).split([LARGE, SMALL], 0.0) == [(OLD, [LARGE, SMALL])]


def test_a_candidate_gets_at_most_three_times_what_came_from_it() -> None:
    paths = moving(received=100)
    assert paths.split([SMALL] * 12, 0.0) == [(NEW, [SMALL] * 10), (OLD, [SMALL] * 2)]
    assert paths.split([SMALL], 0.0) == [(OLD, [SMALL])]
    paths.received(NEW, 10, 0.0, 8)
    assert paths.split([SMALL, SMALL], 0.0) == [(NEW, [SMALL]), (OLD, [SMALL])]


def test_it_is_asked_again_once_its_bytes_pay_for_a_full_datagram() -> None:
    paths = moving(received=40)
    asked = [number for number in range(2, 21) if paths.received(NEW, 40, 0.0, 8)]
    assert asked == [10], "three times 400 bytes"
    assert paths.split([LARGE], 0.0) == [(NEW, [LARGE])]


def test_a_datagram_that_is_too_large_for_the_candidate_goes_where_it_went_before() -> None:
    assert moving(received=100).split([LARGE], 0.0) == [(OLD, [LARGE])]


def test_an_acknowledgement_from_the_candidate_makes_it_the_active_path() -> None:
    paths = moving()
    assert paths.acknowledged(7, NEW)
    assert (paths.active, paths.changes, paths.has_candidate) == (NEW, 1, False)
    assert paths.split([LARGE], 0.0) == [(NEW, [LARGE])]


def test_an_acknowledgement_from_elsewhere_changes_nothing() -> None:
    paths = moving()
    assert not paths.acknowledged(7, OLD)
    assert not paths.acknowledged(7, OTHER)
    assert (paths.active, paths.changes) == (OLD, 0)


def test_an_acknowledgement_of_an_earlier_ping_changes_nothing() -> None:
    paths = moving()
    assert not paths.acknowledged(6, NEW)
    assert paths.active is OLD


def test_an_acknowledgement_of_a_later_ping_will_do() -> None:
    assert moving().acknowledged(9, NEW)


def test_an_acknowledgement_counts_once() -> None:
    paths = moving()
    assert paths.acknowledged(7, NEW)
    assert not paths.acknowledged(7, NEW)
    assert paths.changes == 1


def test_what_comes_on_the_active_path_keeps_the_candidate_from_leading() -> None:
    paths = moving()
    paths.heard_on_active(0.0)
    assert paths.split([SMALL], 0.0) == [(OLD, [SMALL])]
    assert paths.received(NEW, 100, 0.0, 8), "silent again: asked again"
    assert paths.split([SMALL], 0.0) == [(NEW, [SMALL])]


def test_a_candidate_is_asked_again_when_an_answer_is_overdue() -> None:
    paths = moving()
    assert not paths.received(NEW, 30, PROBE_INTERVAL_S / 2, 8)
    assert paths.received(NEW, 30, PROBE_INTERVAL_S, 8)
    assert not paths.received(NEW, 30, PROBE_INTERVAL_S * 1.5, 9)


def test_another_address_takes_the_place_of_the_candidate() -> None:
    paths = moving()
    assert paths.received(OTHER, 100, 0.0, 8)
    assert paths.split([SMALL], 0.0) == [(OTHER, [SMALL])]
    assert not paths.acknowledged(8, NEW)
    assert paths.acknowledged(8, OTHER)


def test_a_candidate_that_never_answers_is_forgotten() -> None:
    paths = moving()
    assert paths.split([SMALL], CANDIDATE_TIMEOUT_S) == [(OLD, [SMALL])]
    assert not paths.has_candidate
    paths = moving()
    paths.heard_on_active(CANDIDATE_TIMEOUT_S)
    assert not paths.has_candidate
    paths = moving()
    assert paths.received(NEW, 10, CANDIDATE_TIMEOUT_S, 20)
    assert not paths.acknowledged(7, NEW), "it has to answer what it was asked last"


def test_the_same_peer_through_another_local_address_is_the_same_path() -> None:
    assert OLD.is_same_peer(Path(OLD.address, OLD.peer, (0, 8, b"elsewhere")))
    assert not OLD.is_same_peer(NEW)
