"""The turn of the endpoint, step by step with an engine that only records: who is called when, and what is sent."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import LimitExceeded
from quicbus.transport import excess
from quicbus.transport._packets import MEMORY_VERSION
from quicbus.transport.endpoint import MAX_TURNS_BEHIND, TIMER_GRANULARITY_S, Endpoint, EndpointSettings, Listener
from quicbus.transport.engine import EngineConfiguration, EngineEvent, HandshakeCompleted, StreamData, Terminated
from quicbus.transport.lone_datagram import ACKNOWLEDGE_SIZE, FAR_ROUND_TRIP_S
from quicbus.transport.memory_network import MemoryNetwork
from quicbus.transport.network import Path
from tests.transport.pump import dialing
from tests.transport.recorder import Recorder
from tests.transport.test_admission import initial
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus.transport.connection import Connection

PEER = ("10.0.0.9", 9)
PATH = Path(PEER, PEER)


class FakeConnection:
    """An `EngineConnection` that does what the test says."""

    made = 0
    unsent_size = rejected_size = rejected_datagrams = 0
    round_trip_s = 0.0

    def __init__(self) -> None:
        FakeConnection.made += 1
        self.identifier = FakeConnection.made.to_bytes(8, "big")
        self.events: deque[EngineEvent] = deque()
        self.fed: list[bytes] = []
        self.segments: list[tuple[bytes, int]] = []
        self.out: list[bytes] = []
        self.transmits = 0
        self.when: float | None = None
        self.failure: Exception | None = None
        self.closed: tuple[int, str] | None = None

    @property
    def connection_ids(self) -> tuple[bytes, ...]:
        return (self.identifier,)

    def connect(self, now: float) -> None: ...

    def receive(self, datagram: bytes, now: float) -> None:
        if self.failure is not None:
            raise self.failure
        self.fed.append(datagram)

    def receive_segments(self, buffer: bytes, segment_size: int, now: float) -> None:
        self.segments.append((buffer, segment_size))

    def datagrams_to_send(self, now: float) -> list[bytes]:
        self.transmits += 1
        if self.closed is not None:
            self.events.append(Terminated(*self.closed, is_application=True, is_local=True))
            self.when = 0.0
        out, self.out = self.out, []
        return out

    def next_event(self) -> EngineEvent | None:
        event = self.events.popleft() if self.events else None
        if isinstance(event, Terminated):
            self.when, self.closed = None, None
        return event

    def timer(self) -> float | None:
        return self.when

    def handle_timer(self, now: float) -> None:
        self.when = None

    def open_stream(self) -> int:
        raise LimitExceeded("streams", 1, 0)

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.out.append(data)

    def reset_stream(self, stream_id: int, code: int) -> None: ...
    def stop_stream(self, stream_id: int, code: int) -> None: ...
    def ping(self, uid: int) -> None: ...
    def request_key_update(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def datagram(self, payload: bytes = b"") -> bytes:
        return b"\x40" + self.identifier + payload


class FakeEngine:
    name = "memory"
    versions = (MEMORY_VERSION,)

    def __init__(self) -> None:
        self.dialed: list[FakeConnection] = []
        self.accepted: list[FakeConnection] = []

    def dial(self, configuration: EngineConfiguration) -> FakeConnection:
        self.dialed.append(FakeConnection())
        return self.dialed[-1]

    def accept(self, configuration: EngineConfiguration, original: bytes, retry: bytes | None) -> FakeConnection:
        self.accepted.append(FakeConnection())
        return self.accepted[-1]


class Session(Recorder):
    """Writes to another connection when it is told to."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.writes = 0
        self.on_write: Callable[[], object] | None = None
        self.on_data: Callable[[], object] | None = None

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        super().stream_data(stream_id, data, ended)
        if self.on_data is not None:
            self.on_data()

    def before_transmit(self) -> None:
        self.writes += 1
        if self.on_write is not None:
            self.on_write()


class Bench:
    """An endpoint with some connections whose handshake is complete."""

    def __init__(self, endpoint: Endpoint, engine: FakeEngine) -> None:
        self.endpoint = endpoint
        self.engine = engine
        self.sessions: list[Session] = []

    async def dial(self, count: int) -> list[tuple[FakeConnection, Session]]:
        def make(connection: Connection) -> Session:
            self.sessions.append(Session(connection))
            return self.sessions[-1]

        for _ in range(count):
            self.endpoint.dial(PEER, dialing(), make)
        pairs = list(zip(self.engine.dialed, self.sessions, strict=True))
        for quic, _ in pairs:
            quic.events.append(HandshakeCompleted(bytes(32)))
            self.feed(quic)
        self.endpoint.turn_ended()
        await asyncio.sleep(0)
        for quic, session in pairs:
            quic.transmits = session.writes = 0
            quic.fed.clear()
        return pairs

    def feed(self, quic: FakeConnection, payload: bytes = b"") -> None:
        datagram = quic.datagram(payload)
        self.endpoint.received(datagram, len(datagram), PATH)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """An endpoint for which nothing that arrives in a turn takes time."""
    engine = FakeEngine()
    settings = EndpointSettings(retry="never")
    listener = Listener(replace(dialing(), is_client=False), Session)
    endpoint = await Endpoint.open(
        bind=None, engine=engine, settings=settings, listener=listener, network=MemoryNetwork()
    )
    monkeypatch.setattr(endpoint, "_excess", excess.Excess(endpoint._feed_now, lambda: 0.0))
    yield Bench(endpoint, engine)
    await endpoint.close()


async def test_strangers_come_after_all_connections_were_served_and_sent_to(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    known: list[int] = []

    def make(connection: Connection) -> Session:
        known.append(quic.transmits)
        return Session(connection)

    bench.endpoint.listener = Listener(replace(dialing(), is_client=False), make)
    datagram = initial(version=MEMORY_VERSION)
    bench.endpoint.received(datagram, len(datagram), PATH)
    for _ in range(2):
        bench.feed(quic)
    quic.events.append(StreamData(3, b"x", ended=False))
    bench.endpoint.turn_ended()
    assert known == [1]
    assert session.received == {3: b"x"}
    [stranger] = bench.engine.accepted
    assert stranger.fed == [datagram]
    assert stranger.transmits == 1

    quic.transmits = 0
    stranger.events.append(HandshakeCompleted(bytes(32)))
    bench.feed(stranger)
    bench.feed(quic)
    assert len(stranger.fed) == 1, "it has not proved yet who it is"
    bench.endpoint.turn_ended()
    assert len(stranger.fed) == 2
    assert bench.endpoint.statistics().half_open == 0, "this session asks for no proof"
    bench.feed(stranger)
    assert len(stranger.fed) == 3


async def test_strangers_wait_some_turns_while_the_socket_holds_more(bench: Bench) -> None:
    bench.endpoint.listener = Listener(replace(dialing(), is_client=False), Session)
    datagram = initial(version=MEMORY_VERSION)
    bench.endpoint.received(datagram, len(datagram), PATH)
    for _ in range(MAX_TURNS_BEHIND):
        bench.endpoint.turn_ended(is_behind=True)
        await asyncio.sleep(0)
        assert bench.engine.accepted == []
    bench.endpoint.turn_ended(is_behind=True)
    assert len(bench.engine.accepted) == 1

    second = initial(version=MEMORY_VERSION, destination=b"second!!")
    bench.endpoint.received(second, len(second), PATH)
    bench.endpoint.turn_ended(is_behind=True)
    assert len(bench.engine.accepted) == 1
    bench.endpoint.turn_ended()
    assert len(bench.engine.accepted) == 2


async def test_a_connection_transmits_once_in_a_turn_however_much_came(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    for _ in range(10):
        bench.feed(quic)
        quic.events.append(StreamData(3, b"x", ended=False))
    assert session.received == {}, "nothing is drained before all was fed"
    bench.endpoint.turn_ended()
    assert len(quic.fed) == 10
    assert session.all_received == b"x" * 10
    assert (session.writes, quic.transmits) == (1, 1)


async def test_a_connection_that_heard_nothing_is_left_alone(bench: Bench) -> None:
    (one, _), (other, idle) = await bench.dial(2)
    for _ in range(2):
        bench.feed(one)
    bench.endpoint.turn_ended()
    assert (one.transmits, other.transmits, idle.writes) == (1, 0, 0)


@pytest.fixture
def standstill(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no acknowledgement comes due."""
    loop = bench.endpoint._loop
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)


@pytest.fixture
def slow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each look at the clock take more than half of the time for what arrives in a turn."""
    clock = itertools.count(0.0, 0.6 * excess.FEED_S)
    monkeypatch.setattr(bench.endpoint, "_excess", excess.Excess(bench.endpoint._feed_now, lambda: next(clock)))


@pytest.mark.usefixtures("slow")
async def test_a_burst_of_one_connection_goes_on_after_others_were_served(bench: Bench) -> None:
    (greedy, _), (modest, session) = await bench.dial(2)
    for number in range(5):
        bench.feed(greedy, bytes((number,)))
    for _ in range(2):
        bench.feed(modest)
    modest.events.append(StreamData(3, b"x", ended=False))
    bench.endpoint.turn_ended()
    assert (len(greedy.fed), len(modest.fed)) == (2, 1)
    assert session.all_received == b"x"
    await eventually(lambda: len(greedy.fed) == 5)
    assert [datagram[-1] for datagram in greedy.fed] == list(range(5))
    assert len(modest.fed) == 2


@pytest.mark.usefixtures("slow")
async def test_what_waits_goes_on_however_often_others_have_turns(bench: Bench) -> None:
    [(greedy, _)] = await bench.dial(1)
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    turns = 0

    def another() -> None:
        nonlocal turns
        turns += 1
        if turns == 20:
            is_over.set()
            return
        loop.call_soon(another)  # before what the turn schedules
        bench.endpoint.turn_ended()

    for _ in range(5):
        bench.feed(greedy)
    another()
    await is_over.wait()
    assert len(greedy.fed) == 5


@pytest.mark.usefixtures("slow")
async def test_strangers_wait_while_datagrams_of_connections_do(bench: Bench) -> None:
    [(greedy, _)] = await bench.dial(1)
    datagram = initial(version=MEMORY_VERSION)
    bench.endpoint.received(datagram, len(datagram), PATH)
    for _ in range(5):
        bench.feed(greedy)
    bench.endpoint.turn_ended()
    assert bench.engine.accepted == []
    await eventually(lambda: len(bench.engine.accepted) == 1)
    assert len(greedy.fed) == 5


@pytest.mark.usefixtures("slow")
async def test_what_waits_of_a_connection_goes_with_it(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    for _ in range(5):
        bench.feed(quic)
    quic.events.append(Terminated(0, "", is_application=True, is_local=False))
    bench.endpoint.turn_ended()
    assert session.termination is not None
    await asyncio.sleep(0)
    assert len(quic.fed) == 2
    assert bench.endpoint.statistics().connections == 0


async def test_what_an_application_answers_to_a_single_datagram_leaves_in_one_transmit(bench: Bench) -> None:
    bench.endpoint.listener = None
    [(quic, session)] = await bench.dial(1)
    session.on_data = lambda: asyncio.get_running_loop().call_soon(session.connection.send, 2, b"answer")
    quic.events.append(StreamData(3, b"x", ended=False))
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert session.all_received == b"x"
    assert (session.writes, quic.transmits) == (0, 0)
    await asyncio.sleep(0)
    assert (session.writes, quic.transmits, quic.out) == (1, 1, [])


async def test_several_datagrams_are_acknowledged_before_the_application_has_its_turn(bench: Bench) -> None:
    bench.endpoint.listener = None
    [(quic, session)] = await bench.dial(1)
    for _ in range(2):
        bench.feed(quic)
    bench.endpoint.turn_ended()
    assert (session.writes, quic.transmits) == (1, 1)


@pytest.mark.usefixtures("standstill")
async def test_the_acknowledgement_of_a_lone_datagram_goes_with_what_is_sent_next(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert (session.writes, quic.transmits) == (1, 0)
    session.connection.send(2, b"answer")
    await asyncio.sleep(0)
    assert (quic.transmits, quic.out) == (1, [])


async def test_the_acknowledgement_of_a_lone_datagram_leaves_when_its_time_has_come(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(quic, _)] = await bench.dial(1)
    is_asked = asyncio.Event()

    def asked(now: float) -> list[bytes]:
        is_asked.set()
        return []

    monkeypatch.setattr(quic, "datagrams_to_send", asked)
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert not is_asked.is_set()
    async with asyncio.timeout(60):
        await is_asked.wait()


@pytest.mark.usefixtures("standstill")
async def test_small_datagrams_are_acknowledged_at_once_when_they_are_as_many_bytes_as_two_of_full_size(
    bench: Bench,
) -> None:
    [(quic, _)] = await bench.dial(1)
    size = len(quic.datagram(bytes(391)))
    for number in range(1, -(-ACKNOWLEDGE_SIZE // size)):
        bench.feed(quic, bytes(391))
        bench.endpoint.turn_ended()
        assert quic.transmits == 0, f"after {number}"
    bench.feed(quic, bytes(391))
    bench.endpoint.turn_ended()
    assert quic.transmits == 1


@pytest.mark.usefixtures("standstill")
@pytest.mark.parametrize("size", [1200, 1443, 32_400])
async def test_every_second_datagram_of_full_size_is_acknowledged_at_once(bench: Bench, size: int) -> None:
    [(quic, _)] = await bench.dial(1)
    payload = bytes(size - len(quic.datagram(b"")))
    for number in range(1, 7):
        bench.feed(quic, payload)
        bench.endpoint.turn_ended()
        assert quic.transmits == number // 2, f"after {number}"


@pytest.mark.usefixtures("standstill")
async def test_after_a_large_datagram_smaller_ones_are_acknowledged_together(bench: Bench) -> None:
    [(quic, _)] = await bench.dial(1)
    bench.feed(quic, bytes(8000))
    for _ in range(4):
        bench.endpoint.turn_ended()
        assert quic.transmits == 0
        bench.feed(quic, bytes(2000))
    bench.endpoint.turn_ended()
    assert quic.transmits == 1


async def test_a_lone_datagram_that_may_open_the_window_has_what_waits_sent_at_once(bench: Bench) -> None:
    [(quic, _)] = await bench.dial(1)
    quic.unsent_size = 1
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert quic.transmits == 1


@pytest.mark.usefixtures("standstill")
@pytest.mark.parametrize(("round_trip_s", "transmits"), [(0.0, 0), (0.0099, 0), (FAR_ROUND_TRIP_S, 1), (0.2, 1)])
async def test_over_a_far_path_the_engine_says_how_long_an_acknowledgement_waits(
    bench: Bench, round_trip_s: float, transmits: int
) -> None:
    [(quic, _)] = await bench.dial(1)
    quic.round_trip_s = round_trip_s
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert quic.transmits == transmits


@pytest.mark.parametrize("event", [None, HandshakeCompleted(bytes(32))], ids=["on the way", "complete"])
async def test_in_a_handshake_the_engine_is_asked_for_its_own_answers_at_once(
    bench: Bench, event: HandshakeCompleted | None
) -> None:
    bench.endpoint.dial(PEER, dialing(), Session)
    await asyncio.sleep(0)
    (quic,) = bench.engine.dialed
    quic.transmits = 0
    if event is not None:
        quic.events.append(event)
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert quic.transmits == 1


@pytest.mark.parametrize("when", ["transmit_soon", "transmit_now"])
async def test_what_one_session_gives_another_leaves_in_the_same_turn(bench: Bench, when: str) -> None:
    (one, first), (other, second) = await bench.dial(2)
    first.on_data = getattr(second.connection, when)
    one.events.append(StreamData(3, b"x", ended=False))
    bench.feed(one)
    bench.endpoint.turn_ended()
    assert (second.writes, other.transmits) == (1, 1)


async def test_a_session_that_wrote_already_is_asked_again_when_another_gives_it_more(bench: Bench) -> None:
    (one, first), (other, second) = await bench.dial(2)
    second.on_write = first.connection.transmit_soon
    for quic in (one, one, other, other):
        bench.feed(quic)
    bench.endpoint.turn_ended()
    assert (first.writes, second.writes) == (2, 1)
    assert (one.transmits, other.transmits) == (1, 1)


async def test_a_session_that_sends_while_it_is_asked_is_not_asked_again(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    session.on_write = lambda: session.connection.send(2, b"x")
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert (session.writes, quic.transmits) == (1, 1)


async def test_sessions_that_stir_each_other_for_ever_leave_the_loop_its_turn(bench: Bench) -> None:
    (one, first), (_, second) = await bench.dial(2)
    first.on_write = second.connection.transmit_soon
    second.on_write = first.connection.transmit_soon
    bench.feed(one)
    bench.endpoint.turn_ended()
    assert first.writes + second.writes < 10
    written = first.writes
    await asyncio.sleep(0)
    assert first.writes > written, "the rest has turns of its own"
    first.on_write = None


async def test_what_is_to_leave_now_has_left_when_the_call_returns_with_all_else_that_waits(bench: Bench) -> None:
    (one, first), (other, second) = await bench.dial(2)
    second.connection.transmit_soon()
    first.connection.transmit_now()
    assert (first.writes, one.transmits) == (1, 1)
    assert (second.writes, other.transmits) == (1, 1)
    await asyncio.sleep(0)
    assert (one.transmits, other.transmits) == (1, 1), "no turn is left for later"


async def test_nothing_leaves_now_from_an_endpoint_that_was_closed(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    await bench.endpoint.close()
    quic.transmits = session.writes = 0
    session.connection.transmit_now()
    assert (session.writes, quic.transmits) == (0, 0)


async def test_what_is_sent_outside_a_turn_leaves_together_in_the_next(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    for _ in range(5):
        session.connection.send(2, b"x")
    assert quic.transmits == 0
    await asyncio.sleep(0)
    assert (session.writes, quic.transmits) == (1, 1)


async def test_a_buffer_of_one_id_is_handed_over_whole(bench: Bench) -> None:
    [(quic, _)] = await bench.dial(1)
    buffer = quic.datagram(b"12345") * 4 + quic.datagram()
    bench.endpoint.received(buffer, 14, PATH)
    assert quic.segments == [(buffer, 14)]


async def test_a_buffer_of_two_ids_is_cut(bench: Bench) -> None:
    (one, _), (other, _) = await bench.dial(2)
    buffer = one.datagram(b"1") * 2 + other.datagram(b"2") + one.datagram(b"3")
    bench.endpoint.received(buffer, 10, PATH)
    assert one.segments == [(one.datagram(b"1") * 2, 10)]
    assert other.fed == [other.datagram(b"2")]
    assert one.fed == [one.datagram(b"3")]


async def test_an_engine_that_raises_costs_its_connection_only(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (one, first), (other, second) = await bench.dial(2)
    one.failure = ZeroDivisionError("a mistake")
    for quic in (one, other):
        bench.feed(quic)
    bench.endpoint.turn_ended()
    assert (await first.wait_closed()).reason == "internal error"
    assert second.termination is None
    assert len(other.fed) == 1
    assert bench.endpoint.statistics().connections == 1
    assert "a mistake" in caplog.text


async def test_after_closing_a_session_hears_nothing_but_the_end(bench: Bench) -> None:
    [(quic, session)] = await bench.dial(1)
    session.on_data = lambda: session.connection.close(0, "enough")
    quic.events.extend([StreamData(3, b"one", ended=False), StreamData(3, b"two", ended=False)])
    bench.feed(quic)
    bench.endpoint.turn_ended()
    assert session.all_received == b"one"
    assert session.termination == Terminated(0, "enough", is_application=True, is_local=True)
    assert session.calls == ["connected", "closed"]


async def test_a_timer_that_stays_due_does_not_keep_the_loop(bench: Bench) -> None:
    [(quic, _)] = await bench.dial(1)
    quic.handle_timer = lambda now: None  # type: ignore[method-assign]
    quic.when = asyncio.get_running_loop().time() + 0.001
    bench.feed(quic)
    bench.endpoint.turn_ended()
    quic.transmits, began_at = 0, asyncio.get_running_loop().time()
    await eventually(lambda: quic.transmits >= 5)
    assert asyncio.get_running_loop().time() - began_at >= 3 * TIMER_GRANULARITY_S
    quic.when = None
