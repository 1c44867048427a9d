from __future__ import annotations

import math
import random

import pytest

from quicbus.wire.bundles import EVERYONE, KIND_BROADCAST, Bundle, BundleBatch
from quicbus_broker.mesh.messages.bundle_store import ENTRY_OVERHEAD, EXPIRY_SLACK_S, BundleStore
from quicbus_broker.mesh.messages.dedup import MAX_SEEN_ABOVE, SeenWindow

ORIGIN, NODE = b"o" * 16, b"n" * 16
SEED = 20_240_311


def bundle(number: int, size: int = 10, signature: bytes = b"s") -> Bundle:
    batches = (BundleBatch(number, 0, number, 0, "alice", bytes(size)),)
    return Bundle(KIND_BROADCAST, ORIGIN, 1, number, EVERYONE, 0, batches, 8, 0, bytes(size), signature)


def put(store: BundleStore, number: int, now: float, size: int = 10) -> None:
    each = bundle(number, size)
    store.put(each.id, each, NODE, now)


def numbers(store: BundleStore) -> list[int]:
    return [number for _, _, number in store]


def test_bundle_is_kept_with_its_source_until_it_expires() -> None:
    store = BundleStore(30.0, 1 << 20)
    assert store.next_timer() == math.inf
    put(store, 1, now=100.0)
    put(store, 2, now=110.0)
    stored = store.get((ORIGIN, 1, 1))
    assert stored is not None
    assert (stored.bundle, stored.source, stored.at) == (bundle(1), NODE, 100.0)
    assert store.next_timer() == 130.0 + EXPIRY_SLACK_S
    store.expire(131.0)
    assert numbers(store) == [2]
    store.expire(141.0)
    assert (len(store), store.size, store.next_timer()) == (0, 0, math.inf)


def test_oldest_bundles_go_when_the_bytes_are_too_many() -> None:
    store = BundleStore(30.0, 3 * (ENTRY_OVERHEAD + 100))
    for number in range(1, 6):
        put(store, number, now=1.0, size=100)
    assert numbers(store) == [3, 4, 5]
    assert store.size == 3 * (ENTRY_OVERHEAD + 100)


def test_bundle_larger_than_the_store_is_not_kept_and_drives_nothing_out() -> None:
    store = BundleStore(30.0, 1000)
    put(store, 1, now=1.0)
    put(store, 2, now=1.0, size=2000)
    assert numbers(store) == [1]


def test_size_without_encoded_bytes_is_that_of_the_bodies() -> None:
    store = BundleStore(30.0, 1 << 20)
    each = Bundle(KIND_BROADCAST, ORIGIN, 1, 1, EVERYONE, 0, bundle(1, 70).batches)
    store.put(each.id, each, NODE, 1.0)
    assert store.size == ENTRY_OVERHEAD + 70


@pytest.mark.parametrize("changed", [bundle(1, signature=b"t"), bundle(1, size=11)])
def test_only_what_is_equal_to_the_last_byte_is_the_same(changed: Bundle) -> None:
    store = BundleStore(30.0, 1 << 20)
    put(store, 1, now=1.0)
    stored = store.get((ORIGIN, 1, 1))
    assert stored is not None
    assert stored.is_same(bundle(1))
    assert not stored.is_same(changed)


def test_window_takes_each_number_once_in_any_order() -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    window = SeenWindow(1, 0, 0.0)
    order = list(range(1, 500))
    rng.shuffle(order)
    for number in order:
        assert number not in window
        window.add(number)
        assert number in window
    assert (window.contiguous, window.highest, window._above) == (499, 499, None)


def test_window_counts_the_lowest_missing_numbers_as_seen_when_too_many_are_above() -> None:
    window = SeenWindow(1, 0, 0.0)
    for number in range(2, 2 * MAX_SEEN_ABOVE + 10, 2):
        window.add(number)
        assert window._above is None or len(window._above) <= MAX_SEEN_ABOVE
    assert 1 in window
    assert window.contiguous > 0
    assert 2 * MAX_SEEN_ABOVE + 7 not in window


def test_far_number_costs_no_more_than_a_near_one() -> None:
    window = SeenWindow(1, 0, 0.0)
    window.add(2**64 - 1)
    window.add(1)
    assert (window.contiguous, window.highest) == (1, 2**64 - 1)
    assert 2**63 not in window
    window.raise_to(2**64 - 2)
    assert window.contiguous == 2**64 - 1


def test_raising_a_window_never_lowers_it() -> None:
    window = SeenWindow(1, 10, 0.0)
    window.add(12)
    window.raise_to(5)
    assert (window.contiguous, window.highest) == (10, 12)
    window.raise_to(11)
    assert (window.contiguous, window.highest) == (12, 12)
