"""The dialer's session, step by step over the pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from quicbus import limits
from quicbus.client.delivery import Inbox, Leg
from quicbus.client.flushing import Flushes
from quicbus.client.outgoing import prepare
from quicbus.client.publishing import Publisher
from quicbus.client.session import Session
from quicbus.testing.pipe import Pipe
from quicbus.wire import frames
from quicbus.wire.close_codes import CloseCode
from tests.client.scripted_broker import NODE, ScriptedBroker

if TYPE_CHECKING:
    from quicbus.client.message import Replier
    from quicbus.transport.engine import Terminated


class Owner:
    """Takes note of every call, of session and subscription."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.termination: Terminated | None = None

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append(name)

    def closed(self, session: Session, termination: Terminated) -> None:
        self.calls.append("closed")
        self.termination = termination


def joined(*, chunk_size: int | None = None, **broker: Any) -> tuple[Pipe, Session, ScriptedBroker, Owner]:
    pipe = Pipe(chunk_size=chunk_size)
    owner = Owner()
    session = Session(pipe.dialer, cast("Any", owner), bus=cast("Replier", None), clock=lambda: 0.0, name="label")
    scripted = ScriptedBroker(pipe.listener, **broker)
    pipe.start(session, scripted)
    pipe.pump()
    return pipe, session, scripted, owner


def subscribe(session: Session, owner: Owner, window: int = 8) -> tuple[Inbox, Leg]:
    inbox = Inbox(window, 1000)
    leg = session.subscribe(inbox, cast("Any", owner), filter="a", max_pending=16, max_pending_size=2000)
    return inbox, leg


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_everything_works_however_the_bytes_are_split(chunk_size: int | None) -> None:
    pipe, session, broker, owner = joined(chunk_size=chunk_size)
    publisher, flushes, done = Publisher(), Flushes(), []
    session.carry(publisher, flushes)
    inbox, leg = subscribe(session, owner)
    assert publisher.offer(prepare(publisher.topics, "a", b"x" * 100), 0.0)
    flushes.add(publisher, lambda: done.append(True))
    pipe.pump()
    broker.deliver(leg.id, "a", [b"1", b"2"])
    pipe.pump()
    assert inbox.pending == 2
    assert broker.payloads() == [b"x" * 100]
    assert done == [True]
    assert owner.calls[:2] == ["welcomed", "accepted"]
    assert {"confirmed", "arrived", "credit_changed"} <= set(owner.calls)


def proving(*chains: bytes, **broker: Any) -> tuple[Pipe, ScriptedBroker, Owner]:
    """Join a session that proves with each chain in turn."""
    pipe = Pipe()
    owner = Owner()
    left = iter(chains)
    session = Session(
        pipe.dialer,
        cast("Any", owner),
        bus=cast("Replier", None),
        clock=lambda: 0.0,
        prove=lambda binding: ([next(left)], b"signed " + binding),
    )
    scripted = ScriptedBroker(pipe.listener, auto=False, **broker)
    pipe.start(session, scripted)
    pipe.pump()
    return pipe, scripted, owner


def test_hello_carries_the_proof_of_this_connection() -> None:
    _, broker, _ = proving(b"chain", proof=True)
    (hello,) = broker.of(frames.Hello)
    assert (hello.kind, hello.version, hello.chain) == ("client", 1, [b"chain"])
    assert hello.signature == b"signed " + bytes(range(32))


def test_a_proof_that_is_wanted_again_is_made_anew_for_the_same_connection() -> None:
    pipe, broker, _ = proving(b"chain", b"renewed", proof=True)
    broker.send(frames.ProofWanted(deadline_s=60.0))
    pipe.pump()
    assert broker.of(frames.Proof) == [frames.Proof(chain=[b"renewed"], signature=b"signed " + bytes(range(32)))]


def test_a_broker_over_a_network_that_wants_no_proof_is_left() -> None:
    _, _, owner = proving(b"chain", proof=False)
    assert owner.calls == ["closed"]
    assert owner.termination is not None
    assert owner.termination.code == CloseCode.PROTOCOL_VIOLATION


def test_a_broker_that_says_it_is_another_node_than_its_certificate_is_left() -> None:
    pipe = Pipe()
    owner = Owner()
    session = Session(pipe.dialer, cast("Any", owner), bus=cast("Replier", None), clock=lambda: 0.0)
    pipe.dialer.listener_node = b"m" * 16
    broker = ScriptedBroker(pipe.listener)
    pipe.start(session, broker)
    pipe.pump()
    assert owner.calls == ["closed"]
    assert owner.termination is not None
    assert owner.termination.code == CloseCode.PROTOCOL_VIOLATION
    assert owner.termination.reason == f"Welcome says node {NODE.hex()}, the certificate node {(b'm' * 16).hex()}"


def test_lanes_are_chosen_by_topic_and_opened_when_first_used() -> None:
    pipe, session, broker, _ = joined()
    publisher = Publisher()
    session.carry(publisher, Flushes())
    for _ in range(2):
        for number in range(40):
            assert publisher.offer(prepare(publisher.topics, f"t/{number}", b"x"), 0.0)
        pipe.dialer.transmit_soon()
        pipe.pump()
    assert len(broker.bodies) == 80
    assert len(broker._readers) == 1 + limits.LANES


def test_another_version_is_refused_by_name() -> None:
    pipe = Pipe()
    owner = Owner()
    session = Session(pipe.dialer, cast("Any", owner), bus=cast("Replier", None), clock=lambda: 0.0)
    broker = ScriptedBroker(pipe.listener, auto=False)
    broker.negotiated = lambda: None  # type: ignore[method-assign]
    pipe.start(session, broker)
    broker.send(
        frames.Welcome(
            version=2,
            node=NODE,
            boot=1,
            agent="",
            limits=frames.Limits(max_message_size=1, max_headers_size=1, max_subscriptions=1, max_filter_size=1),
        )
    )
    pipe.pump()
    assert broker.termination is not None
    assert broker.termination.code == CloseCode.UNSUPPORTED_VERSION
    assert owner.calls == ["closed"]


@pytest.mark.parametrize(
    "data",
    [
        frames.encode_frame(frames.Hello(version=1, kind="client", agent="")),
        frames.encode_frame(frames.Accepted(session=b"s" * 16, name="", publish_credit=1)),
        b"\x01\x01\xc0",
        b"\x03\x81\x00\x00\x00" + bytes(100),
        b"\x03" + (0x8000_0000 | limits.MAX_CONTROL_FRAME_SIZE + 1).to_bytes(4, "big"),
    ],
    ids=["a dialer's frame", "a second Accepted", "a malformed Welcome", "wrong fields", "an oversize frame"],
)
def test_what_a_broker_must_not_send_closes_the_connection(data: bytes) -> None:
    pipe, session, broker, owner = joined()
    broker.send_raw(data)
    pipe.pump()
    assert session.violation is not None
    assert broker.termination is not None
    assert broker.termination.code == CloseCode.PROTOCOL_VIOLATION
    assert owner.calls[-1] == "closed"


def test_unknown_frames_stream_types_and_record_kinds_are_skipped() -> None:
    pipe, session, broker, owner = joined()
    inbox, leg = subscribe(session, owner)
    broker.send_raw(b"\x3f\x05hello")
    stream = pipe.listener.open_stream()
    pipe.listener.send(stream, b"\x09 of another kind")
    broker.deliver(leg.id, "a", [b"1"])
    pipe.listener.send(broker._lane, b"\x06\x00\x00\x00\x7fspare")
    broker.deliver(leg.id, "a", [b"2"])
    pipe.pump()
    assert inbox.pending == 2
    assert session.violation is None


def test_a_lying_batch_closes_the_connection() -> None:
    pipe, session, broker, owner = joined()
    _, leg = subscribe(session, owner)
    broker.deliver(leg.id, "a", [b"1"])
    pipe.listener.outgoing[broker._lane][-1] += b""
    pipe.listener.send(broker._lane, b"\x03\x00\x00\x00\x02xx")
    pipe.pump()
    assert session.violation is not None


def test_a_ping_is_answered_and_an_answer_is_told() -> None:
    pipe, session, broker, _ = joined()
    answered: list[bool] = []
    session.queries.ping(lambda: answered.append(True))
    broker.send(frames.Ping(id=77))
    pipe.pump()
    assert answered == [True]
    assert broker.of(frames.Pong) == [frames.Pong(id=77)]


def test_a_detached_session_sends_and_delivers_nothing_more() -> None:
    pipe, session, broker, owner = joined()
    publisher = Publisher()
    session.carry(publisher, Flushes())
    inbox, leg = subscribe(session, owner)
    pipe.pump()
    session.detach()
    assert publisher.offer(prepare(publisher.topics, "a", b"x"), 0.0)
    broker.deliver(leg.id, "a", [b"1"])
    pipe.dialer.transmit_soon()
    pipe.pump()
    assert (broker.bodies, inbox.pending) == ([], 0)


def test_final_books_wait_for_the_lanes_and_come_with_the_loss_of_the_connection() -> None:
    pipe, session, broker, owner = joined()
    _, leg = subscribe(session, owner)
    pipe.pump()
    broker.close_subscription(leg.id, "overflow", handed_over=2)
    broker.deliver(leg.id, "a", [b"1"])
    pipe.pump()
    assert "ended" not in owner.calls
    pipe.break_off()
    pipe.pump()
    assert owner.calls[-3:] == ["ended", "detached", "closed"]


def test_the_transport_is_told_how_much_may_be_under_way() -> None:
    pipe, session, _, owner = joined()
    _, leg = subscribe(session, owner)
    assert pipe.dialer.undelivered_allowed == 1000 + limits.UNDELIVERED_SLACK
    session.unsubscribe(leg)
    pipe.pump()
    assert pipe.dialer.undelivered_allowed == limits.UNDELIVERED_SLACK
