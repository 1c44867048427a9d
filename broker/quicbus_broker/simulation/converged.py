"""Worlds that begin converged: every table full, links in place. Joining 10,000 nodes one by one is another experiment.

The links are a union of random rings: each node has as many as it wants, and the graph is connected and random, as
HyParView's is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import MemberRecord
from quicbus_broker.mesh.config import MeshConfig, active_links
from quicbus_broker.mesh.members.table import TableBase
from quicbus_broker.mesh.state import Mesh
from quicbus_broker.simulation.chance import chance
from quicbus_broker.simulation.stand_in_signing import StandInSigning
from quicbus_broker.simulation.stand_in_trust import StandInTrust
from quicbus_broker.simulation.world import Latency, World, mesh_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from quicbus.wire.node_frames import Signed
    from quicbus_broker.simulation.network import End
    from quicbus_broker.simulation.process import Process
    from quicbus_broker.simulation.world import Place

__all__ = ["converged_world", "random_links"]


def random_links(nodes: int, links: int, rng: Random) -> list[tuple[int, int]]:
    """Return the pairs of a connected random graph in which each of `nodes` has `links` neighbours, or one fewer."""
    if links >= nodes - 1:
        return [(low, high) for high in range(nodes) for low in range(high)]
    pairs: dict[tuple[int, int], None] = {}
    order = list(range(nodes))
    for _ in range(links // 2):
        rng.shuffle(order)
        for one, other in zip(order, order[1:] + order[:1], strict=True):
            pairs[min(one, other), max(one, other)] = None
    if links % 2:
        rng.shuffle(order)
        for one, other in zip(order[::2], order[1::2], strict=False):
            pairs[min(one, other), max(one, other)] = None
    return list(pairs)


def converged_world(
    nodes: int,
    seed: int,
    *,
    config: MeshConfig | None = None,
    latency: Callable[[int, int], float] | None = None,
) -> World:
    """Return a world of so many hybrids that all know each other and are linked. No time has passed in it."""
    world = World(seed, config=config, latency=latency or Latency(seed), trusts_all=True)
    for _ in range(nodes):
        world.add_place()
    for place in world.places:
        place.boot = world.boot_at(place)
    records = [_record_of(world, place) for place in world.places]
    base = TableBase.of(records, StandInSigning(world.signing, world.places[0].node))
    processes = [_process_at(world, place, base) for place in world.places]
    links = active_links(nodes - 1, world.config.small_mesh)
    ends: dict[int, list[End]] = {place.index: [] for place in world.places}
    for one, other in random_links(nodes, links, world.rng):
        # By chance who dialed: it decides who closes what is superfluous.
        dialer, listener = (one, other) if world.rng.random() < 0.5 else (other, one)
        near, far = world.dialing.connect(processes[dialer], processes[listener])
        ends[dialer].append(near)
        ends[listener].append(far)
    for process in processes:
        _start(process, ends[process.place])
    return world


def _record_of(world: World, place: Place) -> Signed:
    signing = StandInSigning(world.signing, place.node)
    return signing.seal_record(
        MemberRecord(
            node=place.node,
            name=place.name,
            boot=place.boot,
            incarnation=place.boot,
            mode="hybrid",
            addresses=(world.address_of(place),),
        )
    )


def _process_at(world: World, place: Place, base: TableBase) -> Process:
    trust = StandInTrust()
    signing = StandInSigning(world.signing, place.node, trust)
    rng = chance(world.rng.getrandbits(64))
    process = world.make_process(
        place,
        "hybrid",
        boot=place.boot,
        make_machine=lambda boot: Mesh(
            me=place.node,
            name=place.name,
            boot=boot,
            mode="hybrid",
            signing=signing,
            config=world.config,
            rng=rng,
            base=base,
            trust=trust,
        ),
    )
    world.trusts[process] = trust
    return process


def _start(process: Process, ends: Sequence[End]) -> None:
    neighbors = [(end.peer.host.node, end.number, end.peer.host.boot) for end in ends]
    for node, connection, _ in neighbors:
        process.using[node] = connection
    process.perform(mesh_of(process).start_linked(neighbors, process.now))
