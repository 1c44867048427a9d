"""The whole machine of a node, with others at the end of connections that deliver at once."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import pytest

from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import KIND_RELAY, BundleBatch
from quicbus.wire.frames import Ping, Pong
from quicbus.wire.node_frames import IHave, MemberRecord, NeighborReply, Update
from quicbus_broker.mesh.conduct import MAX_OFFENCES
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Deliver,
    Dial,
    DialFailed,
    FrameArrived,
    PauseChanged,
    Returned,
    SendBundle,
    SendFrame,
    SpreadReached,
    State,
    Superseded,
    UseConnection,
)
from quicbus_broker.mesh.state import Mesh, Publication
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.mesh.outputs import MeshInput, MeshOutput, NodeId

SEED = 3


class Net:
    """Machines whose connections carry everything at once and in order. Names are addresses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.machines: dict[NodeId, Mesh] = {}
        self.told: dict[NodeId, list[MeshOutput]] = {}
        self.sent: list[tuple[NodeId, MeshOutput]] = []
        self.dead: dict[NodeId, None] = {}
        self._using: dict[tuple[NodeId, NodeId], int] = {}
        self._peer: dict[tuple[NodeId, int], tuple[NodeId, int]] = {}
        self._queue: deque[tuple[NodeId, MeshInput]] = deque()
        self._connections = 0

    def add(self, number: int, *, mode: str = "hybrid", seeds: Sequence[int] = (), boot: int = 1) -> Mesh:
        me = node_id(number)
        config = MeshConfig()
        mesh = Mesh(
            me=me,
            name=f"node-{number}",
            boot=boot,
            mode=mode,
            signing=FakeSigning(me),
            config=config,
            rng=random.Random(f"{SEED}/{number}/{boot}"),
        )
        self.machines[me] = mesh
        self.told[me] = []
        outputs = mesh.start(
            addresses=(f"{number}:1",), seeds=tuple(f"{seed}:1" for seed in seeds), remembered=(), now=self.now
        )
        self.perform(me, outputs)
        return mesh

    def perform(self, me: NodeId, outputs: Sequence[MeshOutput]) -> None:
        self._perform(me, outputs)
        while self._queue:
            node, event = self._queue.popleft()
            if node not in self.dead:
                self._perform(node, self.machines[node].handle(event, self.now))

    def _perform(self, me: NodeId, outputs: Sequence[MeshOutput]) -> None:
        for output in outputs:
            match output:
                case UseConnection(node=node, connection=None):
                    self._using.pop((me, node), None)
                case UseConnection(node=node, connection=int(connection)):
                    self._using[me, node] = connection
                case SendFrame(node=node, frame=frame):
                    self.sent.append((me, output))
                    self._send(me, node, lambda number, frame=frame: FrameArrived(number, frame))
                case SendBundle(node=node, bundle=bundle):
                    self.sent.append((me, output))
                    self._send(me, node, lambda number, bundle=bundle: BundleArrived(number, bundle))
                case Dial(address=address):
                    self._dial(me, output, node_id(int(address.partition(":")[0])))
                case CloseConnection(connection=connection):
                    self.told[me].append(output)
                    self.close(me, connection)
                case _:
                    self.told[me].append(output)

    def _send(self, me: NodeId, node: NodeId, make: object) -> None:
        connection = self._using.get((me, node))
        if connection is not None and (me, connection) in self._peer:
            peer, number = self._peer[me, connection]
            self._queue.append((peer, make(number)))  # type: ignore[operator]

    def _dial(self, me: NodeId, dial: Dial, node: NodeId) -> None:
        if node not in self.machines or node in self.dead:
            self._queue.append((me, DialFailed(dial.address, dial.node, "nobody is there")))
            return
        self._connections += 2
        near, far = self._connections, self._connections + 1
        self._peer[me, near], self._peer[node, far] = (node, far), (me, near)
        boots = self.machines[me].boot, self.machines[node].boot
        self._queue.append((me, ConnectionOpened(near, node, boots[1], True, dial.address)))
        self._queue.append((node, ConnectionOpened(far, me, boots[0], False, "peer")))

    def close(self, me: NodeId, connection: int) -> None:
        peer = self._peer.pop((me, connection), None)
        if peer is not None:
            self._peer.pop(peer, None)
            self._queue.append((peer[0], ConnectionClosed(peer[1], "closed", True)))
            self._queue.append((me, ConnectionClosed(connection, "closed", True)))

    def cut(self, node: NodeId) -> None:
        """The process is gone: its connections end without a goodbye."""
        self.dead[node] = None
        for (me, number), (peer, _) in list(self._peer.items()):
            if peer == node:
                del self._peer[me, number]
                self._queue.append((me, ConnectionClosed(number, "reset", False)))
        self.perform(node, ())

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            node = min((each for each in self.machines if each not in self.dead), key=self._next)
            when = self.machines[node].next_timer()
            if when > end:
                self.now = end
                return
            self.now = max(self.now, when)
            self.perform(node, self.machines[node].tick(self.now))

    def _next(self, node: NodeId) -> float:
        return self.machines[node].next_timer()

    def subscribe(self, mesh: Mesh, filter: str, group: str = "", blocks: bool = False) -> None:
        mesh.add_interest(filter, group, blocks)
        self.perform(mesh.me, mesh.end_turn(self.now))

    def publish(self, mesh: Mesh, topic: str, number: int) -> None:
        body = encode_body(topic.encode(), [b"payload"], number=number)
        plan = mesh.plan(topic.encode(), ())
        self.perform(mesh.me, mesh.publish(Publication(number, "alice", topic.encode(), body, plan), self.now))
        self.perform(mesh.me, mesh.end_turn(self.now))

    def delivered(self, mesh: Mesh) -> list[tuple[NodeId, int]]:
        return [(each.origin, each.batch.id) for each in self.told[mesh.me] if isinstance(each, Deliver)]


def mesh_of(net: Net, count: int) -> list[Mesh]:
    machines = [net.add(number, seeds=[0] if number else []) for number in range(count)]
    net.run(10.0)
    return machines


def states(mesh: Mesh) -> dict[str, State]:
    return {member.name: member.state for member in mesh.members()}


def test_one_seed_is_enough_and_all_know_all() -> None:
    net = Net()
    machines = mesh_of(net, 5)
    for mesh in machines:
        assert mesh.is_joined
        assert states(mesh) == {f"node-{number}": State.ALIVE for number in range(5)}
        assert len(mesh.neighbors) == 4
        assert [member.is_me for member in mesh.members()].count(True) == 1


def test_a_node_without_seeds_is_a_mesh_from_the_start() -> None:
    net = Net()
    assert net.add(0).is_joined
    assert not net.add(1, seeds=[9]).is_joined


def test_a_node_that_nobody_answers_is_settled_until_somebody_does() -> None:
    net = Net()
    lonely = net.add(0, seeds=[1])
    seen = [(lonely.is_joined, lonely.is_settled)]
    net.run(20.0)
    seen.append((lonely.is_joined, lonely.is_settled))
    net.add(1)
    net.run(40.0)
    seen.append((lonely.is_joined, lonely.is_settled))
    assert seen == [(False, False), (False, True), (True, True)]


def test_what_one_node_publishes_reaches_the_nodes_that_want_it_and_no_other() -> None:
    net = Net()
    machines = mesh_of(net, 4)
    net.subscribe(machines[1], "a/#")
    net.subscribe(machines[2], "a/b")
    net.sent.clear()
    net.publish(machines[0], "a/b", 1)
    net.publish(machines[0], "a/c", 2)
    net.publish(machines[0], "other", 3)
    assert net.delivered(machines[1]) == [(machines[0].me, 1), (machines[0].me, 2)]
    assert net.delivered(machines[2]) == [(machines[0].me, 1)]
    assert net.delivered(machines[3]) == []
    bundles = [output for _, output in net.sent if isinstance(output, SendBundle)]
    assert len(bundles) == 3, "what nobody elsewhere wants stays home"


def test_what_many_want_is_broadcast_once_each() -> None:
    net = Net()
    machines = mesh_of(net, 12)
    for mesh in machines[1:]:
        net.subscribe(mesh, "a")
    net.run(1.0)
    for number in range(1, 6):
        net.publish(machines[0], "a", number)
    net.run(3.0)
    for mesh in machines[1:]:
        assert net.delivered(mesh) == [(machines[0].me, number) for number in range(1, 6)]
    counters = machines[0].statistics()
    assert counters.sent >= 5
    assert sum(mesh.statistics().received for mesh in machines) == 5 * 11


def test_a_group_gets_each_batch_on_one_node() -> None:
    net = Net()
    machines = mesh_of(net, 3)
    for mesh in machines[1:]:
        net.subscribe(mesh, "jobs/#", group="workers")
    for number in range(1, 21):
        net.publish(machines[0], "jobs/1", number)
    got = [[id for _, id in net.delivered(mesh)] for mesh in machines[1:]]
    assert sorted(got[0] + got[1]) == list(range(1, 21))
    assert got[0]
    assert got[1]
    share = next(each for each in net.told[machines[1].me] if isinstance(each, Deliver))
    assert (share.batch.group, share.batch.filter) == ("workers", "jobs/#")


def test_interest_has_spread_once_all_neighbours_know_it() -> None:
    net = Net()
    machines = mesh_of(net, 3)
    net.subscribe(machines[0], "a")
    assert machines[0].interest_version == machines[0].spread_version == 1
    assert SpreadReached(1) in net.told[machines[0].me]


def test_a_node_that_joins_later_learns_what_others_want() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    net.subscribe(machines[0], "a")
    net.subscribe(machines[1], "b")
    late = net.add(7, seeds=[0])
    net.run(2.0)
    net.publish(late, "a", 1)
    net.publish(late, "b", 2)
    assert net.delivered(machines[0]) == [(late.me, 1)]
    assert net.delivered(machines[1]) == [(late.me, 2)]


def test_a_killed_node_is_failed_everywhere_and_its_interest_is_gone() -> None:
    net = Net()
    machines = mesh_of(net, 4)
    net.subscribe(machines[3], "a")
    net.cut(machines[3].me)
    net.run(60.0)
    for mesh in machines[:3]:
        assert states(mesh)["node-3"] is State.FAILED
        assert mesh.plan(b"a", ()).is_empty


def test_a_node_that_leaves_is_told_apart_from_one_that_failed() -> None:
    net = Net()
    machines = mesh_of(net, 4)
    net.perform(machines[3].me, machines[3].leave(net.now))
    for mesh in machines[:3]:
        assert states(mesh)["node-3"] is State.LEFT
    net.run(10.0)
    for mesh in machines[:3]:
        assert machines[3].me not in mesh.neighbors


def test_a_renewed_certificate_is_shown_to_all() -> None:
    net = Net()
    machines = mesh_of(net, 3)
    before = machines[1].members()
    net.perform(machines[0].me, machines[0].renewed(net.now))
    entries = [mesh._table.get(machines[0].me) for mesh in machines]
    assert {entry.incarnation for entry in entries if entry is not None} == {machines[0].boot + 1}
    assert machines[1].members() == before


def test_a_restarted_node_is_the_same_member_with_a_new_boot() -> None:
    net = Net()
    machines = mesh_of(net, 3)
    net.cut(machines[2].me)
    net.run(60.0)
    del net.dead[machines[2].me]
    again = net.add(2, seeds=[0], boot=1000)
    net.run(10.0)
    for mesh in (machines[0], machines[1], again):
        assert states(mesh) == {f"node-{number}": State.ALIVE for number in range(3)}
        assert {member.boot for member in mesh.members()} == {1, 1000}
    net.subscribe(again, "a")
    net.publish(machines[0], "a", 1)
    assert net.delivered(again) == [(machines[0].me, 1)]


def test_an_older_boot_that_connects_is_shown_the_record_of_the_later_one() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    used = net._using[machines[0].me, machines[1].me]
    record = next(each for each in machines[0].members() if each.node == machines[1].me)
    outputs = machines[0].handle(ConnectionOpened(900, machines[1].me, record.boot - 1, False, "x:1"), net.now)
    first, update, last = outputs[:3]
    assert (first, last) == (UseConnection(machines[1].me, 900), UseConnection(machines[1].me, used))
    assert isinstance(update, SendFrame)
    assert isinstance(update.frame, Update)
    assert len(update.frame.records) == 1


def test_the_older_of_two_live_boots_is_told_to_stop() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    clone = sealed(machines[0].me, boot=50, name="node-0", addresses=("9:9",))
    connection = net._using[machines[0].me, machines[1].me]
    net.perform(machines[0].me, machines[0].handle(FrameArrived(connection, Update(records=(clone,))), net.now))
    assert Superseded(50, ("9:9",)) in net.told[machines[0].me]


def test_a_ping_is_answered_at_once() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    connection = net._using[machines[0].me, machines[1].me]
    outputs = machines[0].handle(FrameArrived(connection, Ping(id=77)), net.now)
    assert outputs == [SendFrame(machines[1].me, Pong(id=77))]


def test_what_comes_over_a_connection_that_is_closed_is_nothing() -> None:
    net = Net()
    mesh = net.add(0)
    assert mesh.handle(FrameArrived(99, Ping(id=1)), net.now) == []
    assert mesh.handle(ConnectionClosed(99, "gone", False), net.now) == []


def test_a_peer_that_keeps_sending_forged_records_loses_its_connection() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    genuine = sealed(node_id(50))
    forged = Update(records=(type(genuine)(genuine.payload, b"x" * 16),))
    connection = net._using[machines[0].me, machines[1].me]
    for _ in range(MAX_OFFENCES - 1):
        net.perform(machines[0].me, machines[0].handle(FrameArrived(connection, forged), net.now))
    assert not any(isinstance(each, CloseConnection) for each in net.told[machines[0].me])
    net.perform(machines[0].me, machines[0].handle(FrameArrived(connection, forged), net.now))
    closed = next(each for each in net.told[machines[0].me] if isinstance(each, CloseConnection))
    assert "no honest node" in closed.reason
    assert "node-50" not in states(machines[0])
    assert machines[0].statistics().dropped["misbehaved"] == MAX_OFFENCES


def test_a_frame_that_is_not_for_an_open_link_is_an_offence() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    connection = net._using[machines[0].me, machines[1].me]
    wrong = MemberRecord(node=node_id(1), name="x", boot=1, incarnation=1, mode="hybrid")
    machines[0].handle(FrameArrived(connection, wrong), net.now)  # type: ignore[arg-type]
    assert machines[0].statistics().dropped["misbehaved"] == 1


def test_an_announcement_of_one_that_is_no_neighbour_does_not_make_it_one() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    connection = net._using[machines[0].me, machines[1].me]
    machines[0].handle(FrameArrived(connection, NeighborReply(granted=False)), net.now)
    outputs = machines[0].handle(FrameArrived(connection, IHave(bundles=((machines[1].me, 1, 1),))), net.now)
    assert machines[1].me not in machines[0].neighbors
    assert all(not isinstance(output, SendBundle) for output in outputs)


def test_a_pause_travels_to_the_origin_and_ends_with_the_connection() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    net.subscribe(machines[1], "a", blocks=True)
    assert machines[0].plan(b"a", ()).waits
    net.perform(machines[1].me, machines[1].pause(machines[0].me, "a", True, net.now))
    assert PauseChanged(machines[1].me, "a", True) in net.told[machines[0].me]
    net.cut(machines[1].me)
    net.run(60.0)
    assert PauseChanged(machines[1].me, "a", False) in net.told[machines[0].me]


def test_a_share_without_members_comes_back() -> None:
    net = Net()
    machines = mesh_of(net, 2)
    body = encode_body(b"a", [b"x"], number=1)
    share = Publication(1, "alice", b"a", body, machines[0].plan(b"a", ()))
    net.perform(machines[0].me, machines[0].send_share(share, machines[1].me, "workers", "a", net.now))
    (batch,) = [each.batch for each in net.told[machines[1].me] if isinstance(each, Deliver)]
    assert machines[0].statistics().shares > len(body)
    net.perform(machines[1].me, machines[1].give_back(machines[0].me, batch, 5, net.now))
    assert Returned(machines[1].me, batch, 5) in net.told[machines[0].me]


def test_a_share_for_an_origin_that_is_gone_is_counted() -> None:
    net = Net()
    mesh = net.add(0)
    batch = BundleBatch(1, 0, 1, 0, "alice", encode_body(b"a", [b"x"], number=1), "workers", "a")
    assert mesh.give_back(node_id(9), batch, 5, net.now) == []
    assert mesh.statistics().dropped["no_member"] == 1


@pytest.mark.parametrize("mode", ["hybrid", "client"])
def test_a_node_is_served_directly_without_a_link(mode: str) -> None:
    """Twelve nodes: not all are linked. One that only dials is reached through those it is linked to."""
    net = Net()
    machines = mesh_of(net, 12)
    far = net.add(50, seeds=[0], mode=mode)
    net.run(30.0)
    net.subscribe(far, "a")
    net.run(5.0)
    origin = next(mesh for mesh in machines if far.me not in mesh.neighbors)
    net.sent.clear()
    for number in range(1, 4):
        net.publish(origin, "a", number)
    net.run(10.0)
    assert net.delivered(far) == [(origin.me, number) for number in range(1, 4)]
    relays = [each for _, each in net.sent if isinstance(each, SendBundle) and each.bundle.kind == KIND_RELAY]
    assert bool(relays) == (mode == "client")
