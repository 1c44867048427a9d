from __future__ import annotations

import math

import pytest

from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import EVERYONE, BundleBatch
from quicbus.wire.node_frames import Head
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.messages.reordering import HELD_OVERHEAD
from quicbus_broker.mesh.messages.sequencer import MAX_LANES, Sequencer
from quicbus_broker.mesh.outputs import Deliver, Output

ME, ORIGIN, OTHER = b"m" * 16, b"o" * 16, b"p" * 16
BOOT = 40
CONFIG = MeshConfig()
GAP_S = CONFIG.gap_timeout_s

After = tuple[tuple[bytes, int, int], ...]


class Receiver:
    """A sequencer, what it has delivered (as (space is direct, number)), and a clock."""

    def __init__(self, config: MeshConfig = CONFIG) -> None:
        self.sequencer = Sequencer(ME, config, BOOT)
        self.counters = self.sequencer.counters
        self.now = 100.0

    def take(
        self, number: int, *, direct: bool = False, after: After = (), lane: int = 0, boot: int = 1, size: int = 1
    ) -> list[int]:
        """Let a batch arrive and return the ids of what comes out; its id is its number, 1000 more if direct."""
        body = encode_body(b"t", [b"x" * size] * 3, number=1)
        id = number + 1000 * direct
        batch = BundleBatch(id, lane, number, 0, "alice", body, after=after)
        outputs: list[Output] = []
        self.sequencer.arrive(ORIGIN, boot, ME if direct else EVERYONE, batch, 5, 2, self.now, outputs)
        return ids(outputs)

    def skip(self, first: int, last: int, boot: int = 0) -> list[int]:
        outputs: list[Output] = []
        self.sequencer.skipped(ORIGIN, 0, first, last, self.now, outputs, boot)
        return ids(outputs)

    def wait(self, seconds: float) -> list[int]:
        self.now += seconds
        outputs: list[Output] = []
        self.sequencer.tick(self.now, outputs)
        return ids(outputs)


def ids(outputs: list[Output]) -> list[int]:
    assert all(isinstance(output, Deliver) for output in outputs)
    return [output.batch.id for output in outputs if isinstance(output, Deliver)]


def test_batches_in_order_come_out_at_once_with_origin_age_and_hops() -> None:
    sequencer = Sequencer(ME, CONFIG)
    batch = BundleBatch(9, 3, 1, 0, "alice", b"body")
    outputs: list[Output] = []
    sequencer.arrive(ORIGIN, 1, EVERYONE, batch, 7, 4, 1.0, outputs)
    assert outputs == [Deliver(ORIGIN, 1, batch, 7, 4)]
    assert (sequencer.next_timer(), sequencer.held_size) == (math.inf, 0)


def test_gap_is_waited_for_and_what_waited_is_older_by_it() -> None:
    receiver = Receiver()
    assert receiver.take(2) == []
    assert receiver.sequencer.next_timer() == receiver.now + GAP_S
    receiver.now += 0.5
    outputs: list[Output] = []
    receiver.sequencer.arrive(ORIGIN, 1, EVERYONE, BundleBatch(1, 0, 1, 0, "alice", b""), 5, 2, receiver.now, outputs)
    assert [(output.batch.id, output.age_ms) for output in outputs if isinstance(output, Deliver)] == [(1, 5), (2, 505)]
    assert (receiver.sequencer.next_timer(), receiver.sequencer.held_size) == (math.inf, 0)


def test_gap_that_is_not_filled_is_given_up_and_counted() -> None:
    receiver = Receiver()
    assert receiver.take(1) == [1]
    assert receiver.take(4) == []
    assert receiver.wait(GAP_S - 0.1) == []
    assert receiver.wait(0.1) == [4]
    assert receiver.counters.lost_in_mesh == 2
    assert receiver.take(5) == [5]


def test_arrival_after_the_gap_was_given_up_is_late_and_a_repetition_is_not() -> None:
    receiver = Receiver()
    receiver.take(3)
    receiver.wait(GAP_S)
    assert receiver.take(1) == []
    assert receiver.take(3) == []
    assert (receiver.counters.late, receiver.counters.dropped) == (3, {"duplicate": 3})


def test_repetition_of_what_waits_is_a_duplicate() -> None:
    receiver = Receiver()
    assert receiver.take(2) == receiver.take(2) == []
    assert receiver.take(1) == [1, 2]
    assert receiver.counters.dropped == {"duplicate": 3}


def test_no_batch_waits_longer_than_the_time_out_whatever_comes_meanwhile() -> None:
    receiver = Receiver()
    receiver.take(5)
    receiver.now += GAP_S - 0.1
    assert receiver.take(3) == []
    assert receiver.wait(0.1) == [3, 5], "5 came first, and takes along what is before it"
    assert receiver.counters.lost_in_mesh == 3


def test_batch_that_came_later_is_waited_for_anew() -> None:
    receiver = Receiver()
    receiver.take(2)
    receiver.now += 1.0
    receiver.take(4)
    assert receiver.wait(GAP_S - 1.0) == [2]
    assert receiver.sequencer.next_timer() == receiver.now + 1.0
    assert receiver.wait(1.0) == [4]


def test_gap_holds_up_neither_other_lanes_nor_other_origins() -> None:
    receiver = Receiver()
    receiver.take(2)
    assert receiver.take(1, lane=1) == [1]
    assert receiver.take(1, direct=True) == [1001]
    outputs: list[Output] = []
    receiver.sequencer.arrive(OTHER, 1, EVERYONE, BundleBatch(7, 0, 1, 0, "bob", b""), 0, 1, 100.0, outputs)
    assert ids(outputs) == [7]


def test_direct_batch_waits_for_the_broadcasts_that_it_names() -> None:
    receiver = Receiver()
    assert receiver.take(1) == [1]
    assert receiver.take(1, direct=True, after=((EVERYONE, 0, 2),)) == []
    assert receiver.take(2, direct=True, after=((EVERYONE, 0, 2),)) == []
    assert receiver.take(2) == [2, 1001, 1002]


def test_broadcast_waits_for_what_it_names_of_this_node_only() -> None:
    receiver = Receiver()
    assert receiver.take(1, after=((OTHER, 1, 9),)) == [1]
    assert receiver.take(2, after=((OTHER, 1, 9), (ME, BOOT, 1))) == []
    assert receiver.take(1, direct=True) == [1001, 2]


def test_number_of_another_boot_of_this_node_is_not_waited_for() -> None:
    assert Receiver().take(1, after=((ME, BOOT - 1, 9),)) == [1]


def test_named_number_that_does_not_come_is_given_up_like_a_gap() -> None:
    receiver = Receiver()
    assert receiver.take(1, direct=True, after=((EVERYONE, 0, 2),)) == []
    receiver.now += 0.5
    assert receiver.take(2) == [], "1 is missing"
    assert receiver.wait(GAP_S - 0.5) == [2, 1001]
    assert receiver.counters.lost_in_mesh == 1
    assert receiver.take(1) == []
    assert receiver.counters.late == 3


def test_chain_of_ways_is_followed_through_both_spaces() -> None:
    receiver = Receiver()
    assert receiver.take(2, after=((ME, BOOT, 1),)) == []
    assert receiver.take(2, direct=True, after=((EVERYONE, 0, 2),)) == []
    assert receiver.take(1, direct=True, after=((EVERYONE, 0, 1),)) == []
    assert receiver.take(1) == [1, 1001, 2, 1002]


def test_two_batches_that_name_each_other_do_not_wait_for_ever() -> None:
    receiver = Receiver()
    assert receiver.take(1, after=((ME, BOOT, 1),)) == []
    assert receiver.take(1, direct=True, after=((EVERYONE, 0, 1),)) == []
    assert sorted(receiver.wait(GAP_S)) == [1, 1001]
    assert receiver.sequencer.next_timer() == math.inf


def test_skipped_numbers_are_not_waited_for() -> None:
    receiver = Receiver()
    assert receiver.take(3, direct=True) == []
    assert receiver.skip(1, 2) == [1003]
    assert receiver.counters.lost_in_mesh == 0


def test_skip_that_comes_before_its_neighbours_is_remembered() -> None:
    receiver = Receiver()
    assert receiver.take(1, direct=True) == [1001]
    assert receiver.skip(3, 4) == receiver.skip(5, 6) == receiver.skip(9, 8) == []
    assert receiver.take(7, direct=True) == []
    assert receiver.take(2, direct=True) == [1002, 1007]
    assert receiver.sequencer.next_timer() == math.inf
    assert receiver.skip(1, 6) == []


def test_lane_that_only_remembers_a_skip_is_watched_again_once_something_waits_in_it() -> None:
    receiver = Receiver()
    receiver.take(2, direct=True)
    receiver.skip(9, 9)
    assert receiver.take(1, direct=True) == [1001, 1002]
    assert receiver.sequencer.next_timer() == math.inf
    assert receiver.take(8, direct=True) == []
    assert receiver.wait(GAP_S) == [1008]


def test_batch_that_was_sent_although_skipped_is_delivered_in_its_turn() -> None:
    receiver = Receiver()
    assert receiver.take(3, direct=True) == []
    assert receiver.skip(1, 5) == [1003]
    assert receiver.take(6, direct=True) == [1006]


def test_skip_of_an_origin_that_is_not_known_counts_if_its_boot_is_told() -> None:
    receiver = Receiver()
    assert receiver.skip(1, 1) == []
    assert receiver.take(2, direct=True) == []
    receiver = Receiver()
    assert receiver.skip(1, 1, boot=1) == []
    assert receiver.take(2, direct=True) == [1002]
    assert receiver.skip(3, 3, boot=9) == receiver.skip(1, 1, boot=1) == []
    assert receiver.take(1, direct=True, boot=9) == [1001]


def test_given_up_range_does_not_count_skipped_numbers_as_lost() -> None:
    receiver = Receiver()
    receiver.skip(2, 3, boot=1)
    receiver.take(5, direct=True)
    assert receiver.wait(GAP_S) == [1005]
    assert receiver.counters.lost_in_mesh == 2


def test_new_boot_begins_at_one_after_what_waited_of_the_old_one() -> None:
    receiver = Receiver()
    receiver.take(1)
    receiver.take(3)
    assert receiver.take(1, boot=2) == [3, 1]
    assert receiver.counters.lost_in_mesh == 1
    assert receiver.sequencer.held_size == 0


def test_batch_of_an_old_boot_is_dropped() -> None:
    receiver = Receiver()
    receiver.take(1, boot=2)
    assert receiver.take(2, boot=1) == []
    assert receiver.counters.dropped == {"old_boot": 3}


def test_nothing_at_or_below_a_head_is_taken() -> None:
    receiver = Receiver()
    receiver.take(9)
    receiver.take(12)
    receiver.sequencer.set_head(Head(ORIGIN, 1, 50, (10, 4)))
    assert receiver.counters.dropped == {"replayed": 3}
    assert receiver.take(10) == []
    assert receiver.take(11) == [11, 12]
    assert receiver.take(5, lane=1) == [5]


def test_what_waited_behind_a_head_comes_out_with_the_next_tick() -> None:
    receiver = Receiver()
    receiver.take(11)
    receiver.sequencer.set_head(Head(ORIGIN, 1, 50, (10,)))
    assert receiver.sequencer.next_timer() <= receiver.now
    assert receiver.wait(0.0) == [11]
    assert receiver.sequencer.next_timer() == math.inf


def test_head_of_a_later_boot_replaces_and_one_of_an_earlier_boot_changes_nothing() -> None:
    receiver = Receiver()
    receiver.take(2)
    receiver.sequencer.set_head(Head(ORIGIN, 5, 1, (3,)))
    assert receiver.counters.dropped == {"forgotten": 3}
    receiver.sequencer.set_head(Head(ORIGIN, 4, 1, (30,)))
    assert receiver.take(4, boot=5) == [4]


def test_heads_tell_the_highest_number_of_each_lane_that_came() -> None:
    receiver = Receiver()
    receiver.take(1, lane=1)
    receiver.take(5, lane=1)
    receiver.take(3, lane=2)
    receiver.take(8, direct=True)
    assert receiver.sequencer.heads() == [Head(ORIGIN, 1, 0, (0, 5, 3))]


def test_oldest_gap_is_given_up_when_too_many_bytes_wait() -> None:
    receiver = Receiver(MeshConfig(reorder_size=2 * (HELD_OVERHEAD + 400)))
    assert receiver.take(2, lane=0, size=100) == []
    receiver.now += 0.1
    assert receiver.take(2, lane=1, size=100) == []
    receiver.now += 0.1
    assert receiver.take(3, lane=1, size=100) == [2], "of lane 0"
    assert receiver.counters.lost_in_mesh == 1
    assert receiver.sequencer.held_size <= 2 * (HELD_OVERHEAD + 400)


def test_origin_that_is_no_member_any_more_is_forgotten() -> None:
    receiver = Receiver()
    receiver.take(1)
    receiver.take(3)
    receiver.sequencer.forget(ORIGIN)
    receiver.sequencer.forget(ORIGIN)
    assert (receiver.sequencer.held_size, receiver.sequencer.heads()) == (0, [])
    assert receiver.sequencer.next_timer() == math.inf
    assert receiver.wait(10.0) == []


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_far_number_costs_no_more_than_a_near_one(number: int) -> None:
    receiver = Receiver()
    receiver.take(number)
    receiver.take(1, direct=True, after=((EVERYONE, 0, number),))
    assert receiver.wait(GAP_S) == [number, 1001]


def test_counters_follow_what_was_delivered() -> None:
    receiver = Receiver()
    receiver.take(1)
    receiver.take(2)
    assert (receiver.counters.delivered, receiver.counters.hops_sum, receiver.counters.hops_max) == (2, 4, 2)


def test_after_a_head_turned_out_wrong_each_lane_begins_with_what_comes_next() -> None:
    receiver = Receiver()
    receiver.sequencer.set_head(Head(ORIGIN, 1, 0, (10**9, 10**9)))
    assert receiver.take(50) == []
    receiver.sequencer.reopen(ORIGIN, 2)
    assert receiver.take(51) == []
    receiver.sequencer.reopen(ORIGIN, 1)
    assert receiver.sequencer.heads() == [Head(ORIGIN, 1, 0, (0,) * MAX_LANES)]
    assert receiver.take(52) == [52]
    assert receiver.take(54) == []
    assert receiver.take(53) == [53, 54]
    assert receiver.take(7, lane=1) == [7]
    assert receiver.counters.lost_in_mesh == 0


def test_what_names_a_lane_of_which_nothing_is_known_waits_no_longer_than_for_a_gap() -> None:
    receiver = Receiver()
    receiver.sequencer.set_head(Head(ORIGIN, 1, 0, (10**9,)))
    receiver.sequencer.reopen(ORIGIN, 1)
    assert receiver.take(1, direct=True, after=((EVERYONE, 0, 60),)) == []
    assert receiver.wait(GAP_S) == [1001]
    assert receiver.counters.lost_in_mesh == 0
    assert receiver.take(61) == [61]
