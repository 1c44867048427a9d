"""One node of a broadcast: what it passes on, announces, asks for and takes for a replay."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from quicbus.wire.bundles import KIND_BROADCAST, Bundle
from quicbus.wire.node_frames import Graft, Head, IHave, Prune
from quicbus_broker.mesh.messages.broadcast import EAGER_AT_FIRST, MAX_COPIES, MAX_GRAFTS, SHORTER_HOPS
from quicbus_broker.mesh.messages.missing import MAX_MISSING
from quicbus_broker.mesh.outputs import Misbehaved, Output, SendBundle, SendFrame
from tests.broker.mesh.messages.broadcasting import CONFIG, ME, ORIGIN, STRANGER, A, B, C, Node, bundle

SOON = CONFIG.announce_interval_s
LONG = 10 * CONFIG.graft_timeout_s


def less_hops(each: Bundle, age_ms: int = 0) -> Bundle:
    return replace(each, hops=each.hops - 1, age_ms=each.age_ms + age_ms)


def test_own_bundle_is_pushed_to_eager_neighbours_and_announced_to_lazy_ones() -> None:
    node = Node(A, B, lazy=(C,))
    own = bundle(origin=ME, hops=8)
    assert node.publish(own) == [SendBundle(A, own), SendBundle(B, own)]
    assert node.wait(SOON) == [SendFrame(C, IHave(bundles=(own.id,), hops=(8,)))]
    assert node.wait(SOON) == []
    assert node.counters.sent == 2


def test_new_bundle_is_passed_on_with_one_hop_less_to_all_but_its_sender() -> None:
    node = Node(A, B, lazy=(C,))
    assert node.take(A, bundle()) == (True, [SendBundle(B, less_hops(bundle()))])
    assert node.wait(SOON) == [SendFrame(C, IHave(bundles=(bundle().id,), hops=(4,)))]
    assert (node.counters.received, node.counters.relayed) == (1, 1)


def test_announcements_are_gathered() -> None:
    node = Node(A, lazy=(C,))
    for number in (1, 2, 3):
        node.take(A, bundle(number))
    ids = tuple(bundle(number).id for number in (1, 2, 3))
    assert node.wait(SOON) == [SendFrame(C, IHave(bundles=ids, hops=(4, 4, 4)))]


def test_duplicate_is_counted_and_prunes_its_link_once() -> None:
    node = Node(A, B)
    node.take(A, bundle())
    assert node.take(B, bundle()) == (False, [SendFrame(B, Prune())])
    assert (node.machine.eager, node.machine.lazy) == ((A,), (B,))
    assert node.take(B, bundle()) == (False, []), "what was under way when it was pruned"
    assert node.counters.duplicates == 2


def test_lazy_link_that_goes_on_to_push_is_pruned_again() -> None:
    node = Node(A, B)
    node.take(A, bundle())
    node.take(B, bundle())
    node.now += 5.0
    assert node.take(B, bundle()) == (False, [SendFrame(B, Prune())])


def test_signature_of_an_equal_duplicate_is_not_checked_again() -> None:
    node = Node(A, B)
    node.take(A, bundle())
    node.take(B, bundle())
    assert node.signing.checked == 1


def test_pruned_neighbour_gets_announcements_and_not_those_of_what_it_has() -> None:
    node = Node(A, B)
    assert node.hear(B, Prune()) == []
    assert node.take(A, bundle(1)) == (True, [])
    node.hear(B, IHave(bundles=(bundle(1).id,), hops=(4,)))
    node.take(A, bundle(2))
    assert node.wait(SOON) == [SendFrame(B, IHave(bundles=(bundle(2).id,), hops=(4,)))]


def test_lazy_link_that_brings_something_new_becomes_eager() -> None:
    node = Node(A, lazy=(C,))
    assert node.take(C, bundle()) == (True, [SendBundle(A, less_hops(bundle()))])
    assert node.machine.eager == (A, C)


@pytest.mark.parametrize("changed", [bundle(signature=b"bad"), bundle(2, signature=b"bad")])
def test_forged_bundle_is_dropped_counted_and_held_against_its_sender(changed: Bundle) -> None:
    node = Node(A, B)
    node.take(A, bundle())
    assert node.take(B, changed) == (False, [Misbehaved(B, "forged bundle")])
    assert node.counters.dropped == {"forged": 1}
    assert node.take(A, bundle(2))[0], "the number is not taken by the forgery"


def test_bundle_for_one_node_is_no_broadcast() -> None:
    node = Node(A)
    stray = Bundle(KIND_BROADCAST, ORIGIN, 1, 1, ME, 0, bundle().batches, 5, 0, b"", b"good")
    assert node.take(A, stray) == (False, [Misbehaved(A, "misaddressed bundle")])


def test_bundle_of_an_unknown_origin_is_asked_for_again_once_its_record_is_here() -> None:
    node = Node(A, B)
    stray = bundle(origin=STRANGER)
    assert node.take(A, stray) == (False, [])
    assert node.counters.dropped == {"unknown_origin": 1}
    node.signing.unknown = set()
    assert node.wait(LONG)[0] == SendFrame(A, Graft(bundles=(stray.id,)))
    assert node.take(A, stray) == (True, [SendBundle(B, less_hops(stray))])


def test_unknown_origin_that_stays_unknown_is_never_asked_for() -> None:
    node = Node(A)
    node.take(A, bundle(origin=STRANGER))
    assert node.wait(10 * LONG) == []
    assert node.machine.next_timer() == math.inf


def test_bundle_without_hops_left_is_taken_and_neither_passed_on_nor_announced_nor_given() -> None:
    node = Node(A, B, lazy=(C,))
    last = bundle(hops=0)
    assert node.take(A, last) == (True, [])
    assert node.wait(SOON) == []
    assert node.hear(C, Graft(bundles=(last.id,))) == []
    assert node.counters.dropped == {"hop_limit": 1}


def test_more_hops_than_this_node_allows_are_cut() -> None:
    node = Node(A, B)
    assert node.take(A, bundle(hops=255))[1] == [SendBundle(B, less_hops(bundle(hops=CONFIG.max_hops)))]


def test_announced_bundle_that_comes_by_itself_is_not_asked_for() -> None:
    node = Node(A, lazy=(C,))
    node.hear(C, IHave(bundles=(bundle().id,)))
    assert node.take(A, bundle())[0]
    assert [each for each in node.wait(LONG) if isinstance(each, SendFrame)] == [], "nor announced to C, which has it"
    assert node.counters.repaired == 0


def test_announced_bundle_that_does_not_come_is_grafted_from_each_source_in_turn() -> None:
    node = Node(A, lazy=(B, C))
    node.hear(B, IHave(bundles=(bundle().id,)))
    node.hear(C, IHave(bundles=(bundle().id,)))
    grafts = [each.node for each in node.wait(100.0) if isinstance(each, SendFrame) and isinstance(each.frame, Graft)]
    assert grafts == [B, C, B, C, B, C][:MAX_GRAFTS]
    assert set(node.machine.eager) == {A, B, C}
    assert node.machine.next_timer() == math.inf


def test_bundle_that_came_by_graft_counts_as_repaired() -> None:
    node = Node(lazy=(B,))
    node.hear(B, IHave(bundles=(bundle().id,)))
    node.wait(LONG / 2)
    assert node.take(B, bundle())[0]
    assert node.counters.repaired == 1


def test_one_neighbour_is_asked_for_all_that_it_announced() -> None:
    node = Node(lazy=(B, C))
    ids = tuple(bundle(number).id for number in range(1, 6))
    node.hear(B, IHave(bundles=ids))
    node.hear(C, IHave(bundles=ids))
    node.wait(CONFIG.graft_timeout_s * 0.99)
    outputs: list[Output] = []
    while not outputs:
        outputs = node.wait(0.01)
    assert outputs == [SendFrame(B, Graft(bundles=ids))]


def test_source_that_is_no_neighbour_any_more_is_not_asked() -> None:
    node = Node(lazy=(B, C))
    node.hear(B, IHave(bundles=(bundle().id,)))
    node.machine.neighbor_down(B)
    assert node.wait(LONG) == []
    assert node.machine.next_timer() == math.inf


def test_what_waited_to_be_announced_to_a_lazy_neighbour_is_announced_though_it_became_eager() -> None:
    node = Node(A, lazy=(C,))
    node.take(A, bundle(1))
    assert node.hear(C, Graft(bundles=())) == []
    announced = [each.frame for each in node.wait(SOON) if isinstance(each, SendFrame) and each.node == C]
    assert [frame.bundles for frame in announced if isinstance(frame, IHave)] == [(bundle(1).id,)]

    node.take(A, bundle(2))
    assert [each for each in node.wait(SOON) if isinstance(each, SendFrame) and each.node == C] == []


def test_graft_is_answered_with_what_is_kept_older_by_the_time_it_was() -> None:
    node = Node(A, lazy=(C,))
    node.take(A, bundle())
    node.wait(2.0)
    missing = (ORIGIN, 1, 99)
    assert node.hear(C, Graft(bundles=(bundle().id, missing))) == [SendBundle(C, less_hops(bundle(), age_ms=2000))]
    assert node.machine.eager == (A, C)


def test_neighbour_that_asks_again_and_again_is_answered_no_more() -> None:
    node = Node(A, lazy=(C,))
    node.take(A, bundle())
    for _ in range(MAX_GRAFTS):
        assert isinstance(node.hear(C, Graft(bundles=(bundle().id,)))[0], SendBundle)
    assert node.hear(C, Graft(bundles=(bundle().id,))) == []
    assert node.counters.dropped == {"asked_again": 1}


def test_neighbour_that_sends_the_same_again_and_again_misbehaves() -> None:
    node = Node(A)
    node.take(A, bundle())
    outputs = [output for _ in range(MAX_COPIES + 1) for output in node.take(A, bundle())[1]]
    assert [output for output in outputs if isinstance(output, Misbehaved)] == [Misbehaved(A, "replayed a bundle")]


def test_bundle_of_an_earlier_boot_than_the_record_is_no_news_to_who_never_saw_that_boot() -> None:
    node = Node(A)
    node.boots[ORIGIN] = 2
    assert node.take(A, bundle(boot=1)) == (False, [])
    assert node.counters.dropped == {"old_boot": 1}
    node.hear(A, IHave(bundles=((ORIGIN, 1, 5),)))
    assert not [each for each in node.wait(5.0) if isinstance(each, SendFrame)], "nor is it asked for"
    assert node.take(A, bundle(boot=2))[0]


def test_bundle_of_the_boot_that_was_followed_is_taken_although_the_record_has_a_later_one() -> None:
    node = Node(A)
    assert node.take(A, bundle(1, boot=1))[0]
    node.boots[ORIGIN] = 2
    assert node.take(A, bundle(2, boot=1))[0]
    assert not node.take(A, bundle(1, boot=1))[0]


def test_replay_of_a_member_that_was_forgotten_is_not_taken() -> None:
    node = Node(A)
    assert node.take(A, bundle())[0]
    node.wait(CONFIG.retention_s + 5)
    node.machine.forget(ORIGIN)
    node.boots[ORIGIN] = None
    assert not node.take(A, bundle())[0]
    assert node.counters.dropped == {"unknown_origin": 1}


def test_bundle_of_an_old_boot_is_dropped_and_later_nobody_honest_can_have_it() -> None:
    node = Node(A, B)
    node.take(A, bundle(boot=2))
    assert node.take(A, bundle(5, boot=1)) == (False, [])
    node.now += 2 * CONFIG.retention_s + 1
    assert node.take(A, bundle(5, boot=1)) == (False, [Misbehaved(A, "replayed a bundle of an old boot")])
    assert node.counters.dropped == {"old_boot": 2}


def test_bundle_that_is_not_kept_any_more_is_still_known() -> None:
    node = Node(A, B)
    node.take(A, bundle())
    node.wait(CONFIG.retention_s + 2)
    assert len(node.machine.store) == 0
    assert not node.take(A, bundle())[0]
    assert node.counters.dropped == {"replayed": 1}


def test_nothing_at_or_below_a_head_is_taken() -> None:
    node = Node(A)
    node.machine.set_head(ORIGIN, 3, 10)
    assert not node.take(A, bundle(10, boot=3))[0]
    assert not node.take(A, bundle(11, boot=2))[0]
    assert node.take(A, bundle(11, boot=3))[0]
    node.machine.set_head(ORIGIN, 2, 99)
    node.machine.set_head(ORIGIN, 3, 5)
    node.publish(bundle(7, origin=ME, boot=4))
    assert node.machine.heads() == {ORIGIN: (3, 11), ME: (4, 7)}


def test_what_a_head_covers_is_not_asked_for() -> None:
    node = Node(lazy=(C,))
    node.hear(C, IHave(bundles=((ORIGIN, 3, 9), (ORIGIN, 2, 99))))
    node.machine.set_head(ORIGIN, 3, 10)
    assert node.wait(LONG) == []


def test_new_neighbours_are_eager_only_where_few_are() -> None:
    node = Node(*(bytes([number]) * 16 for number in range(10)))
    assert (len(node.machine.eager), len(node.machine.lazy)) == (EAGER_AT_FIRST, 10 - EAGER_AT_FIRST)
    node.machine.neighbor_up(node.machine.lazy[0])
    assert len(node.machine.eager) == EAGER_AT_FIRST


def test_new_neighbour_hears_at_once_what_was_broadcast_lately() -> None:
    node = Node(A)
    node.take(A, bundle())
    node.wait(SOON)
    node.machine.neighbor_up(B)
    assert node.machine.next_timer() < node.now
    assert node.wait(0.0) == [SendFrame(B, IHave(bundles=(bundle().id,), hops=(4,)))]


def test_way_that_is_much_shorter_replaces_the_one_that_was_faster() -> None:
    node = Node(A, lazy=(B, C))
    node.take(A, bundle(hops=1))
    assert node.hear(B, IHave(bundles=(bundle().id,), hops=(SHORTER_HOPS,))) == []
    assert node.hear(C, IHave(bundles=(bundle().id,), hops=(1 + SHORTER_HOPS,))) == [
        SendFrame(C, Graft(bundles=())),
        SendFrame(A, Prune()),
    ]
    assert (node.machine.eager, node.machine.lazy) == ((C,), (B, A))


# --- what was told while joining ---


def told_of(number: int, *neighbors: bytes) -> Node:
    """A node that has joined, was told that the origin had come to `number`, and has been a member for a minute."""
    node = Node(*neighbors)
    node.machine.heads_told.told(Head(ORIGIN, 1, number, (number,)))
    for head in node.machine.heads_told.begin(node.now, lambda origin: 1):
        node.machine.set_head(head.origin, head.boot, head.bundle)
    node.wait(60.0)
    return node


def test_a_head_that_two_neighbors_contradict_keeps_no_broadcast_back() -> None:
    node = told_of(1_000_000, A, B)
    reopened: list[tuple[bytes, int]] = []
    node.machine.on_head_dropped = lambda origin, boot: reopened.append((origin, boot))
    assert not node.take(A, bundle(7))[0]
    assert not node.take(A, bundle(8))[0]
    assert node.take(B, bundle(8))[0]
    assert node.take(A, bundle(9))[0]
    assert reopened == [(ORIGIN, 1)]
    assert node.counters.dropped == {"replayed": 2, "head_doubted": 1}


def test_what_two_neighbors_announce_is_asked_for_though_a_head_says_it_is_over() -> None:
    node = told_of(1_000_000, A, B)
    node.hear(A, IHave(bundles=((ORIGIN, 1, 8),)))
    assert not any(isinstance(each, SendFrame) for each in node.wait(LONG))
    node.hear(B, IHave(bundles=((ORIGIN, 1, 8),)))
    assert SendFrame(B, Graft(bundles=((ORIGIN, 1, 8),))) in node.wait(LONG)


def test_one_neighbor_alone_replays_in_vain() -> None:
    node = told_of(100, A, B)
    for number in range(1, 101):
        assert not node.take(A, bundle(number))[0]
    assert node.take(B, bundle(101))[0]
    assert not node.take(B, bundle(100))[0]


# --- what is made up ---


def test_one_neighbor_that_announces_what_there_is_not_leaves_room_for_the_others() -> None:
    node = Node(A, B)
    half = MAX_MISSING // 2
    node.hear(A, IHave(bundles=tuple((ORIGIN, 1, number) for number in range(1, half + 101))))
    assert node.counters.dropped["too_many_missing"] == 100
    node.hear(B, IHave(bundles=tuple((ORIGIN, 1, number) for number in range(half + 1, half + 101))))
    assert node.counters.dropped["too_many_missing"] == 100
    node.wait(20 * LONG)
    node.hear(A, IHave(bundles=((ORIGIN, 1, MAX_MISSING),)))
    assert node.counters.dropped["too_many_missing"] == 100
