"""Numbering, a network that loses, delays and repeats, and Sequencer: at most once, and in order, whatever happens."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.wire.bundles import EVERYONE, BundleBatch
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.messages.numbering import Numbering
from quicbus_broker.mesh.messages.sequencer import Sequencer
from quicbus_broker.mesh.outputs import Deliver, Output

ORIGIN = b"o" * 16
NODES = [bytes([number]) * 16 for number in range(1, 5)]
TOPICS = [b"a", b"b", b"c", b"d", b"e"]
LANES = 2


@dataclass
class Weather:
    """What the network does. Times in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    skip: float = 0.0
    """Chance that a direct batch is dropped at the origin, which says so."""
    delay_max: float = 0.5
    restart: float = 0.0


@dataclass
class Receiver:
    node: bytes
    boot: int
    sequencer: Sequencer
    delivered: list[tuple[int, bytes, int]] = field(default_factory=list)
    """Of all its boots: boot of the origin, topic, id."""


class World:
    """One origin, several receivers; `steps` publications."""

    def __init__(self, seed: int, weather: Weather, max_topics: int) -> None:
        self.rng = random.Random(seed)
        self.weather = weather
        self.config = MeshConfig(gap_timeout_s=2.0)
        self.max_topics = max_topics
        self.now = 0.0
        self.boot = 1
        self.id = 0
        self.numbering = Numbering(max_topics)
        self.receivers = {node: Receiver(node, 1, Sequencer(node, self.config, 1)) for node in NODES}
        self.ways: dict[bytes, tuple[bytes, ...]] = {}
        self.wanted: dict[bytes, list[tuple[int, bytes, int]]] = {node: [] for node in NODES}
        self.way_of_packets: list[tuple[float, int, bytes, tuple[object, ...]]] = []
        self.count = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.pass_time(self.rng.choice([0.0, 0.01, 0.1, self.rng.uniform(0, 1.0)]))
            self.publish(self.rng.choice(TOPICS))
            if self.rng.random() < self.weather.restart:
                self.restart()
        self.pass_time(60.0)

    def publish(self, topic: bytes) -> None:
        if topic not in self.ways or self.rng.random() < 0.3:
            self.ways[topic] = tuple(self.rng.sample(NODES, self.rng.randint(0, 3)))
        nodes = self.ways[topic]
        self.id += 1
        lane = topic[0] % LANES
        if not nodes:
            after = self.numbering.way_changed(topic, lane, EVERYONE, self.now)
            batch = BundleBatch(self.id, lane, self.numbering.next_broadcast(lane), 0, "", topic, after=after)
            for node in NODES:
                self.send(node, EVERYONE, 0, batch)
            return
        after = self.numbering.way_changed(topic, lane, nodes, self.now)
        for node in nodes:
            boot = self.receivers[node].boot
            number = self.numbering.next_direct(node, boot, lane)
            batch = BundleBatch(self.id, lane, number, 0, "", topic, after=after)
            if self.rng.random() < self.weather.skip:
                self.put(node, (self.boot, "skip", boot, lane, number))
            else:
                self.send(node, node, boot, batch)

    def send(self, node: bytes, space: bytes, target_boot: int, batch: BundleBatch) -> None:
        self.wanted[node].append((self.boot, batch.body, batch.id))
        if self.rng.random() < self.weather.loss:
            return
        self.put(node, (self.boot, space, target_boot, batch))
        if self.rng.random() < self.weather.repeat:
            self.put(node, (self.boot, space, target_boot, batch))

    def put(self, node: bytes, packet: tuple[object, ...]) -> None:
        self.count += 1
        at = self.now + self.rng.uniform(0, self.weather.delay_max)
        heapq.heappush(self.way_of_packets, (at, self.count, node, packet))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            at = self.way_of_packets[0][0] if self.way_of_packets else end + 1
            timers = [(each.sequencer.next_timer(), node) for node, each in self.receivers.items()]
            due, node = min(timers)
            if min(at, due) > end:
                break
            if due <= at:
                self.now = max(self.now, due)
                outputs: list[Output] = []
                self.receivers[node].sequencer.tick(self.now, outputs)
                self.deliver(self.receivers[node], outputs)
            else:
                self.now, _, node, packet = heapq.heappop(self.way_of_packets)
                self.arrive(self.receivers[node], packet)
        self.now = end

    def arrive(self, receiver: Receiver, packet: tuple[object, ...]) -> None:
        outputs: list[Output] = []
        match packet:
            case (int(boot), "skip", int(target_boot), int(lane), int(number)):
                if target_boot == receiver.boot:
                    receiver.sequencer.skipped(ORIGIN, lane, number, number, self.now, outputs, boot)
            case (int(boot), bytes(space), int(target_boot), BundleBatch() as batch):
                if space == EVERYONE or target_boot == receiver.boot:
                    receiver.sequencer.arrive(ORIGIN, boot, space, batch, 0, 1, self.now, outputs)
            case _:
                raise AssertionError(packet)
        self.deliver(receiver, outputs)

    def deliver(self, receiver: Receiver, outputs: list[Output]) -> None:
        for output in outputs:
            assert isinstance(output, Deliver)
            receiver.delivered.append((output.boot, output.batch.body, output.batch.id))

    def restart(self) -> None:
        """The origin, which learns of the others' boots at once, begins anew; or a receiver does."""
        node = self.rng.choice([ORIGIN, *NODES])
        if node == ORIGIN:
            self.boot += 1
            self.numbering = Numbering(self.max_topics)
            return
        old = self.receivers[node]
        heads = old.sequencer.heads()
        fresh = self.receivers[node] = Receiver(node, old.boot + 1, Sequencer(node, self.config, old.boot + 1))
        for head in heads:
            fresh.sequencer.set_head(head)
        self.check(old)

    def check(self, receiver: Receiver) -> None:
        last: dict[bytes, tuple[int, int]] = {}
        for boot, topic, id in receiver.delivered:
            assert (boot, id) > last.get(topic, (0, 0)), f"{id} of {topic!r} after {last[topic]}"
            last[topic] = boot, id


def explore(seed: int, weather: Weather, max_topics: int, steps: int) -> World:
    print(f"seed {seed}, {weather}, {max_topics} topics remembered")
    world = World(seed, weather, max_topics)
    world.run(steps)
    for receiver in world.receivers.values():
        world.check(receiver)
        assert receiver.sequencer.held_size == 0
    return world


WEATHERS = st.builds(
    Weather,
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    repeat=st.sampled_from([0.0, 0.3]),
    skip=st.sampled_from([0.0, 0.3]),
    delay_max=st.sampled_from([0.1, 1.9, 5.0]),
    restart=st.sampled_from([0.0, 0.02]),
)


@given(st.integers(0, 2**32), WEATHERS, st.sampled_from([1, 2, 100]))
def test_nothing_comes_twice_or_out_of_order_in_any_weather(seed: int, weather: Weather, max_topics: int) -> None:
    explore(seed, weather, max_topics, 60)


@pytest.mark.parametrize("seed", range(20))
def test_long_runs_in_bad_weather_deliver_at_most_once_and_in_order(seed: int) -> None:
    weather = Weather(loss=0.1, repeat=0.1, skip=0.1, delay_max=4.0, restart=0.01)
    world = explore(seed, weather, 1 + seed % 4, 400)
    assert any(receiver.delivered for receiver in world.receivers.values())


@pytest.mark.parametrize("seed", range(10))
def test_everything_arrives_once_and_in_order_if_nothing_is_lost(seed: int) -> None:
    world = explore(seed, Weather(repeat=0.2, delay_max=1.5), 1 + seed % 4, 300)
    for node, receiver in world.receivers.items():
        assert sorted(receiver.delivered) == sorted(world.wanted[node])
        assert (receiver.sequencer.counters.lost_in_mesh, receiver.sequencer.counters.late) == (0, 0)


@pytest.mark.parametrize("seed", range(10))
def test_what_does_not_arrive_is_counted(seed: int) -> None:
    world = explore(seed, Weather(loss=0.1, delay_max=1.5), 100, 300)
    for node, receiver in world.receivers.items():
        missing = len(world.wanted[node]) - len(receiver.delivered)
        # Those that nothing came after are not known to be missing.
        assert missing - 3 * 2 * LANES <= receiver.sequencer.counters.lost_in_mesh <= missing
