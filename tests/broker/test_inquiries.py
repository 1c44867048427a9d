"""What clients see of the mesh: peers, spread and further brokers, told by an edge that a fake mesh stands behind."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import (
    Accepted,
    Brokers,
    Hello,
    PeerEntry,
    Peers,
    PeersWanted,
    Ping,
    Pong,
    Spread,
    SpreadWanted,
    Unsubscribe,
)
from quicbus_broker.edge.mesh_view import MAX_BROKERS, further_brokers
from tests.broker.fakes import NODE, FakeBroker, FakeClient

if TYPE_CHECKING:
    from collections.abc import Callable

ME = PeerEntry(node=NODE.hex(), name="here", state="alive", mode="hybrid", boot=7, is_self=True, addresses=("here:1",))


def peer(number: int, **changed: Any) -> PeerEntry:
    entry = PeerEntry(
        node=number.to_bytes(16, "big").hex(),
        name=f"n{number}",
        state="alive",
        mode="hybrid",
        boot=1,
        addresses=(f"n{number}:1",),
    )
    return msgspec.structs.replace(entry, **changed)


class FakeMesh:
    def __init__(self, *peers: PeerEntry) -> None:
        self.members: tuple[PeerEntry, ...] = (ME, *peers)
        self.waiting: dict[int, Callable[[int], None]] = {}
        self.stopped: list[int] = []

    def peers(self) -> tuple[PeerEntry, ...]:
        return self.members

    def when_spread(self, done: Callable[[int], None]) -> Callable[[], object]:
        number = len(self.waiting) + 1
        self.waiting[number] = done
        return lambda: self.stopped.append(number)


@dataclass(frozen=True)
class FakePeer:
    name: str
    not_after: dt.datetime
    node_id: bytes = bytes(16)


class FakeVerifier:
    """Takes every proof."""

    def verify(self, chain: Any, signature: Any, binding: Any, kind: Any, now: dt.datetime) -> FakePeer:
        return FakePeer("alice", now + dt.timedelta(days=1))


def mesh_broker(*peers: PeerEntry) -> tuple[FakeBroker, FakeMesh]:
    broker, mesh = FakeBroker(), FakeMesh(*peers)
    broker.edge.mesh = mesh
    broker.edge.members_changed()
    broker.pass_time(0.0)
    return broker, mesh


def remote_client(broker: FakeBroker) -> tuple[FakeClient, Accepted]:
    """Return a client that has proved itself, and what it was told."""
    client = broker.connect(FakeVerifier())  # type: ignore[arg-type]  # as much of a verifier as admission needs
    client.write(Hello(version=1, kind="client", agent="test"))
    accepted = client.frames()[-1]
    assert isinstance(accepted, Accepted)
    return client, accepted


def test_a_broker_without_a_mesh_is_its_only_peer() -> None:
    client = FakeBroker().client()
    client.write(PeersWanted(id=3))
    (answer,) = client.frames()
    assert answer == Peers(
        id=3,
        peers=(PeerEntry(node=NODE.hex(), name="", state="alive", mode="hybrid", boot=7, is_self=True),),
    )


def test_peers_are_those_of_the_mesh_as_they_are_when_asked() -> None:
    broker, mesh = mesh_broker()
    client = broker.client()
    mesh.members = (ME, peer(1))
    client.write(PeersWanted(id=1), PeersWanted(id=2))
    assert client.frames() == [Peers(id=1, peers=mesh.members), Peers(id=2, peers=mesh.members)]


def test_a_large_mesh_is_told_in_several_frames_as_fast_as_the_client_reads() -> None:
    broker, mesh = mesh_broker(*(peer(number, name="x" * 400) for number in range(1, 10_000)))
    client = broker.client()
    client.write(PeersWanted(id=1))
    told: list[PeerEntry] = []
    last = None
    turns = 0
    while last is None or last.more:
        turns += 1
        for frame in client.frames():
            if isinstance(frame, Peers):
                told += frame.peers
                last = frame
            else:
                assert isinstance(frame, Ping)
                client.write(Pong(id=frame.id))
    assert tuple(told) == mesh.members
    assert turns > 1
    assert client.connection.close_code is None


def test_a_client_that_asks_and_does_not_read_is_not_answered_without_bound() -> None:
    broker, _ = mesh_broker(*(peer(number, name="x" * 400) for number in range(1, 10_000)))
    client = broker.client()
    for id in range(60):
        client.write(PeersWanted(id=id))
    broker.turn()
    sent = sum(map(len, client.connection.sent.values()))
    assert sent < 2 * 1024 * 1024
    for id in range(65):
        client.write(PeersWanted(id=id))
    assert client.connection.close_code == CloseCode.PROTOCOL_VIOLATION
    assert client.connection.close_reason == "PeersWanted: more than 64 are unanswered"


def test_spread_is_told_once_the_mesh_says_so() -> None:
    broker, mesh = mesh_broker(peer(1, linked=True))
    client = broker.client()
    client.subscribe("a/#")
    client.frames()
    client.write(SpreadWanted(id=9, subscription=1))
    assert client.frames() == []
    mesh.waiting[1](2)
    assert client.frames() == [Spread(id=9, nodes=2)]
    mesh.waiting[1](2)
    assert client.frames() == []


def test_spread_of_a_subscription_that_has_ended_is_told_at_once() -> None:
    broker, mesh = mesh_broker()
    client = broker.client()
    client.subscribe("a/#")
    client.write(Unsubscribe(id=1), SpreadWanted(id=1, subscription=1))
    assert client.frames()[-1] == Spread(id=1, nodes=0)
    assert mesh.waiting == {}


def test_a_broker_without_a_mesh_has_spread_at_once() -> None:
    client = FakeBroker().client()
    client.subscribe("a/#")
    client.frames()
    client.write(SpreadWanted(id=1, subscription=1))
    assert client.frames() == [Spread(id=1, nodes=0)]


def test_nobody_waits_for_spread_any_more_when_the_client_is_gone() -> None:
    broker, mesh = mesh_broker()
    client = broker.client()
    client.subscribe("a/#")
    client.write(SpreadWanted(id=1, subscription=1), SpreadWanted(id=2, subscription=1))
    client.vanish()
    assert mesh.stopped == [1, 2]
    mesh.waiting[1](1)


def test_too_many_unanswered_questions_about_spread_are_a_violation() -> None:
    broker, _ = mesh_broker()
    client = broker.client()
    client.subscribe("a/#")
    for id in range(1025):
        client.write(SpreadWanted(id=id, subscription=1))
    assert client.connection.close_code == CloseCode.PROTOCOL_VIOLATION


def test_accepted_names_further_brokers() -> None:
    broker, _ = mesh_broker(peer(1), peer(2, addresses=("n2:1", "10.0.0.2:1")))
    _, accepted = remote_client(broker)
    assert sorted(accepted.brokers) == ["quic://10.0.0.2:1", "quic://n1:1", "quic://n2:1"]


def test_the_client_inside_the_process_is_told_of_no_further_brokers() -> None:
    broker, mesh = mesh_broker(peer(1))
    client = broker.connect()
    client.write(Hello(version=1, kind="client", agent="test"))
    accepted = client.frames()[-1]
    assert isinstance(accepted, Accepted)
    assert accepted.brokers == []
    mesh.members = (ME,)
    broker.edge.members_changed()
    broker.pass_time(5.0)
    assert client.frames() == []


def test_clients_are_told_when_the_brokers_change_and_at_most_once_a_second() -> None:
    broker, mesh = mesh_broker()
    client, _ = remote_client(broker)
    mesh.members = (ME, peer(1))
    broker.edge.members_changed()
    broker.pass_time(0.5)
    assert client.frames() == []
    broker.pass_time(0.6)
    assert client.frames() == [Brokers(brokers=("quic://n1:1",))]
    mesh.members = (ME, peer(1, rtt_ms=3.0, linked=True))
    broker.edge.members_changed()
    broker.pass_time(1.1)
    assert client.frames() == [], "the same brokers are no news"
    mesh.members = (ME, peer(1, state="left"))
    broker.edge.members_changed()
    broker.pass_time(1.1)
    assert client.frames() == [Brokers(brokers=())]


def test_a_client_that_comes_in_is_told_of_brokers_that_came_just_before() -> None:
    broker, mesh = mesh_broker(peer(1))
    first, accepted = remote_client(broker)
    assert accepted.brokers == ["quic://n1:1"]
    mesh.members = (ME, peer(1), peer(2))
    broker.edge.members_changed()
    broker.pass_time(0.01)
    _, accepted = remote_client(broker)
    assert sorted(accepted.brokers) == ["quic://n1:1", "quic://n2:1"]
    assert first.frames() == [], "the others wait for their turn"
    broker.pass_time(1.1)
    (told,) = first.frames()
    assert isinstance(told, Brokers)
    assert sorted(told.brokers) == ["quic://n1:1", "quic://n2:1"]


def test_a_node_that_was_cut_off_from_all_others_still_names_them_to_its_clients() -> None:
    broker, mesh = mesh_broker(peer(1), peer(2))
    client, _ = remote_client(broker)
    mesh.members = (ME, peer(1, state="failed"), peer(2))
    broker.edge.members_changed()
    broker.pass_time(1.1)
    assert client.frames() == [Brokers(brokers=("quic://n2:1", "quic://n1:1"))]
    mesh.members = (ME, peer(1, state="failed"), peer(2, state="suspect"))
    broker.edge.members_changed()
    broker.pass_time(1.1)
    (told,) = client.frames()
    assert isinstance(told, Brokers)
    assert sorted(told.brokers) == ["quic://n1:1", "quic://n2:1"]


def test_nodes_that_can_be_dialed_and_have_not_left_are_named_doubtful_ones_last() -> None:
    others = (
        peer(1, state="suspect"),
        peer(2, state="failed"),
        peer(3, state="left"),
        peer(4, mode="client"),
        peer(5, addresses=()),
        peer(6, mode="server"),
    )
    named = further_brokers((ME, *others))
    assert (named.alive, sorted(named.doubtful)) == (("quic://n6:1",), ["quic://n1:1", "quic://n2:1"])


def test_near_linked_nodes_are_named_first_and_further_addresses_last() -> None:
    others = (
        peer(1),
        peer(2, linked=True, rtt_ms=30.0, addresses=("n2:1", "10.0.0.2:1")),
        peer(3, linked=True, rtt_ms=5.0),
        peer(4, linked=True),
    )
    names = ("n3:1", "n2:1", "n4:1", "n1:1", "10.0.0.2:1")
    assert further_brokers((ME, *others)).urls == tuple(f"quic://{name}" for name in names)


def test_a_round_trip_that_changes_does_not_change_which_nodes_are_named() -> None:
    others = [peer(number, linked=True, rtt_ms=float(number)) for number in range(1, 40)]
    before = further_brokers((ME, *others))
    after = further_brokers(
        (ME, *(msgspec.structs.replace(each, rtt_ms=100.0 - (each.rtt_ms or 0.0)) for each in others))
    )
    assert len(before.urls) == MAX_BROKERS
    assert before.names_the_same(after)
    assert before != after


def test_clients_of_different_nodes_are_sent_to_different_ones() -> None:
    others = [peer(number << 120) for number in range(1, 200)]
    elsewhere = msgspec.structs.replace(ME, node="f0" * 16)
    assert set(further_brokers((ME, *others)).urls) != set(further_brokers((elsewhere, *others)).urls)
