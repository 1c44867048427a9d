"""What must hold once the faults are over: links symmetric, tables and interest equal, and as the world is.

Each check returns what is wrong in sentences, none where all is well. What must hold at every moment is checked where
it happens: deliveries in `application.py`, timers in `process.py`, bounds in `memory_over_bounds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.topics import matches
from quicbus_broker.mesh.outputs import State
from quicbus_broker.simulation.stand_in_trust import StandInTrust
from quicbus_broker.simulation.world import mesh_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quicbus_broker.simulation.application import Message
    from quicbus_broker.simulation.process import Process
    from quicbus_broker.simulation.world import Place, World

__all__ = ["memory_over_bounds", "missing_deliveries", "not_converged", "unaccounted"]


def not_converged(world: World, topics: Sequence[str] = ()) -> list[str]:
    """All that keeps a world in calm from being as it should; looked at one after the other, the cheapest first."""
    return (
        unjoined(world.processes)
        or unequal_trust(world)
        or asymmetric_links(world.processes)
        or wrong_tables(world)
        or wrong_interest(world, topics)
    )


def unjoined(processes: Iterable[Process]) -> list[str]:
    return [f"{process} has not joined" for process in processes if not mesh_of(process).is_joined]


def unequal_trust(world: World) -> list[str]:
    """All that run go by the latest trust list that any of them has kept, and nobody runs who is revoked in it."""
    running = {process: world.trusts[process] for process in world.processes if process in world.trusts}
    latest = max((StandInTrust(world.places[each.place].trust) for each in running), key=_version, default=None)
    if latest is None:
        return []
    wrong = [
        f"{process} goes by trust list {trust.version}, not {latest.version}"
        for process, trust in running.items()
        if trust.version != latest.version
    ]
    return wrong + [f"{process} runs, and is revoked" for process in running if latest.is_revoked(process.node)]


def _version(trust: StandInTrust) -> int:
    return trust.version


def asymmetric_links(processes: Sequence[Process]) -> list[str]:
    """Every neighbour is a process that runs, connected, and has this one as its neighbour."""
    running = {process.node: process for process in processes}
    wrong = []
    for process in processes:
        neighbors = mesh_of(process).neighbors
        if not neighbors and len(processes) > 1:
            wrong.append(f"{process} has no neighbour")
        for node in neighbors:
            other = running.get(node)
            if other is None:
                wrong.append(f"{process} has a neighbour that is not running: {node.hex()[:8]}")
            elif process.node not in mesh_of(other).neighbors:
                wrong.append(f"{process} has the neighbour {other}, which does not have it")
            elif process.ends.get(process.using.get(node, 0)) is None:
                wrong.append(f"{process} has the neighbour {other} and no connection with it")
    return wrong


def wrong_tables(world: World) -> list[str]:
    """Every table holds every place that was ever started, in the state in which it is; all tables are equal."""
    wrong = []
    seen: dict[bytes, tuple[Process, tuple[object, ...] | None]] = {}
    for process in world.processes:
        members = {member.node: member for member in mesh_of(process).members()}
        for place in world.places:
            member = members.pop(place.node, None)
            if process in world.trusts and world.trusts[process].is_revoked(place.node):
                wrong += [f"{process} has {place.name} for a member, which is revoked"] * (member is not None)
                continue
            facts = None
            if member is not None:
                facts = member.state, member.boot, member.addresses, member.mode, member.name
            other, their_facts = seen.setdefault(place.node, (process, facts))
            if their_facts != facts:
                wrong.append(f"{process} and {other} differ about {place.name}: {facts} and {their_facts}")
            elif facts is None:
                # All have started after it had gone, and nobody has told them.
                if place.is_up:
                    wrong.append(f"{process} does not know {place.name}")
            elif facts[0] not in _possible_states(place, facts[1]):
                wrong.append(f"{process} believes that {place.process} is {facts[0]}")
            elif place.is_up and place.process is not None and facts[1] != place.process.boot:
                wrong.append(f"{process} knows boot {facts[1]} of {place.process}")
        wrong += [f"{process} knows a node that never was: {node.hex()}" for node in members]
    return wrong


def _possible_states(place: Place, boot: int) -> tuple[State, ...]:
    """Of a boot that is known of it: a later one may have crashed before anybody met it."""
    if place.is_up:
        return (State.ALIVE,)
    # The farewell of one that left and was cut off may have reached nobody.
    return (State.LEFT, State.FAILED) if boot in place.left else (State.FAILED,)


def wrong_interest(world: World, topics: Sequence[str]) -> list[str]:
    """Every process plans, for each topic, just the nodes that have subscriptions to it."""
    wrong = []
    for process in world.processes:
        mesh = mesh_of(process)
        for topic in topics:
            plan = mesh.plan(topic.encode(), [])
            plain, groups = _wanted(world, process, topic)
            if plan.is_broadcast != bool(plan.is_broadcast and plain) or (
                not plan.is_broadcast and sorted(plan.direct) != sorted(plain)
            ):
                nodes = [node.hex()[:8] for node in sorted(plan.direct)]
                wanted = [node.hex()[:8] for node in sorted(plain)]
                wrong.append(f"{process} sends {topic} to {nodes}, wanted at {wanted}")
            planned = {(group.group, group.filter) for group in plan.groups}
            if planned != groups:
                wrong.append(f"{process} knows the groups {sorted(planned)} for {topic}, not {sorted(groups)}")
    return wrong


def _wanted(world: World, process: Process, topic: str) -> tuple[dict[bytes, None], set[tuple[str, str]]]:
    plain: dict[bytes, None] = {}
    groups: set[tuple[str, str]] = set()
    for other in world.processes:
        if other is process:
            continue
        for subscription in world.ledger.at(other):
            if not matches(subscription.filter, topic):
                continue
            if subscription.group:
                groups.add((subscription.group, subscription.filter))
            else:
                plain[other.node] = None
    return plain, groups


def unaccounted(world: World) -> list[str]:
    """What never came out of the mesh is in somebody's counters, as long as no process was lost and took them along.

    Looked at is what was sent before the last that arrived the same way: of what comes after it nobody can know yet.
    """
    processes = world.processes
    latest: dict[tuple[bytes, Process, bool, int], int] = {}
    for message in world.ledger.messages.values():
        for process in message.arrived:
            way = message.origin, process, message.is_broadcast, message.lane
            latest[way] = max(latest.get(way, 0), message.id)
    missing = 0
    for message in world.ledger.messages.values():
        for process in processes:
            way = message.origin, process, message.is_broadcast, message.lane
            is_lost = process.node in message.targets and process not in message.arrived
            missing += is_lost and message.id < latest.get(way, 0)
    counters = [mesh_of(process).statistics() for process in processes]
    counted = sum(each.lost_in_mesh + sum(each.dropped.values()) for each in counters)
    return [f"{missing} batches never arrived, {counted} are counted"] if missing > counted else []


def memory_over_bounds(world: World) -> list[str]:
    """What is kept for others and what waits stays within its bounds; in calm nothing waits, and little is kept."""
    wrong = []
    for process in world.processes:
        statistics = mesh_of(process).statistics()
        if statistics.kept > world.config.retention_size:
            wrong.append(f"{process} keeps {statistics.kept} bytes to answer Graft")
        if statistics.held > world.config.reorder_size:
            wrong.append(f"{process} has {statistics.held} bytes waiting for what is missing")
    return wrong


def missing_deliveries(world: World, messages: Iterable[Message]) -> list[str]:
    """Every subscription that matches and was there before has each of these messages, every group one."""
    wrong = []
    for message in messages:
        groups: dict[tuple[str, str], None] = {}
        for process in world.processes:
            for subscription in world.ledger.at(process):
                if subscription.since >= message.sent_at or not matches(subscription.filter, message.topic):
                    continue
                if subscription.group:
                    groups[subscription.group, subscription.filter] = None
                elif subscription not in message.got:
                    wrong.append(f"{subscription} has not got {message} (broadcast: {message.is_broadcast})")
        wrong += [f"nobody of the group {group} got {message}" for group in groups if group not in message.shares]
    return wrong
