"""Random worlds made of a seed: faults first, then calm in which everything must come right again.

Everything about a world follows from its seed: how many nodes, which settings, what fails when, who subscribes and
publishes. `run` raises `Failure`, which says how to see it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.simulation.application import Broken
from quicbus_broker.simulation.chance import chance
from quicbus_broker.simulation.checks import memory_over_bounds, missing_deliveries, not_converged, unaccounted
from quicbus_broker.simulation.world import STOP_GRACE_S, Latency, World, mesh_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.simulation.application import Subscription
    from quicbus_broker.simulation.process import Process

__all__ = ["Failure", "Outcome", "Scenario", "run"]

TOPICS = ("a", "a/b", "a/c", "b/c", "b/c/d")
FILTERS = ("a", "a/b", "a/+", "#", "b/#", "+/c", "b/c/d")
SEEDS = (0, 1)
"""The places that are named as seeds: hybrids that always come back."""
GROUPS = ("workers", "others")
CONVERGENCE_LIMIT_S = 400.0
"""Connections that died in silence (up to a minute), redials up to 30 s apart, suspicions of 24 s, in turn."""
SETTLE_S = 15.0
"""For messages that are under way, and for gaps."""


class Failure(AssertionError):
    """What went wrong in the world of a seed."""

    def __init__(self, seed: int, why: str) -> None:
        super().__init__(seed, why)
        self.seed = seed
        self.why = why

    def __str__(self) -> str:
        return f"{self.why}\nsee it again: python -m quicbus_broker.simulation --seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    nodes: int
    faults: int
    messages: int
    deliveries: int
    events: int
    calm_s: float
    """How long it took until everything was right again."""


class Scenario:
    """The world of one seed. Of five one is without faults, so that every message must arrive, and one keeps all its
    processes, so that what does not arrive must be counted.
    """

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        rng = self._rng = chance(seed)
        self.seed = seed
        self.is_faultless = seed % 5 == 0
        self._loses_processes = seed % 5 > 1
        """Otherwise all counters are there in the end, and the books must balance."""
        self._revokes = self._loses_processes and seed % 3 == 0
        config = MeshConfig(
            small_mesh=rng.choice((2, 4, 6)),
            direct_max=rng.choice((0, 1, 3, 8)),
            rotate_interval_s=rng.choice((15.0, 60.0)),
            discover_interval_s=rng.choice((5.0, 10.0)),
        )
        latency = Latency(seed, 0.0005, rng.choice((0.005, 0.05, 0.2)))
        self.world = World(seed, config=config, latency=latency)
        self.world.trace = trace
        self.world.network.is_encoding = seed % 4 == 0
        self.world.network.loss = rng.choice((0.0, 0.01, 0.1))
        self._nodes = rng.choice((3, 3, 4, 5, 6, 8, 10, 12))
        others = rng.choices(("hybrid", "server", "client"), (6, 1, 1), k=self._nodes - 2)
        self._modes = ["hybrid", "hybrid", *others]
        self._fault_s = rng.choice((20.0, 60.0, 120.0))
        self._fault_pause_s = rng.choice((1.0, 5.0, 20.0))
        self._publish_pause_s = rng.choice((0.05, 0.3, 1.0))
        self._calm_from = math.inf
        self._faults = 0
        self._subscriptions: list[Subscription] = []
        self._fault_kinds = self._choose_faults()

    def run(self) -> Outcome:
        """Run it all; raises `Failure`."""
        try:
            return self._run()
        except Broken as error:
            raise Failure(self.seed, str(error)) from error
        except Failure:
            raise
        except Exception as error:
            raise Failure(self.seed, f"{type(error).__name__} at {self.world.now:.3f}: {error}") from error

    def _run(self) -> Outcome:
        self._begin()
        if not self.is_faultless:
            self._disturb()
        calm_s = self._await_calm()
        if self.is_faultless:
            self._await_all_messages()
        self._final_round()
        self._check(memory_over_bounds(self.world))
        if not self._loses_processes:
            self._check(unaccounted(self.world))
        world = self.world
        return Outcome(
            self.seed,
            self._nodes,
            self._faults,
            len(world.ledger.messages),
            world.ledger.handed_over,
            world.schedule.happened,
            calm_s,
        )

    # --- the beginning ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        world, rng = self.world, self._rng
        for _ in range(self._nodes):
            world.add_place()
        for place in world.places:
            world.schedule.after(rng.uniform(0.0, 5.0) if place.index else 0.0, self._first_start, place.index)
        world.schedule.run_for(6.0)
        for _ in range(rng.randint(1, 3 * self._nodes)):
            self._subscribe()

    def _first_start(self, index: int) -> None:
        self.world.start(self.world.places[index], self._seeds_for(index), mode=self._modes[index])

    def _seeds_for(self, index: int) -> list[str]:
        """One or two of the first nodes; the very first has none, or the second, which names all that do not dial."""
        addresses = [self.world.address_of(self.world.places[each]) for each in SEEDS if each != index]
        if index == SEEDS[1]:
            servers = [place for place in self.world.places if self._modes[place.index] == "server"]
            return addresses + [self.world.address_of(place) for place in servers]
        if not index:
            return addresses if self.seed % 2 else []
        return addresses[: self._rng.randint(1, 2)]

    # --- load ---------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        running = [process for process in self.world.processes if not process.is_paused]
        if running:
            group = self._rng.choice(("", "", "", *GROUPS))
            subscription = self.world.subscribe(self._rng.choice(running), self._rng.choice(FILTERS), group)
            self._subscriptions.append(subscription)

    def _unsubscribe(self) -> None:
        present = [each for each in self._subscriptions if each.process.is_up and not each.process.is_paused]
        if present:
            subscription = self._rng.choice(present)
            self._subscriptions.remove(subscription)
            self.world.unsubscribe(subscription)

    def _publish(self) -> None:
        if self.world.now >= self._calm_from:
            return
        rng = self._rng
        running = [process for process in self.world.processes if not process.is_paused]
        if running:
            process = rng.choice(running)
            publisher = f"{process.name}/{rng.randint(1, 2)}"
            self.world.publish(process, publisher, rng.choices(TOPICS, k=rng.randint(1, 6)))
        self.world.schedule.after(rng.expovariate(1 / self._publish_pause_s), self._publish)

    def _await_all_messages(self) -> None:
        """Without faults every message that is published once the interest is known arrives."""
        world = self.world
        began = world.now
        self._calm_from = began + 20.0
        self._publish()
        world.schedule.run_until(self._calm_from + SETTLE_S)
        sent = [message for message in world.ledger.messages.values() if message.sent_at >= began]
        self._check(missing_deliveries(world, sent))
        for process in world.processes:
            lost = mesh_of(process).statistics().lost_in_mesh
            self._check([f"{process} counts {lost} batches as lost, without a fault"] * bool(lost))

    # --- faults -------------------------------------------------------------------------------------------------------

    def _choose_faults(self) -> list[Callable[[], None]]:
        """Each world has its own mixture, so that some are without restarts, some without partitions, and so on."""
        kinds: list[Callable[[], None]] = [
            self._crash,
            self._crash,
            self._restart,
            self._restart,
            self._leave,
            self._pause,
            self._starve,
            self._partition,
            self._partition,
            self._cut_one_way,
            self._slow_link,
            self._change_loss,
            self._step_clock,
            self._clone,
        ]
        load = [self._subscribe, self._unsubscribe]
        if not self._loses_processes:
            kinds = [kind for kind in kinds if kind not in (self._crash, self._restart, self._leave, self._clone)]
        return self._rng.sample(kinds, self._rng.randint(2, len(kinds))) + load + [self._revoke] * self._revokes

    def _disturb(self) -> None:
        world = self.world
        self._calm_from = world.now + self._fault_s
        self._publish()
        self._next_fault()
        world.schedule.run_until(self._calm_from)

    def _next_fault(self) -> None:
        if self.world.now < self._calm_from:
            self._faults += 1
            self._rng.choice(self._fault_kinds)()
            self.world.schedule.after(self._rng.expovariate(1 / self._fault_pause_s), self._next_fault)

    def _duration(self) -> float:
        """Short or long, and over when the calm begins."""
        return min(self._rng.choice((0.3, 2.0, 8.0, 40.0)) * self._rng.uniform(0.5, 1.5), self._rest_s)

    @property
    def _rest_s(self) -> float:
        return max(0.0, self._calm_from - self.world.now)

    def _any(self) -> Process | None:
        running = self.world.processes
        return self._rng.choice(running) if running else None

    def _crash(self) -> None:
        if process := self._any():
            self.world.crash(process)

    def _restart(self) -> None:
        """Start what is down; its seeds are named again, or only what it remembers."""
        down = [place for place in self.world.places if not place.is_up and place.boot and not place.is_told]
        if down:
            place = self._rng.choice(down)
            is_told = place.index in SEEDS or not place.remembered or self._rng.random() < 0.7
            seeds = self._seeds_for(place.index) if is_told else []
            self.world.start(place, seeds, mode=self._modes[place.index], moves=self._may_move(place.index))

    def _may_move(self, index: int) -> bool:
        """What is named as a seed stays where it is: who knows no other way would never find it again."""
        return index not in SEEDS and self._modes[index] != "server" and self._rng.random() < 0.5

    def _leave(self) -> None:
        process = self._any()
        if process is None or process.is_paused or (process.place in SEEDS and self._rest_s < 2 * STOP_GRACE_S):
            return  # A seed that is leaving when the calm begins would not be started again.
        self.world.leave(process)

    def _revoke(self) -> None:
        """Revoke a node, at another one that runs: others, and it itself, may be away, or cut off."""
        places = [place for place in self.world.places[len(SEEDS) :] if place.node not in self.world.revoked]
        running = [process for process in self.world.processes if not process.is_paused]
        if places and running:
            place, process = self._rng.choice(places), self._rng.choice(running)
            if process.node != place.node:
                self.world.revoke(place, process)

    def _pause(self) -> None:
        if process := self._any():
            self.world.pause(process, self._duration())

    def _starve(self) -> None:
        if process := self._any():
            until = self.world.now + self._duration()
            self.world.starve(process, until, self._rng.choice((0.3, 2.0, 5.0)), self._rng.choice((0.05, 0.5)))

    def _partition(self) -> None:
        indexes = list(range(self._nodes))
        self._rng.shuffle(indexes)
        cut = self._rng.randint(1, self._nodes - 1)
        self.world.partition(indexes[:cut], indexes[cut:], self._duration())

    def _cut_one_way(self) -> None:
        indexes = list(range(self._nodes))
        self._rng.shuffle(indexes)
        ones = self._rng.randint(1, self._nodes - 1)
        others = self._rng.randint(1, self._nodes - ones)
        self.world.partition(indexes[:ones], indexes[ones : ones + others], self._duration(), both_ways=False)

    def _slow_link(self) -> None:
        way = self._rng.sample(range(self._nodes), 2)
        self.world.say(f"the way {way} becomes slow")
        self.world.network.slow(way[0], way[1], self._rng.uniform(0.1, 2.0))
        self.world.schedule.after(self._duration(), self.world.network.slow, way[0], way[1], 0.0)

    def _change_loss(self) -> None:
        self.world.network.loss = self._rng.choice((0.0, 0.05, 0.3))
        self.world.say(f"the loss becomes {self.world.network.loss}")

    def _step_clock(self) -> None:
        place = self._rng.choice(self.world.places)
        place.wall_offset_s += self._rng.choice((-86_400.0, -10.0, 3600.0))

    def _clone(self) -> None:
        """Start a node a second time, elsewhere, while it runs: the older process must stop."""
        process = self._any()
        if process is not None and process.place not in SEEDS and process.mode != "server":
            place = self.world.places[process.place]
            if place.is_told:
                return
            self.world.say(f"a second process of {place.name}")
            self.world.start(place, self._seeds_for(place.index), mode=self._modes[place.index], moves=True)

    # --- calm ---------------------------------------------------------------------------------------------------------

    def _await_calm(self) -> float:
        world = self.world
        world.say("calm")
        self._calm_from = world.now
        world.network.loss = min(world.network.loss, 0.01)
        for process in [each for each in world.every_process() if each.is_up]:
            if not world.places[process.place].is_up:
                # The later boot that it never met is gone again: nobody is left who could tell it to stop.
                world.crash(process)
            elif process.node in world.revoked and process.mode == "server":
                # It dials nobody, and nobody dials it any more.
                world.crash(process)
        for place in world.places:
            if not place.is_up and not place.is_told and (place.index in SEEDS or self._rng.random() < 0.5):
                world.start(place, self._seeds_for(place.index), mode=self._modes[place.index])
        calm_s = world.schedule.run_while(lambda: bool(self._wrong()), CONVERGENCE_LIMIT_S, step_s=2.0)
        if math.isinf(calm_s):
            self._check(self._wrong())
        # It must stay so, but for links that are just being exchanged.
        world.schedule.run_for(30.0)
        if math.isinf(world.schedule.run_while(lambda: bool(self._wrong()), 5.0)):
            self._check(self._wrong())
        return calm_s

    def _wrong(self) -> list[str]:
        old = [process for process in self.world.every_process() if process.is_up and self._is_old(process)]
        return [f"{process} still runs beside a later boot" for process in old] or not_converged(self.world, TOPICS)

    def _is_old(self, process: Process) -> bool:
        others = self.world.every_process()
        return any(each.is_up and each.place == process.place and each.boot > process.boot for each in others)

    def _final_round(self) -> None:
        """Now every node reaches every subscriber."""
        world = self.world
        sent = []
        for process in world.processes:
            for _ in range(3):
                sent += world.publish(process, f"{process.name}/last", TOPICS)
                world.schedule.run_for(0.01)
        world.schedule.run_for(SETTLE_S)
        self._check(missing_deliveries(world, sent))

    def _check(self, wrong: list[str]) -> None:
        if wrong:
            shown = "\n".join(wrong[:10])
            raise Failure(self.seed, f"at {self.world.now:.3f}, {len(wrong)} things are wrong:\n{shown}")


def run(seed: int, trace: Callable[[str], None] | None = None) -> Outcome:
    """Run the world of a seed; raises `Failure`. `trace` gets a line for whatever happens in it."""
    return Scenario(seed, trace).run()
