"""What a hundred nodes must reach; `make simulate` measures a thousand and ten thousand."""

from __future__ import annotations

import pytest

from quicbus_broker.simulation.broadcasting import broadcasts_after_crash, rounds
from quicbus_broker.simulation.detection import detection
from quicbus_broker.simulation.gates import round_gates
from quicbus_broker.simulation.growth import heal_time_s, idle, join_time_s, leave_time_s


@pytest.mark.parametrize(
    ("is_one_sender", "redundancy_max", "last_hop_max"), [(True, 0.2, 15), (False, 1.0, 18)], ids=["one", "many"]
)
def test_broadcasts_to_a_hundred_nodes_without_faults(
    is_one_sender: bool, redundancy_max: float, last_hop_max: float
) -> None:
    """iroh-gossip's gates, over as many rounds as there."""
    rows = rounds(100, 20, 1, is_one_sender=is_one_sender)
    gates = round_gates("100 nodes", rows, redundancy_max=redundancy_max, last_hop_max=last_hop_max)
    assert [gate for gate in gates if not gate.is_reached] == []


@pytest.mark.parametrize("crashed", [0.3, 0.6])
def test_nearly_all_survivors_of_a_crash_get_what_is_broadcast_right_after_it(crashed: float) -> None:
    assert broadcasts_after_crash(100, crashed, 20, 1).reliability >= 0.99


def test_starved_members_get_nobody_expelled_who_is_well() -> None:
    row = detection(100, 4, self_doubt=True, seeds=range(1))
    assert row.false_positives == 0
    assert row.all_s < 40


def test_joining_leaving_and_healing_take_seconds() -> None:
    assert join_time_s(100, 1) < 5
    assert leave_time_s(100, 1) < 2
    assert heal_time_s(30, 1) < 60


def test_idle_traffic_is_small() -> None:
    row = idle(100, 1, seconds=30.0)
    assert row.frames < 10
    assert row.size < 2_000
