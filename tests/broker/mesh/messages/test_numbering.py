from __future__ import annotations

from quicbus.wire.bundles import EVERYONE
from quicbus_broker.mesh.messages.numbering import MAX_NAMED, SETTLED_S, Numbering

A, B, C = (letter * 16 for letter in (b"a", b"b", b"c"))
TOPIC = b"sensors/1"


def test_each_lane_and_each_receiver_has_numbers_without_holes() -> None:
    numbering = Numbering()
    assert [numbering.next_broadcast(0), numbering.next_broadcast(3), numbering.next_broadcast(0)] == [1, 1, 2]
    assert [numbering.next_direct(A, 1, 0), numbering.next_direct(B, 1, 0), numbering.next_direct(A, 1, 0)] == [1, 1, 2]
    assert numbering.next_direct(A, 1, 5) == 1
    assert numbering.lanes() == (2, 0, 0, 1)


def test_later_boot_of_a_receiver_begins_anew_and_an_earlier_one_changes_nothing() -> None:
    numbering = Numbering()
    assert [numbering.next_direct(A, 7, 0), numbering.next_direct(A, 7, 0)] == [1, 2]
    assert numbering.next_direct(A, 8, 0) == 1
    assert numbering.next_direct(A, 7, 0) == 2


def test_topic_that_never_changed_its_way_names_nothing() -> None:
    numbering = Numbering()
    for _ in range(3):
        assert numbering.way_changed(TOPIC, 0, EVERYONE) == ()
        numbering.next_broadcast(0)
        assert numbering.way_changed(b"other", 0, (A,)) == ()
        numbering.next_direct(A, 1, 0)


def test_direct_batches_after_broadcasts_all_name_the_last_broadcast() -> None:
    numbering = Numbering()
    numbering.way_changed(TOPIC, 2, EVERYONE)
    numbering.next_broadcast(2)
    for _ in range(3):
        assert numbering.way_changed(TOPIC, 2, (A, B)) == ((EVERYONE, 0, 1),)
    numbering.next_broadcast(2)
    assert numbering.way_changed(TOPIC, 2, (A,)) == ((EVERYONE, 0, 1),), "a broadcast of another topic"


def test_broadcasts_after_direct_batches_name_all_nodes_that_were_served() -> None:
    numbering = Numbering()
    numbering.way_changed(TOPIC, 0, (A, B))
    for node in (A, A, B):
        numbering.next_direct(node, 5, 0)
    numbering.way_changed(TOPIC, 0, (C,))
    numbering.next_direct(C, 9, 0)
    assert numbering.way_changed(TOPIC, 0, EVERYONE) == ((A, 5, 2), (B, 5, 1), (C, 9, 1))


def test_node_that_was_never_sent_anything_is_not_named() -> None:
    numbering = Numbering()
    numbering.way_changed(TOPIC, 0, (A,))
    assert numbering.way_changed(TOPIC, 0, EVERYONE) == ()


def test_broadcasts_stop_to_name_what_was_sent_directly_long_ago() -> None:
    numbering = Numbering()
    numbering.way_changed(TOPIC, 0, (A,), now=10.0)
    numbering.next_direct(A, 1, 0)
    assert numbering.way_changed(TOPIC, 0, EVERYONE, now=20.0) == ((A, 1, 1),)
    assert numbering.way_changed(TOPIC, 0, EVERYONE, now=19.0 + SETTLED_S) == ((A, 1, 1),)
    assert numbering.way_changed(TOPIC, 0, EVERYONE, now=20.0 + SETTLED_S) == ()


def test_forgotten_topics_make_new_ones_of_their_lane_name_what_they_would_have_named() -> None:
    numbering = Numbering(max_topics=1)
    numbering.way_changed(b"first", 0, EVERYONE)
    numbering.next_broadcast(0)
    numbering.way_changed(b"second", 0, (A,))
    numbering.next_direct(A, 4, 0)
    assert numbering.way_changed(b"first", 0, (B,)) == ((EVERYONE, 0, 1),)
    assert numbering.way_changed(b"second", 0, EVERYONE) == ((A, 4, 1),)
    assert numbering.way_changed(b"third", 1, (B,)) == (), "another lane"


def test_nodes_that_are_named_are_bounded_and_the_latest_stay() -> None:
    numbering = Numbering()
    nodes = [number.to_bytes(16, "big") for number in range(MAX_NAMED + 10)]
    for node in nodes:
        numbering.way_changed(TOPIC, 0, (node,))
        numbering.next_direct(node, 1, 0)
    named = numbering.way_changed(TOPIC, 0, EVERYONE)
    assert [node for node, _, _ in named] == nodes[10:]


def test_node_that_is_no_member_any_more_is_forgotten() -> None:
    numbering = Numbering()
    numbering.next_direct(A, 1, 0)
    numbering.forget(A)
    numbering.forget(A)
    assert numbering.next_direct(A, 1, 0) == 1
