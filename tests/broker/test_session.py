"""An edge session, spoken to in bytes: what works, step by step."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.identity import Authority, Verifier, sign_proof
from quicbus.testing.pipe import CHANNEL_BINDING
from quicbus.transport.engine import Terminated
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Accepted, Hello, Limits, Proof, Subscribed, Taken, Welcome
from quicbus.wire.node_frames import NODE_FRAME_TYPES, Prune
from quicbus_broker.edge import EdgeLimits
from tests.broker.fakes import NODE, FakeBroker
from tests.broker.mesh.linked import node_credential

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus.wire.frames import Frame
    from quicbus_broker.edge.nodes import NodeArrival


def test_welcome_is_the_first_frame_and_says_who_and_what() -> None:
    client = FakeBroker().connect()

    (welcome,) = client.frames()

    assert isinstance(welcome, Welcome)
    assert (welcome.version, welcome.node, welcome.boot, welcome.proof) == (1, NODE, 7, False)
    assert welcome.limits.max_message_size == 1024 * 1024


def test_welcome_states_every_limit_that_the_edge_enforces_on_clients() -> None:
    edge_limits = EdgeLimits(
        max_message_size=1,
        max_subscriptions=2,
        max_filters_size=3,
        max_pending=4,
        max_pending_size=5,
        max_publish_rate=6,
    )

    (welcome,) = FakeBroker(edge_limits).connect().frames()

    assert isinstance(welcome, Welcome)
    assert welcome.limits == Limits(
        max_message_size=1,
        max_headers_size=limits.MAX_HEADERS_SIZE,
        max_subscriptions=2,
        max_filter_size=limits.MAX_TOPIC_SIZE,
        max_filters_size=3,
        max_pending=4,
        max_pending_size=5,
        max_publish_rate=6,
    )


def test_hello_is_answered_with_accepted() -> None:
    client = FakeBroker().connect()
    client.frames()

    client.write(Hello(version=1, kind="client", agent="test"))

    (accepted,) = client.frames()
    assert isinstance(accepted, Accepted)
    assert accepted.name == "local"
    assert accepted.publish_credit == 4 * 1024 * 1024
    assert client.connection.undelivered_allowed == accepted.publish_credit + 1024 * 1024


def test_what_is_published_reaches_a_subscriber_as_it_was() -> None:
    broker = FakeBroker()
    publisher, subscriber = broker.client(), broker.client()
    subscriber.subscribe("sensors/+/temperature")
    assert subscriber.frames() == [Subscribed(id=1)]

    publisher.publish("sensors/kitchen/temperature", b"21.5", b"21.6")

    (delivery,) = subscriber.deliveries()
    assert delivery.subscriptions == ((1, 0),)
    assert (delivery.envelope.origin, delivery.envelope.boot, delivery.envelope.sequence) == (NODE, 7, 1)
    assert delivery.envelope.publisher == "local"
    assert publisher.frames() == [Taken(accepted=2, refused=0, credit=4 * 1024 * 1024 + publisher.lane_bytes)]
    assert broker.router.books().balance == 0


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_a_client_is_not_told_where_it_comes_from() -> None:
    client = FakeBroker().connect()
    client.frames()

    client.write(Hello(version=1, kind="client", agent="test"))

    (accepted,) = client.frames()
    assert isinstance(accepted, Accepted)
    assert accepted.observed == ""


def test_a_node_is_told_where_it_comes_from_and_handed_over_with_what_came_after_its_hello() -> None:
    node = Arriving()
    node.hello(boot=3, then=Prune())

    (accepted,) = node.client.frames()
    assert isinstance(accepted, Accepted)
    assert (accepted.name, accepted.observed, accepted.publish_credit) == (
        "oslo",
        "192.0.2.1:5000",
        limits.LINK_WINDOW,
    )
    (arrival,) = node.arrivals
    assert (arrival.node, arrival.boot, arrival.name) == (OSLO.node_id, 3, "oslo")
    assert node.taken.frames == [Prune()]
    assert node.admission.open_nodes == 1
    assert node.client.broker.edge.statistics().connections == 0


def test_a_node_without_a_boot_is_a_violation() -> None:
    node = Arriving()

    node.hello(boot=0)

    assert node.client.connection.close_code == CloseCode.PROTOCOL_VIOLATION
    assert node.client.connection.close_reason == "Hello of a node without its boot"
    assert node.arrivals == []


def test_a_proof_for_the_kind_client_opens_no_session_of_kind_node() -> None:
    node = Arriving()

    node.hello(boot=3, signed_for="client")

    assert node.client.connection.close_code == CloseCode.PROOF_INVALID


def test_a_proof_that_nobody_asked_for_closes_the_session_of_a_node() -> None:
    node = Arriving()
    node.hello(boot=3)

    node.arrivals[0].on_proof(Proof(chain=[], signature=b""))

    assert node.client.connection.close_code == CloseCode.PROTOCOL_VIOLATION


def test_a_node_that_is_gone_is_gone_for_the_mesh_too() -> None:
    node = Arriving()
    node.hello(boot=3)

    node.client.vanish()

    assert len(node.taken.terminations) == 1
    assert node.admission.open_nodes == 0


OSLO = node_credential("oslo")


class NodeSessionFake:
    """What the mesh makes of a node's connection."""

    def __init__(self, arrival: NodeArrival) -> None:
        self.frames: list[Frame] = []
        self.terminations: list[Terminated] = []
        self._arrival = arrival
        arrival.frames.types = NODE_FRAME_TYPES

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        self.frames += self._arrival.frames.feed(data)

    def stream_reset(self, stream_id: int, code: int) -> None:
        raise AssertionError

    def before_transmit(self) -> None:
        self._arrival.control.flush()

    def closed(self, termination: Terminated) -> None:
        self.terminations.append(termination)


class Arriving:
    """A node that dials a broker whose mesh takes everyone."""

    def __init__(self) -> None:
        self.arrivals: list[NodeArrival] = []
        broker = FakeBroker()
        self.admission = broker.edge.admission(Verifier(OSLO.authority_pem, OSLO.mesh))
        self.admission.nodes = self
        self.client = broker.connect(admission=self.admission)
        self.client.frames()

    def refusal(self, node: bytes, boot: int) -> None:
        return None

    def take(self, arrival: NodeArrival) -> NodeSessionFake:
        self.arrivals.append(arrival)
        self.taken = NodeSessionFake(arrival)
        return self.taken

    def hello(self, boot: int, *, signed_for: str = "node", then: Frame | None = None) -> None:
        signature = sign_proof(OSLO, CHANNEL_BINDING, signed_for)
        hello = Hello(version=1, kind="node", agent="test", chain=OSLO.chain_der, signature=signature, boot=boot)
        self.client.write(hello, *([then] if then else []))


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("is_proven", [True, False], ids=["proven", "without a proof"])
@pytest.mark.parametrize("is_refused", [True, False], ids=["closed here", "closed there"])
def test_a_session_that_has_ended_waits_for_no_collection(*, is_proven: bool, is_refused: bool) -> None:
    broker = FakeBroker()
    authority = Authority.create()
    client = broker.connect(Verifier(authority.certificate_pem, authority.mesh))
    alice = authority.issue_client("alice")
    if is_proven:
        signature = sign_proof(alice, CHANNEL_BINDING, "client")
        client.write(Hello(version=1, kind="client", agent="test", chain=alice.chain_der, signature=signature))
        client.subscribe("t")
        client.publish("t", b"x")
        assert client.messages() == [b"x"]
    held_by_the_session = weakref.ref(client.connection)

    if is_refused:
        client.session.refuse(CloseCode.LIMIT_EXCEEDED, "too much")
    client.session.closed(Terminated(0, "", is_application=True, is_local=is_refused))
    broker.turn()
    broker.clients.clear()
    del client

    assert held_by_the_session() is None
