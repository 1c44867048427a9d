"""That what the simulation promises to notice is noticed."""

from __future__ import annotations

import pytest

from quicbus.wire.bundles import BundleBatch
from quicbus_broker.mesh.interest.forwarding import MeshPlan
from quicbus_broker.mesh.outputs import Deliver
from quicbus_broker.simulation.application import Broken, Ledger
from quicbus_broker.simulation.broadcasting import RoundRow
from quicbus_broker.simulation.chance import chance
from quicbus_broker.simulation.checks import missing_deliveries, not_converged, unaccounted
from quicbus_broker.simulation.converged import converged_world, random_links
from quicbus_broker.simulation.gates import round_gates
from quicbus_broker.simulation.measurements import Results, jobs_of
from quicbus_broker.simulation.report import page
from quicbus_broker.simulation.scenarios import Failure, Outcome
from quicbus_broker.simulation.world import World, mesh_of


def two_nodes() -> World:
    world = converged_world(2, 1)
    world.schedule.run_for(2.0)
    return world


def delivery(world: World, id: int, group: str = "", filter: str = "") -> Deliver:
    sender = world.processes[0]
    batch = BundleBatch(id, 0, id, 0, "p", b"", group, filter)
    return Deliver(sender.node, sender.boot, batch, 0, 1)


def published(world: World, count: int = 1, plan: MeshPlan | None = None) -> Ledger:
    ledger = world.ledger
    for _ in range(count):
        ledger.publish(world.processes[0], "p", "a", plan or MeshPlan((world.processes[1].node,)), world.now)
    return ledger


def test_a_message_that_comes_twice_is_noticed() -> None:
    world = two_nodes()
    ledger, receiver = published(world), world.processes[1]
    ledger.subscribe(receiver, "a", "", 0.0)
    ledger.deliver(receiver, delivery(world, 1), 1.0)
    with pytest.raises(Broken, match="twice"):
        ledger.deliver(receiver, delivery(world, 1), 2.0)


def test_a_message_that_comes_out_of_order_is_noticed() -> None:
    world = two_nodes()
    ledger, receiver = published(world, 2), world.processes[1]
    ledger.subscribe(receiver, "#", "", 0.0)
    ledger.deliver(receiver, delivery(world, 2), 1.0)
    with pytest.raises(Broken, match="after message 2"):
        ledger.deliver(receiver, delivery(world, 1), 2.0)


def test_a_message_that_nobody_published_is_noticed() -> None:
    world = two_nodes()
    with pytest.raises(Broken, match="nobody published"):
        world.ledger.deliver(world.processes[1], delivery(world, 9), 1.0)


def test_a_share_that_goes_to_two_members_is_noticed_and_one_without_a_member_is_given_back() -> None:
    world = two_nodes()
    ledger, receiver = published(world), world.processes[1]
    share = delivery(world, 1, "workers", "a")
    assert not ledger.deliver(receiver, share, 1.0)
    ledger.subscribe(receiver, "a", "workers", 0.0)
    assert ledger.deliver(receiver, share, 1.0)
    with pytest.raises(Broken, match="went to"):
        ledger.deliver(receiver, share, 1.0)


def test_a_subscriber_that_has_not_got_a_message_is_noticed() -> None:
    world = two_nodes()
    ledger, receiver = published(world), world.processes[1]
    ledger.subscribe(receiver, "a", "", 0.0)
    ledger.subscribe(receiver, "a", "workers", 0.0)
    assert len(missing_deliveries(world, ledger.messages.values())) == 2


def test_what_is_lost_without_being_counted_is_noticed() -> None:
    world = two_nodes()
    ledger, receiver = published(world, 2), world.processes[1]
    ledger.deliver(receiver, delivery(world, 2), 1.0)
    assert unaccounted(world) == ["1 batches never arrived, 0 are counted"]
    ledger.deliver(receiver, delivery(world, 1), 1.0)
    assert unaccounted(world) == []


def test_two_nodes_are_converged_until_one_is_gone() -> None:
    world = two_nodes()
    world.subscribe(world.processes[1], "a")
    world.schedule.run_for(1.0)
    assert not_converged(world, ["a"]) == []
    world.crash(world.processes[1])
    assert "not running" in not_converged(world)[0]


def test_interest_that_is_not_known_is_noticed() -> None:
    world = two_nodes()
    world.ledger.subscribe(world.processes[1], "a", "", 0.0)
    (wrong,) = not_converged(world, ["a"])
    assert "wanted at" in wrong


@pytest.mark.parametrize(("nodes", "links"), [(4, 6), (50, 7), (101, 9)])
def test_random_links_give_each_node_what_it_wants_and_connect_all(nodes: int, links: int) -> None:
    pairs = random_links(nodes, links, chance(1))
    assert len(set(pairs)) == len(pairs)
    reached, todo = {0}, [0]
    while todo:
        node = todo.pop()
        for one, other in pairs:
            if node in (one, other) and (found := one + other - node) not in reached:
                reached.add(found)
                todo.append(found)
    assert len(reached) == nodes
    assert len(pairs) > nodes * min(links - 1, nodes - 1) / 2 - nodes / 4


def test_a_converged_world_stays_so() -> None:
    world = converged_world(30, 1)
    world.schedule.run_for(5.0)
    assert not_converged(world, []) == []
    assert all(len(mesh_of(process).members()) == 30 for process in world.processes)


def test_a_failure_says_how_to_see_it_again() -> None:
    assert str(Failure(17, "so")) == "so\nsee it again: python -m quicbus_broker.simulation --seed 17"


def test_the_page_shows_what_was_measured_and_what_was_not_reached() -> None:
    results = Results()
    results.outcomes.append(Outcome(1, 3, 4, 5, 6, 7, 8.0))
    results.failures.append(Failure(2, "wrong"))
    results.rounds["100 nodes, one sender"] = [RoundRow(0.5, 8, 0, 0.3)]
    text = page(results)
    assert "| random worlds | all come right | 1 of 2 | **no** |" in text
    assert "- seed 2: wrong" in text
    assert "| 100 nodes, one sender: redundancy | < 0.2 | 0.500 | **no** |" in text


def test_gates_count_what_was_missed() -> None:
    gates = round_gates("x", [RoundRow(0.1, 5, 1, 0.3)], redundancy_max=0.2, last_hop_max=15)
    assert [gate.is_reached for gate in gates] == [False, True, True]


def test_there_are_as_many_worlds_as_were_asked_for() -> None:
    sweeps = [job.arguments for job in jobs_of(120, 0) if "first" in job.arguments]
    assert sum(each["last"] - each["first"] + 1 for each in sweeps) == 120
