"""A world of mesh machines: places with processes that come and go, clients at them, and the faults between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.outputs import Deliver, MemberChanged, MemberRevoked, SelfRevoked, Superseded, TrustLearned
from quicbus_broker.mesh.state import Mesh
from quicbus_broker.simulation.application import Ledger, Message, Subscription
from quicbus_broker.simulation.chance import chance
from quicbus_broker.simulation.dialing import Dialing
from quicbus_broker.simulation.network import Network
from quicbus_broker.simulation.process import Machine, Process
from quicbus_broker.simulation.schedule import Schedule
from quicbus_broker.simulation.stand_in_signing import StandInMesh, StandInSigning
from quicbus_broker.simulation.stand_in_trust import StandInTrust, trust_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus_broker.mesh.outputs import MeshOutput, NodeId

__all__ = ["STOP_GRACE_S", "Latency", "Place", "World", "mesh_of"]

STOP_GRACE_S = 0.5
"""A broker that leaves waits so long for its farewell to be on its way."""
_WALL_START = 1_800_000_000.0


class Latency:
    """One-way latencies between places: each pair its own, drawn once, the same both ways."""

    def __init__(self, seed: int, low_s: float = 0.005, high_s: float = 0.05) -> None:
        self._seed = seed
        self._low_s = low_s
        self._span_s = high_s - low_s

    def __call__(self, source: int, target: int) -> float:
        if source == target:
            return 0.0001
        low, high = (source, target) if source < target else (target, source)
        # splitmix64: the same for a seed, with no table of all pairs.
        mixed = (self._seed * 0x9E3779B97F4A7C15 + low * 0xBF58476D1CE4E5B9 + high * 0x94D049BB133111EB) & (2**64 - 1)
        mixed ^= mixed >> 30
        mixed = mixed * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        mixed ^= mixed >> 27
        mixed = mixed * 0x94D049BB133111EB & (2**64 - 1)
        return self._low_s + self._span_s * ((mixed ^ mixed >> 31) >> 11) / 2**53


@dataclass(slots=True, eq=False)
class Place:
    """A machine in the world with the data folder of one node: what outlives a process."""

    index: int
    node: NodeId
    name: str
    boot: int = 0
    wall_offset_s: float = 0.0
    remembered: tuple[tuple[NodeId, str], ...] = ()
    trust: bytes = b""
    """The trust list that it knows."""
    started: list[Process] = field(default_factory=list)
    starts: int = 0
    left: dict[int, None] = field(default_factory=dict)
    """The boots that have left."""

    @property
    def process(self) -> Process | None:
        """What the node is: of the processes that run the latest, otherwise the last that did."""
        return max((each for each in self.started if each.is_up), key=lambda each: each.boot, default=None) or (
            self.started[-1] if self.started else None
        )

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.is_up

    @property
    def is_told(self) -> bool:
        """Whether it knows that it is revoked, and does not start any more."""
        return StandInTrust(self.trust).is_revoked(self.node)


def mesh_of(process: Process) -> Mesh:
    assert isinstance(process.machine, Mesh)
    return process.machine


class World:
    """Everything follows from `seed`. It is also the observer of its processes."""

    def __init__(
        self,
        seed: int,
        *,
        config: MeshConfig | None = None,
        latency: Callable[[int, int], float] | None = None,
        trusts_all: bool = False,
    ) -> None:
        self.seed = seed
        self.config = config or MeshConfig()
        self.rng = chance(seed)
        self.schedule = Schedule()
        self.network = Network(self.schedule, self.rng, latency or Latency(seed))
        self.dialing = Dialing(self.network, self.config.dial_timeout_s)
        self.ledger = Ledger()
        self.signing = StandInMesh(trusts_all=trusts_all)
        self.places: list[Place] = []
        self.revoked: dict[NodeId, None] = {}
        self.trusts: dict[Process, StandInTrust] = {}
        """What each process goes by, where it was started with `start`."""
        self.events: Counter[str] = Counter()
        self.on_member_changed: Callable[[Process, MemberChanged], None] | None = None
        self.on_delivered: Callable[[Process, Deliver], None] | None = None
        """In place of the ledger, for worlds that measure."""
        self.trace: Callable[[str], None] | None = None

    @property
    def now(self) -> float:
        return self.schedule.now

    @property
    def processes(self) -> list[Process]:
        """Return what runs, in the order of places."""
        return [place.process for place in self.places if place.process is not None and place.process.is_up]

    def every_process(self) -> list[Process]:
        """Return all that were ever started."""
        return [process for place in self.places for process in place.started]

    def say(self, line: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.now:10.3f}  {line}")

    # --- places and processes -----------------------------------------------------------------------------------------

    def add_place(self) -> Place:
        index = len(self.places)
        place = Place(index, self.rng.randbytes(16), f"node-{index}")
        self.places.append(place)
        return place

    def address_of(self, place: Place) -> str:
        return f"10.{place.index >> 16}.{place.index >> 8 & 255}.{place.index & 255}:{4433 + place.starts}"

    def boot_at(self, place: Place) -> int:
        """Return the next boot of a node: as a data folder gives it, from the wall clock and larger than the last."""
        return max(place.boot + 1, int((_WALL_START + self.now + place.wall_offset_s) * 1000))

    def make_process(
        self, place: Place, mode: str, *, make_machine: Callable[[int], Machine], boot: int | None = None
    ) -> Process:
        """Put a process at a place, with the next boot unless one is given; nothing has started yet."""
        place.boot = boot if boot is not None else self.boot_at(place)
        process = Process(
            node=place.node,
            name=place.name,
            boot=place.boot,
            place=place.index,
            address=self.address_of(place),
            mode=mode,
            zero=self.rng.uniform(0.0, 1e6),
            machine=make_machine(place.boot),
            network=self.network,
            dialing=self.dialing,
            observer=self,
        )
        place.started.append(process)
        return process

    def make_mesh(self, place: Place, mode: str, boot: int, trust: StandInTrust) -> Mesh:
        return Mesh(
            me=place.node,
            name=place.name,
            boot=boot,
            mode=mode,
            signing=StandInSigning(self.signing, place.node, trust),
            config=self.config,
            rng=chance(self.rng.getrandbits(64)),
            trust=trust,
        )

    def start(self, place: Place, seeds: Sequence[str] = (), *, mode: str = "hybrid", moves: bool = False) -> Process:
        """Start a broker: at the address of the last time, unless it `moves`."""
        if moves:
            place.starts += 1
        trust = StandInTrust(place.trust)
        process = self.make_process(place, mode, make_machine=lambda boot: self.make_mesh(place, mode, boot, trust))
        self.trusts[process] = trust
        self.say(f"{place.name} starts at {process.address}, boot {process.boot}, seeds {list(seeds)}")
        addresses = (process.address,) if mode != "client" else ()
        process.perform(
            mesh_of(process).start(
                addresses=addresses, seeds=tuple(seeds), remembered=place.remembered, now=process.now
            )
        )
        return process

    def crash(self, process: Process) -> None:
        self.say(f"{process} crashes")
        self._remember(process)
        process.crash()

    def leave(self, process: Process) -> None:
        """Stop a broker as its operator would."""
        self.say(f"{process} leaves")
        self._remember(process)
        self.places[process.place].left[process.boot] = None
        process.perform(mesh_of(process).leave(process.now))
        self.schedule.after(STOP_GRACE_S, process.stop)

    def revoke(self, place: Place, at: Process) -> None:
        """Revoke a node, at a process whose data folder the authority's list is put into."""
        self.say(f"{place.name} is revoked, at {at}")
        self.revoked[place.node] = None
        signed = trust_list(len(self.revoked), self.revoked)
        self.trusts[at].take(signed)
        self.places[at.place].trust = signed
        at.perform(mesh_of(at).trust_changed(at.now))

    def pause(self, process: Process, for_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.say(f"{process} is stopped for {for_s:.1f} s")
        process.pause()
        self.schedule.after(for_s, self._resume, process)

    def starve(self, process: Process, until: float, stopped_s: float, running_s: float) -> None:
        """Let a process have the processor only now and then, until a time."""
        if self.now < until and process.is_up:
            process.pause()
            stopped_s_now = self.rng.uniform(0.5, 1.5) * stopped_s
            self.schedule.after(stopped_s_now, self._resume, process)
            self.schedule.after(
                stopped_s_now + self.rng.uniform(0.5, 1.5) * running_s,
                self.starve,
                process,
                until,
                stopped_s,
                running_s,
            )

    def _resume(self, process: Process) -> None:
        process.resume(timers_first=self.rng.random() < 0.3)

    def _remember(self, process: Process) -> None:
        if isinstance(process.machine, Mesh):
            self.places[process.place].remembered = tuple(
                (member.node, address)
                for member in process.machine.members()
                if not member.is_me
                for address in member.addresses[:1]
            )

    def partition(self, ones: Sequence[int], others: Sequence[int], for_s: float, *, both_ways: bool = True) -> None:
        """Cut places off from others, or only the way from the former to the latter."""
        self.say(f"nothing passes from {list(ones)} to {list(others)} {'and back ' * both_ways}for {for_s:.1f} s")
        ways = [(one, other) for one in ones for other in others]
        if both_ways:
            ways += [(other, one) for one, other in ways]
        for way in ways:
            self.network.block(*way)
            self.schedule.after(for_s, self.network.unblock, *way)

    # --- clients ------------------------------------------------------------------------------------------------------

    def subscribe(self, process: Process, filter: str, group: str = "") -> Subscription:
        self.say(f"{process} subscribes to {filter} {group}")
        subscription = self.ledger.subscribe(process, filter, group, self.now)
        mesh_of(process).add_interest(filter, group, False)
        process.perform(mesh_of(process).end_turn(process.now))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        process = subscription.process
        self.say(f"{subscription} ends")
        self.ledger.unsubscribe(subscription)
        mesh_of(process).discard_interest(subscription.filter, subscription.group, False)
        process.perform(mesh_of(process).end_turn(process.now))

    def publish(self, process: Process, publisher: str, topics: Sequence[str]) -> list[Message]:
        """Publish one message about each topic in one turn of the loop of a broker."""
        mesh = mesh_of(process)
        messages = []
        for topic in topics:
            plan = mesh.plan(topic.encode(), self.ledger.local_groups(process, topic))
            publication = self.ledger.publish(process, publisher, topic, plan, self.now)
            message = self.ledger.messages[process.node, process.boot, publication.id]
            if plan.is_broadcast:
                others = [each for each in self.processes if each is not process and mesh_of(each).is_joined]
                message.targets = {each.node: None for each in others}
            messages.append(message)
            if not plan.is_empty:
                process.perform(mesh.publish(publication, process.now))
        process.perform(mesh.end_turn(process.now))
        return messages

    # --- what processes tell ------------------------------------------------------------------------------------------

    def delivered(self, process: Process, deliver: Deliver) -> None:
        if self.on_delivered is not None:
            self.on_delivered(process, deliver)
        elif not self.ledger.deliver(process, deliver, self.now):
            self.ledger.returned += 1
            outputs = mesh_of(process).give_back(deliver.origin, deliver.batch, deliver.age_ms, process.now)
            # Not from inside `perform`: the machine has more to say first.
            self.schedule.at(self.now, process.perform, outputs)

    def happened(self, process: Process, output: MeshOutput) -> None:
        self.events[type(output).__name__] += 1
        if isinstance(output, MemberChanged):
            if self.on_member_changed is not None:
                self.on_member_changed(process, output)
            if self.trace is not None:
                self.say(f"{process} sees {output.name} {output.before} -> {output.after}")
        elif isinstance(output, TrustLearned):
            self.places[process.place].trust = output.signed
        elif isinstance(output, MemberRevoked):
            self.say(f"{process} expels {output.name}")
        elif isinstance(output, SelfRevoked):
            self.say(f"{process} is told that it is revoked")
            self.schedule.at(self.now, process.stop)
        elif isinstance(output, Superseded):
            self.say(f"{process} is superseded by boot {output.boot}")
            self.schedule.at(self.now, process.stop)
