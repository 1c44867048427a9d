"""Whole sessions, however their streams are mixed: a client's bytes at the edge, a broker's at a client, a node's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from quicbus.client.delivery import Inbox
from quicbus.client.flushing import Flushes
from quicbus.client.publishing import Publisher
from quicbus.client.session import Session
from quicbus.testing.pipe import Pipe
from quicbus.transport.control import ControlStream
from quicbus.wire import frames
from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import FrameParser, encode_frame
from quicbus.wire.records import Envelope, encode_delivery, encode_publish
from quicbus_broker.mesh.session.link import Link
from tests.broker.fakes import FakeBroker, FakeConnection
from tests.client.scripted_broker import ScriptedBroker
from tests.fuzz import samples
from tests.fuzz.target import Target, join, parts
from tests.fuzz.targets.mesh import direct_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["TARGETS"]

CONTROL, LANE = bytes([frames.STREAM_TYPE_CONTROL]), bytes([frames.STREAM_TYPE_LANE])


def _pieces(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number of a stream, bytes of it, and whether it ends with these."""
    for piece in parts(data):
        if piece:
            yield piece[0] & 0x0F, piece[1:], piece[0] >= 0xF0


# --- the edge ---------------------------------------------------------------------------------------------------------


def edge_session(data: bytes) -> None:
    """The bytes of a client that was admitted (an even first byte) or not."""
    broker = FakeBroker()
    client = broker.connect() if data[:1] > b"\x7f" else broker.client()
    for stream, content, ended in _pieces(data[1:]):
        if client.connection.is_closed:
            break
        client.session.stream_data(2 + 4 * stream, content, ended)
        broker.turn()
        broker.pass_time(1.0)
    _check_end(client.connection)


def _edge_seeds() -> Iterable[bytes]:
    body = encode_body(b"a/b", [b"x", b"y"], number=1)
    hello = encode_frame(frames.Hello(version=1, kind="client", agent="x"))
    for frame in samples.client_frames():
        yield b"\x00" + join(b"\x00" + encode_frame(frame), b"\x01" + LANE + encode_publish(body))
    yield b"\xff" + join(b"\x00" + CONTROL + hello, b"\x01" + LANE + encode_publish(body), b"\xf1")


# --- the client -------------------------------------------------------------------------------------------------------


class _Owner:
    """Of session and subscriptions: takes everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def client_session(data: bytes) -> None:
    """The bytes of a broker, after it has accepted the client and its subscription."""
    pipe = Pipe()
    owner = cast("Any", _Owner())
    session = Session(pipe.dialer, owner, bus=cast("Any", None), clock=lambda: 0.0)
    pipe.start(session, ScriptedBroker(pipe.listener))
    pipe.pump()
    session.carry(Publisher(), Flushes())
    inbox = Inbox(8, 1000)
    session.subscribe(inbox, owner, filter="a", max_pending=16, max_pending_size=2000)
    pipe.pump()
    for stream, content, ended in _pieces(data):
        if session.is_closed or pipe.dialer.is_closed:
            break
        session.stream_data(3 + 4 * stream, content, ended)
        session.before_transmit()
        while inbox.refill():
            inbox.ready.clear()
            inbox.finished()


def _client_seeds() -> Iterable[bytes]:
    envelope = Envelope(origin=samples.ME, boot=1, sequence=1, publisher="alice")
    lane = b"\x01" + LANE + encode_delivery(envelope, [(1, 0)], encode_body(b"a", [b"x", b"y"], number=1))
    for frame in samples.client_frames():
        yield join(b"\x00" + encode_frame(frame), lane)
    yield join(lane, b"\x02\x07unknown", b"\xf1")


# --- a link -----------------------------------------------------------------------------------------------------------


class _Nobody:
    """The owner of a link."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class _Connection(FakeConnection):
    def stop_stream(self, stream_id: int, code: int) -> None:
        """A link refuses streams of types that it does not know."""


def node_link(data: bytes) -> None:
    """The bytes of a node that was admitted."""
    connection = _Connection()
    control = ControlStream(connection)
    control.open()
    link = Link(
        connection,
        control,
        FrameParser(),
        2,
        cast("Any", _Nobody()),
        number=1,
        node=samples.OTHER,
        boot=1,
        name="oslo",
        clock=lambda: 0.0,
        on_proof=lambda frame: None,
    )
    for stream, content, ended in _pieces(data):
        if connection.is_closed:
            break
        link.stream_data(2 + 4 * stream, content, ended)
        link.before_transmit()
    _check_end(connection)


def _link_seeds() -> Iterable[bytes]:
    lane = b"\x01" + LANE + direct_record()
    for frame in samples.node_frames():
        yield join(b"\x00" + encode_frame(frame), lane)
    yield join(lane, b"\x02\x07unknown", b"\xf1")


def _check_end(connection: FakeConnection) -> None:
    if connection.close_code is not None:
        assert CloseCode(connection.close_code)
        assert connection.close_reason


TARGETS = (
    Target("edge_session", edge_session, _edge_seeds),
    Target("client_session", client_session, _client_seeds),
    Target("node_link", node_link, _link_seeds),
)
