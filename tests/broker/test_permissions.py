"""Permissions at the edge: what clients are refused, what other nodes' batches are, and what another table ends."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, cast

import pytest

from quicbus.identity.names import Role
from quicbus.identity.peer import Peer
from quicbus.wire.batch import FLAG_REQUEST, encode_body
from quicbus.wire.frames import (
    PROTOCOL_VERSION,
    Flush,
    Flushed,
    Frame,
    Hello,
    NoResponder,
    Permissions,
    Refused,
    Subscribed,
    SubscriptionClosed,
)
from quicbus_broker.edge.server import PERMITTED_AT_A_TIME
from quicbus_broker.permissions.read_table import parse_table
from tests.broker.fakes import NODE, FakeClient
from tests.broker.test_exchange import LIMA, TOKYO, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.identity import Verifier

DENY = """
[permissions]
default = "deny"
[[permissions.role]]
name = "sensor"
match = ["sensor-*"]
publish = ["sensors/${name}/#"]
subscribe = ["commands/${name}"]
[[permissions.role]]
name = "worker"
match = ["worker-*"]
publish = ["results/#"]
subscribe = ["jobs/#", "square"]
deny_subscribe = ["jobs/secret/#"]
"""


class NamedVerifier:
    """Takes the first certificate of the chain for the name."""

    def verify(self, chain: Sequence[bytes], signature: bytes, binding: bytes, kind: str, now: dt.datetime) -> Peer:
        return Peer(Role.CLIENT, chain[0].decode(), "0f" * 16, b"c" * 16, now + dt.timedelta(days=1))


class RestrictedNode(Node):
    """A node of a mesh whose clients have names."""

    def __init__(self, table: str = DENY) -> None:
        super().__init__()
        self.told: dict[FakeClient, list[Permissions]] = {}
        self.permit(table)

    def permit(self, table: str) -> None:
        self.edge.permit(parse_table(table, "quicbus.toml"))
        while self.edge.permit_more():
            pass
        self.turn()

    def named(self, name: str) -> FakeClient:
        """Return an admitted client with this name in its certificate."""
        client = self.connect(admission=self.edge.admission(cast("Verifier", NamedVerifier())))
        client.write(
            Hello(version=PROTOCOL_VERSION, kind="client", agent="test", chain=[name.encode()], signature=b"s")
        )
        self.told[client] = [frame for frame in client.frames() if isinstance(frame, Permissions)]
        return client

    def relay(self, publisher: str, topic: str, *messages: bytes, group: str = "", filter: str = "") -> bool:
        body = encode_body(topic.encode(), messages, number=1)
        return self.exchange.take_remote(TOKYO, 3, 17, 0, publisher, body, 0, group, filter)


def refused(client: FakeClient) -> list[tuple[str, str]]:
    return [(frame.reason, frame.detail) for frame in client.frames() if isinstance(frame, Refused)]


def kinds(frames: Sequence[Frame]) -> list[tuple[type[Frame], str]]:
    return [(type(frame), getattr(frame, "reason", "")) for frame in frames]


# --- clients ----------------------------------------------------------------------------------------------------------


def test_a_batch_on_a_topic_that_is_not_permitted_is_refused_and_the_session_goes_on() -> None:
    node = RestrictedNode()
    sensor, listener = node.named("sensor-1"), node.client()
    listener.subscribe("#")

    sensor.publish("sensors/sensor-1/t", b"mine")
    sensor.publish("sensors/sensor-2/t", b"not mine", b"nor this")
    sensor.publish("other", b"x")
    sensor.write(Flush(id=7, batches=3))

    frames = sensor.frames()
    assert [(frame.number, frame.messages, frame.reason) for frame in frames if isinstance(frame, Refused)] == [
        (2, 2, "not_permitted"),
        (3, 1, "not_permitted"),
    ]
    assert Flushed(id=7, accepted=1, refused=3) in frames
    assert listener.messages() == [b"mine"]
    assert sensor.connection.close_code is None
    assert node.edge.statistics().not_permitted == 2
    assert node.is_balanced()


@pytest.mark.parametrize(
    ("filter", "group", "allowed"),
    [
        ("jobs/a", None, True),
        ("jobs/+", None, False),
        ("jobs/#", None, False),
        ("jobs/a", "workers", True),
        ("jobs/secret/x", "workers", False),
        ("commands/worker-1", None, False),
        ("#", None, False),
        ("$share/workers/jobs/a", None, False),
    ],
)
def test_a_subscribe_is_decided_by_its_filter_in_a_group_or_not(filter: str, group: str | None, allowed: bool) -> None:
    node = RestrictedNode()
    worker = node.named("worker-1")

    worker.subscribe(filter, group=group)

    expected = (Subscribed, "") if allowed else (SubscriptionClosed, "not_permitted")
    assert kinds(worker.frames()) == [expected]
    assert worker.connection.close_code is None


def test_requests_and_replies_work_although_the_default_is_to_deny() -> None:
    node = RestrictedNode(DENY + '[[permissions.role]]\nname = "asker"\nmatch = ["asker"]\npublish = ["square"]\n')
    asker, worker = node.named("asker"), node.named("worker-1")
    session = node.clients.index(asker) + 1
    prefix = f"$quicbus/reply/{NODE.hex()}/{session.to_bytes(16, 'big').hex()}"
    asker.publish("square", b"early", flags=FLAG_REQUEST, reply_to=f"{prefix}/0")
    assert any(isinstance(frame, NoResponder) for frame in asker.frames())
    asker.subscribe(f"{prefix}/+")
    worker.subscribe("square")

    asker.publish("square", b"3", flags=FLAG_REQUEST, reply_to=f"{prefix}/1")
    (request,) = worker.messages()
    worker.publish(f"{prefix}/1", b"9")

    assert request == b"3"
    assert asker.messages() == [b"9"]


def test_a_reply_topic_on_which_the_client_may_not_publish_is_refused() -> None:
    node = RestrictedNode()
    sensor = node.named("sensor-1")
    sensor.publish("sensors/sensor-1/ask", b"x", flags=FLAG_REQUEST, reply_to="results/forged")
    sensor.publish("sensors/sensor-1/ask", b"x", flags=FLAG_REQUEST, reply_to="sensors/sensor-1/answers")
    assert refused(sensor) == [("reply_not_permitted", "results/forged")]


@pytest.mark.parametrize("table", ["", DENY])
def test_topics_of_quicbus_itself_are_for_clients_inside_nodes(table: str) -> None:
    node = RestrictedNode(table)
    inside, worker = node.client(), node.named("worker-1")

    worker.publish("$quicbus/authority", b"x")
    assert refused(worker) == [("not_permitted", "$quicbus/authority")]
    for id, filter in enumerate(("$quicbus/authority", "$quicbus/#", "$quicbus/+"), 1):
        worker.subscribe(filter, id)
        assert kinds(worker.frames()) == [(SubscriptionClosed, "not_permitted")]
    inside.subscribe("$quicbus/authority", group="authority")
    inside.publish("$quicbus/authority", b"x")
    assert inside.messages() == [b"x"]


def test_a_client_inside_the_process_is_never_restricted() -> None:
    node = RestrictedNode('[permissions]\ndefault = "deny"\n')
    inside = node.client()
    inside.subscribe("#")
    inside.publish("anything", b"x")
    assert inside.messages() == [b"x"]


def test_a_client_is_told_its_filters_with_its_name_in_them() -> None:
    node = RestrictedNode()
    told = Permissions(
        publish=("sensors/sensor-1/#",), deny_publish=(), subscribe=("commands/sensor-1",), deny_subscribe=()
    )
    assert node.told[node.named("sensor-1")] == [told]
    assert node.told[node.named("stranger")] == [Permissions(publish=(), subscribe=())]


def test_a_client_that_may_do_everything_is_told_nothing() -> None:
    node = RestrictedNode("")
    assert node.told[node.named("alice")] == []


def test_a_client_is_not_told_more_than_a_frame_holds() -> None:
    filters = ", ".join(f'"{index:05d}/{"x" * 40}"' for index in range(5000))
    node = RestrictedNode(f'[[permissions.role]]\nname = "r"\nmatch = ["*"]\npublish = [{filters}]\n')
    alice = node.named("alice")
    assert node.told[alice] == [Permissions()]
    alice.publish("other", b"x")
    assert refused(alice) == [("not_permitted", "other")]


# --- another table ----------------------------------------------------------------------------------------------------


def test_subscriptions_that_another_table_does_not_permit_end_with_their_books() -> None:
    node = RestrictedNode()
    worker, inside = node.named("worker-1"), node.client()
    worker.subscribe("jobs/a", 1, max_pending=10, window_messages=1)
    worker.subscribe("square", 2)
    inside.publish("jobs/a", b"1", b"2", b"3")
    worker.frames()
    assert worker.messages() == [b"1"]

    node.permit('[permissions]\ndefault = "deny"\n[[permissions.role]]\nname="w"\nmatch=["*"]\nsubscribe=["square"]\n')

    frames = worker.frames()
    assert [frame for frame in frames if isinstance(frame, Permissions)] == [
        Permissions(publish=(), subscribe=("square",))
    ]
    (closed,) = [frame for frame in frames if isinstance(frame, SubscriptionClosed)]
    assert (closed.id, closed.reason, closed.handed_over, closed.dropped) == (
        1,
        "not_permitted",
        1,
        {"not_permitted": 2},
    )
    inside.publish("square", b"4")
    inside.publish("jobs/a", b"5")
    assert worker.messages(2) == [b"4"]
    assert node.router.books().dropped == {"not_permitted": 2}
    assert node.is_balanced()
    assert node.remote.interest == [("square", "", False)]


def test_what_waited_for_a_member_that_lost_its_permission_goes_to_the_others() -> None:
    node = RestrictedNode()
    first, inside = node.named("worker-1"), node.client()
    first.subscribe("jobs/a", group="g", max_pending=10, window_messages=1)
    inside.publish("jobs/a", b"1", b"2")
    assert first.messages() == [b"1"]
    inside.subscribe("jobs/a", group="g")

    node.permit('[permissions]\ndefault = "deny"\n')

    assert inside.messages() == [b"2"]
    assert node.is_balanced()


def test_publishing_is_decided_by_the_new_table_at_once() -> None:
    node = RestrictedNode()
    sensor = node.named("sensor-1")
    sensor.publish("sensors/sensor-1/t", b"x")
    assert refused(sensor) == []

    node.permit('[permissions]\ndefault = "deny"\n')
    sensor.publish("sensors/sensor-1/t", b"x")
    assert refused(sensor) == [("not_permitted", "sensors/sensor-1/t")]

    node.permit("")
    frames = sensor.frames()
    assert Permissions() in frames
    sensor.publish("anything", b"x")
    assert refused(sensor) == []


def test_of_many_sessions_some_are_gone_through_at_a_time_and_none_publishes_by_the_old_table() -> None:
    node = RestrictedNode()
    workers = [node.named(f"worker-{index}") for index in range(PERMITTED_AT_A_TIME + 3)]
    for worker in workers:
        worker.subscribe("jobs/a")
        worker.frames()

    node.edge.permit(parse_table('[permissions]\ndefault = "deny"\n', "f"))
    assert len(node.router) == 3
    workers[-1].publish("results/a", b"x")
    assert refused(workers[-1]) == [("not_permitted", "results/a")]
    workers[-2].vanish()
    assert not node.edge.permit_more()

    assert len(node.router) == 0
    assert node.is_balanced()


def test_sessions_that_are_not_admitted_or_gone_do_not_mind_another_table() -> None:
    node = RestrictedNode()
    node.connect()
    gone = node.named("worker-1")
    gone.subscribe("jobs/a")
    gone.vanish()
    node.permit('[permissions]\ndefault = "deny"\n')
    assert len(node.router) == 0
    assert node.is_balanced()


# --- other nodes ------------------------------------------------------------------------------------------------------


def test_batches_of_other_nodes_are_judged_by_this_nodes_table() -> None:
    node = RestrictedNode()
    first, second = node.client(), node.client()
    first.subscribe("#")
    second.subscribe("sensors/#")

    assert node.relay("sensor-1", "sensors/sensor-1/t", b"mine")
    assert node.relay("sensor-1", "sensors/sensor-2/t", b"not mine", b"nor this")
    assert node.relay("stranger", "other", b"x")

    assert (first.messages(), second.messages()) == ([b"mine"], [b"mine"])
    books = node.router.books()
    assert books.dropped == {"not_permitted": 5}
    assert (books.arrived, books.deliveries, books.balance) == (4, 7, 0)


def test_what_nobody_here_wants_is_not_counted_as_dropped() -> None:
    node = RestrictedNode()
    assert node.relay("stranger", "other", b"x")
    assert node.router.books().dropped == {}
    assert node.is_balanced()


def test_the_share_of_a_group_is_dropped_likewise_and_given_back_where_it_has_no_member() -> None:
    node = RestrictedNode()
    member = node.client()
    assert not node.relay("stranger", "jobs/a", b"x", group="g", filter="jobs/+")
    member.subscribe("jobs/+", group="g")

    assert node.relay("stranger", "jobs/a", b"x", b"y", group="g", filter="jobs/+")
    assert node.relay("worker-1", "results/a", b"z", group="g", filter="results/+") is False

    assert member.messages() == []
    assert node.router.books().dropped == {"not_permitted": 2}
    assert node.is_balanced()


def test_replies_and_topics_of_quicbus_itself_pass_between_nodes() -> None:
    node = RestrictedNode()
    inside = node.client()
    prefix = f"$quicbus/reply/{NODE.hex()}/{(1).to_bytes(16, 'big').hex()}"
    inside.subscribe(f"{prefix}/+", 1)
    inside.subscribe("$quicbus/authority", 2)

    assert node.relay("stranger", f"{prefix}/1", b"reply")
    assert node.relay("tokyo", "$quicbus/authority", b"request")

    deliveries = inside.deliveries()
    assert sorted(len(delivery.body) > 0 for delivery in deliveries) == [True, True]


def test_a_table_read_later_is_the_one_for_batches_of_other_nodes() -> None:
    node = RestrictedNode()
    listener = node.client()
    listener.subscribe("t")
    assert node.relay("ann", "t", b"1")
    node.permit("")
    assert node.arrive("t", b"2", origin=LIMA)
    assert listener.messages() == [b"2"]
