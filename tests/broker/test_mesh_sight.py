"""What a broker tells of its mesh, watched on a machine that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.wire.frames import PeerEntry
from quicbus_broker.edge.mesh_view import further_brokers
from quicbus_broker.events import (
    BrokerEvent,
    LinkDown,
    LinkUp,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberMoved,
    MemberRecovered,
    MemberSuspected,
)
from quicbus_broker.mesh.outputs import MemberChanged, NodeId, State
from quicbus_broker.mesh.views import MemberView
from quicbus_broker.mesh_sight import MeshSight, event_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.feeds import Feed

ME, A, B = (bytes([number]) * 16 for number in range(3))
ALIVE, SUSPECT, FAILED, LEFT = State


class Machine:
    def __init__(self) -> None:
        self.me = ME
        self.interest_version = 0
        self.spread_version = 0
        self.is_settled = True
        self.neighbors: Sequence[NodeId] = ()
        self.views: list[MemberView] = [MemberView(ME, "me", ("me:1",), ALIVE, "hybrid", 4, None, False, True)]

    def members(self) -> list[MemberView]:
        return self.views


class Watched:
    def __init__(self) -> None:
        self.machine = Machine()
        self.changes = 0
        self.turns_wanted = 0
        self.spread: list[tuple[str, int]] = []
        self.sight = MeshSight(self.machine, members_changed=self._on_change, want_turn=self._on_want)

    def wait(self, name: str) -> object:
        return self.sight.when_spread(lambda links: self.spread.append((name, links)))

    def _on_change(self) -> None:
        self.changes += 1

    def _on_want(self) -> None:
        self.turns_wanted += 1


def taken(feed: Feed[BrokerEvent]) -> list[BrokerEvent]:
    events = []
    while (event := feed.take()) is not None:
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, ALIVE, MemberJoined),
        (None, SUSPECT, MemberSuspected),
        (None, FAILED, None),
        (None, LEFT, None),
        (ALIVE, SUSPECT, MemberSuspected),
        (ALIVE, FAILED, MemberFailed),
        (ALIVE, LEFT, MemberLeft),
        (SUSPECT, ALIVE, MemberRecovered),
        (SUSPECT, FAILED, MemberFailed),
        (SUSPECT, LEFT, MemberLeft),
        (FAILED, ALIVE, MemberRecovered),
        (FAILED, LEFT, MemberLeft),
        (LEFT, ALIVE, MemberJoined),
        (LEFT, FAILED, None),
        (ALIVE, ALIVE, None),
    ],
)
def test_every_change_of_state_has_its_event(
    before: State | None, after: State, kind: type[BrokerEvent] | None
) -> None:
    event = event_of(MemberChanged(A, "a", before, after))
    assert event == (kind(A.hex(), "a") if kind else None)


def test_a_member_that_moves_is_told_unless_more_happened() -> None:
    assert event_of(MemberChanged(A, "a", ALIVE, ALIVE, has_moved=True)) == MemberMoved(A.hex(), "a")
    assert event_of(MemberChanged(A, "a", FAILED, ALIVE, has_moved=True)) == MemberRecovered(A.hex(), "a")


def test_changes_of_this_node_itself_are_no_events() -> None:
    watched = Watched()
    feed = watched.sight.events()
    watched.sight.changed(MemberChanged(ME, "me", SUSPECT, ALIVE))
    assert (taken(feed), watched.changes) == ([], 0)


def test_every_feed_gets_the_events_from_when_it_was_opened() -> None:
    watched = Watched()
    early = watched.sight.events()
    watched.sight.changed(MemberChanged(A, "a", None, ALIVE))
    late = watched.sight.events()
    watched.sight.changed(MemberChanged(A, "a", ALIVE, LEFT))
    assert taken(early) == [MemberJoined(A.hex(), "a"), MemberLeft(A.hex(), "a")]
    assert taken(late) == [MemberLeft(A.hex(), "a")]


async def test_feeds_end_when_the_broker_closes() -> None:
    watched = Watched()
    feed = watched.sight.events()
    watched.sight.changed(MemberChanged(A, "a", None, ALIVE))
    watched.sight.close()
    assert [event async for event in feed] == [MemberJoined(A.hex(), "a")]
    assert [event async for event in watched.sight.events()] == []


def test_links_are_told_by_the_name_of_the_member() -> None:
    watched = Watched()
    feed = watched.sight.events()
    watched.sight.changed(MemberChanged(A, "a", None, ALIVE))
    watched.machine.neighbors = (A,)
    watched.sight.look()
    watched.sight.look()
    watched.machine.neighbors = ()
    watched.sight.look()
    assert taken(feed)[1:] == [LinkUp(A.hex(), "a"), LinkDown(A.hex(), "a")]
    assert watched.changes == 3


def test_a_link_to_a_member_that_is_not_known_yet_is_told_once_it_is() -> None:
    watched = Watched()
    feed = watched.sight.events()
    watched.machine.neighbors = (A, B)
    watched.sight.look()
    assert taken(feed) == []
    watched.sight.changed(MemberChanged(A, "a", None, ALIVE))
    assert taken(feed) == [MemberJoined(A.hex(), "a"), LinkUp(A.hex(), "a")]
    watched.machine.neighbors = (A,)
    watched.sight.look()
    assert taken(feed) == []


def test_a_link_that_replaces_another_is_noticed() -> None:
    watched = Watched()
    for node, name in ((A, "a"), (B, "b")):
        watched.sight.changed(MemberChanged(node, name, None, ALIVE))
    watched.machine.neighbors = (A,)
    watched.sight.look()
    feed = watched.sight.events()
    watched.machine.neighbors = (B,)
    watched.sight.look()
    assert taken(feed) == [LinkDown(A.hex(), "a"), LinkUp(B.hex(), "b")]


def test_spread_waits_for_the_version_that_the_end_of_the_turn_makes() -> None:
    watched = Watched()
    watched.machine.neighbors = (A, B)
    watched.wait("first")
    assert watched.turns_wanted == 1
    watched.machine.interest_version = 1
    watched.sight.look()
    assert watched.spread == []
    watched.wait("second")
    watched.machine.interest_version = 2
    watched.sight.look()
    watched.machine.spread_version = 1
    watched.sight.look()
    assert watched.spread == [("first", 2)]
    watched.machine.spread_version = 2
    watched.sight.look()
    assert watched.spread == [("first", 2), ("second", 2)]


def test_spread_that_was_reached_before_is_told_at_the_end_of_the_turn() -> None:
    watched = Watched()
    watched.machine.neighbors = (A,)
    watched.machine.interest_version = watched.machine.spread_version = 5
    watched.wait("covered")
    watched.sight.look()
    assert watched.spread == [("covered", 1)]


def test_spread_without_links_waits_for_nobody() -> None:
    watched = Watched()
    watched.machine.neighbors = (A,)
    watched.wait("alone")
    watched.machine.interest_version = 1
    watched.sight.look()
    assert watched.spread == []
    watched.machine.neighbors = ()
    watched.sight.look()
    assert watched.spread == [("alone", 0)]


def test_nobody_is_told_of_spread_who_stopped_waiting() -> None:
    watched = Watched()
    watched.machine.neighbors = (A,)
    stops = [watched.sight.when_spread(lambda links: pytest.fail("told")) for _ in range(2)]
    stops[0]()
    watched.machine.interest_version = 1
    watched.sight.look()
    stops[1]()
    watched.machine.spread_version = 1
    watched.sight.look()


def test_peers_are_the_members_as_clients_are_told() -> None:
    watched = Watched()
    watched.machine.views += [
        MemberView(A, "a", ("a:1", "10.0.0.1:1"), SUSPECT, "server", 2, 0.00123456, True, False),
        MemberView(B, "b", ("b:1",), FAILED, "client", 3, None, False, False),
    ]
    me, a, b = watched.sight.peers()
    assert (me.node, me.url, me.is_self, me.boot) == (ME.hex(), "quic://me:1", True, 4)
    assert a == PeerEntry(
        node=A.hex(),
        name="a",
        url="quic://a:1",
        state="suspect",
        rtt_ms=1.235,
        linked=True,
        mode="server",
        boot=2,
        addresses=("a:1", "10.0.0.1:1"),
    )
    assert (b.url, b.state, b.addresses) == ("", "failed", ("b:1",))


def test_brokers_are_the_members_that_clients_can_go_to() -> None:
    watched = Watched()
    watched.machine.views += [
        MemberView(A, "a", ("a:1", "[::1]:1"), ALIVE, "server", 2, None, True, False),
        MemberView(B, "b", ("b:1",), ALIVE, "client", 3, None, False, False),
    ]
    assert further_brokers(watched.sight.peers()).urls == ("quic://a:1", "quic://[::1]:1")
