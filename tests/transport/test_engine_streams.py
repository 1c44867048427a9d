"""What every engine owes to a session: streams, pings, key updates, also where datagrams are lost and out of order."""

from __future__ import annotations

import random

import pytest

from quicbus import limits
from quicbus.exceptions import LimitExceeded
from quicbus.transport import engine as seam
from quicbus.transport._aioquic import LARGEST_DATAGRAM_SIZE
from tests.transport.pump import LATENCY_S, Faults, Pump, Side, encrypted_pairing, every_engine, every_pairing

LOSSY = Faults(loss=0.05, reorder=0.2, duplicate=0.05)


def ends(pump: Pump, sender: str) -> tuple[Side, Side]:
    return (pump.dialer, pump.accepted) if sender == "dialer" else (pump.accepted, pump.dialer)


@every_pairing
@pytest.mark.parametrize("sender", ["dialer", "listener"])
def test_a_stream_carries_bytes_in_order_and_its_end(dialer: str, listener: str, sender: str) -> None:
    pump = Pump(dialer, listener).connected()
    here, there = ends(pump, sender)
    stream = here.connection.open_stream()
    assert stream == (2 if sender == "dialer" else 3)
    here.connection.send(stream, b"one ")
    here.connection.send(stream, b"two ")
    pump.run(lambda: there.data(stream) == b"one two ")
    assert not there.ended(stream)
    here.connection.send(stream, b"three", end=True)
    pump.run(lambda: there.ended(stream))
    assert there.data(stream) == b"one two three"


@every_pairing
def test_an_end_needs_no_bytes(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, b"", end=True)
    pump.run(lambda: pump.accepted.ended(stream))
    assert pump.accepted.data(stream) == b""


@every_pairing
@pytest.mark.parametrize("sender", ["dialer", "listener"])
def test_a_large_transfer_arrives_whole(dialer: str, listener: str, sender: str) -> None:
    pump = Pump(dialer, listener, max_datagram_size=1400).connected()
    here, there = ends(pump, sender)
    content = random.Random(7).randbytes(1_000_000)
    stream = here.connection.open_stream()
    for start in range(0, len(content), 50_000):
        here.connection.send(stream, content[start : start + 50_000])
    here.connection.send(stream, b"", end=True)
    pump.run(lambda: there.ended(stream), limit_s=60)
    assert there.data(stream) == content


@every_pairing
@pytest.mark.parametrize("sender", ["dialer", "listener"])
@pytest.mark.parametrize("size", [8192, 32_400, 65_000])
def test_datagrams_are_as_large_as_both_are_set_to(dialer: str, listener: str, sender: str, size: int) -> None:
    pump = Pump(dialer, listener, max_datagram_size=size).connected()
    here, there = ends(pump, sender)
    sizes: list[int] = []

    def note(side: Side, datagram: bytes) -> bool:
        if side is here:
            sizes.append(len(datagram))
        return False

    pump.drop = note
    stream = here.connection.open_stream()
    content = random.Random(7).randbytes(300_000)
    here.connection.send(stream, content, end=True)
    pump.run(lambda: there.ended(stream))
    assert there.data(stream) == content
    is_aioquic = (dialer if sender == "dialer" else listener) == "aioquic"
    largest = min(size, LARGEST_DATAGRAM_SIZE) if is_aioquic else size
    assert largest - 200 < max(sizes) <= largest


@every_pairing
def test_loss_reordering_and_duplicates_change_nothing(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, faults=LOSSY, seed=11).connected()
    content = {}
    for side, sender in ((pump.dialer, 1), (pump.accepted, 2)):
        rng = random.Random(sender)
        for _ in range(4):
            stream = side.connection.open_stream()
            content[stream] = rng.randbytes(40_000)
            side.connection.send(stream, content[stream])
    pump.run(
        lambda: all(len(_receiver(pump, stream).data(stream)) == 40_000 for stream in content),
        limit_s=120,
    )
    assert all(_receiver(pump, stream).data(stream) == sent for stream, sent in content.items())
    assert pump.dialer.end is None
    assert pump.accepted.end is None


def _receiver(pump: Pump, stream: int) -> Side:
    return pump.dialer if stream & 1 else pump.accepted


@every_pairing
def test_a_handshake_survives_loss_and_reordering(dialer: str, listener: str) -> None:
    for seed in range(5):
        print("seed", seed)
        faults = Faults(loss=0.2, reorder=0.3, duplicate=0.2)
        Pump(dialer, listener, faults=faults, seed=seed).connected()


@every_pairing
def test_a_packet_that_is_lost_holds_up_its_own_stream_only(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    first, second = (pump.dialer.connection.open_stream() for _ in range(2))
    for stream in (first, second):
        pump.dialer.connection.send(stream, b"a")
    pump.run_for(0.2)
    pump.drop = lambda side, datagram: side is pump.dialer
    pump.dialer.connection.send(first, b"lost at first")
    pump.run_for(_STEP)
    pump.drop = lambda side, datagram: False
    sent_at = pump.now
    pump.dialer.connection.send(second, b"not held up")
    pump.run(lambda: pump.accepted.data(second) == b"anot held up")
    assert pump.now - sent_at < 2 * LATENCY_S
    assert pump.accepted.data(first) == b"a"
    pump.run(lambda: pump.accepted.data(first) == b"alost at first")


_STEP = 0.000_1


@every_pairing
def test_many_streams_one_after_the_other_leave_room_for_more(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    seen = 0
    for turn in range(20):
        streams = [pump.dialer.connection.open_stream() for _ in range(20)]
        for stream in streams:
            pump.dialer.connection.send(stream, b"%d" % turn, end=True)
        pump.run(lambda streams=streams: all(pump.accepted.ended(stream) for stream in streams))  # type: ignore[misc]
        pump.run_for(0.2)
        seen += len(streams)
    assert len({event.stream_id for event in pump.accepted.of(seam.StreamData)}) == seen == 400


@every_pairing
@pytest.mark.parametrize("sender", ["dialer", "listener"])
def test_more_streams_than_are_allowed_at_once_are_refused(dialer: str, listener: str, sender: str) -> None:
    pump = Pump(dialer, listener).connected()
    here, there = ends(pump, sender)
    streams = [here.connection.open_stream() for _ in range(limits.MAX_INCOMING_STREAMS)]
    with pytest.raises(LimitExceeded, match="streams"):
        here.connection.open_stream()
    for stream in streams:
        here.connection.send(stream, b"x")
    pump.run(lambda: all(there.data(stream) == b"x" for stream in streams))
    assert here.end is None


@encrypted_pairing
def test_streams_that_end_before_the_peer_allows_more_are_refused_rather_than_queued(
    dialer: str, listener: str
) -> None:
    pump = Pump(dialer, listener).connected()
    allowed = 128 if listener == "aioquic" else 103
    for _ in range(allowed):
        pump.dialer.connection.send(pump.dialer.connection.open_stream(), b"x", end=True)
    with pytest.raises(LimitExceeded) as caught:
        pump.dialer.connection.open_stream()
    assert caught.value.allowed == allowed
    pump.run(lambda: len(pump.accepted.of(seam.StreamData)) >= allowed)
    pump.run_for(0.2)
    pump.dialer.connection.open_stream()


@every_pairing
def test_a_reset_reaches_the_receiver_and_silences_the_stream(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, b"partly")
    pump.run(lambda: pump.accepted.data(stream) == b"partly")
    pump.dialer.connection.reset_stream(stream, 42)
    pump.dialer.connection.send(stream, b"never sent")
    pump.run(lambda: bool(pump.accepted.of(seam.StreamReset)))
    pump.run_for(0.5)
    assert pump.accepted.of(seam.StreamReset) == [seam.StreamReset(stream, 42)]
    assert pump.accepted.data(stream) == b"partly"
    assert pump.dialer.end is None


@every_pairing
def test_what_datagrams_brought_before_anyone_asked_is_told_in_its_order(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    here, there = pump.dialer.connection, pump.accepted.connection
    one, other = here.open_stream(), here.open_stream()
    here.send(one, b"one ")
    here.send(other, b"given up later")
    pump.run(lambda: pump.accepted.data(one) == b"one " and bool(pump.accepted.data(other)))
    there.ping(7)
    pump.run_for(LATENCY_S / 2)
    pump.accepted.events.clear()
    here.send(one, b"two ")
    datagrams = here.datagrams_to_send(pump.now)
    here.reset_stream(other, 9)
    datagrams += here.datagrams_to_send(pump.now)
    here.send(one, b"three ")
    datagrams += here.datagrams_to_send(pump.now)
    pump.run_for(LATENCY_S)  # The PING arrives, which the next datagram acknowledges.
    here.send(one, b"four", end=True)
    datagrams += here.datagrams_to_send(pump.now)
    assert len(datagrams) >= 4
    for datagram in datagrams:
        there.receive(datagram, pump.now)
    pump.run(lambda: pump.accepted.ended(one) and bool(pump.accepted.of(seam.PingAcknowledged)))
    told = [event for event in pump.accepted.events if isinstance(event, (seam.StreamData, seam.StreamReset))]
    assert told == [
        seam.StreamData(one, b"two ", ended=False),
        seam.StreamReset(other, 9),
        seam.StreamData(one, b"three ", ended=False),
        seam.StreamData(one, b"four", ended=True),
    ]


@every_pairing
def test_a_stream_that_the_peer_stops_is_reported_and_takes_no_more(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, b"unwanted")
    pump.run(lambda: bool(pump.accepted.data(stream)))
    pump.accepted.connection.stop_stream(stream, 9)
    pump.run(lambda: bool(pump.dialer.of(seam.StreamReset)))
    assert pump.dialer.of(seam.StreamReset) == [seam.StreamReset(stream, 9)]
    pump.dialer.connection.send(stream, b"ignored")
    pump.dialer.connection.reset_stream(stream, 1)
    pump.run_for(0.5)
    assert pump.accepted.data(stream) == b"unwanted"
    assert pump.dialer.end is None
    assert pump.accepted.end is None


@every_pairing
def test_operations_on_streams_that_are_over_do_nothing(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, b"all", end=True)
    pump.run(lambda: pump.accepted.ended(stream))
    pump.run_for(0.5)
    pump.dialer.connection.send(stream, b"more")
    pump.dialer.connection.reset_stream(stream, 1)
    pump.accepted.connection.stop_stream(stream, 1)
    pump.accepted.connection.stop_stream(4 * 50 + 2, 1)
    pump.accepted.connection.send(stream, b"on the peer's stream")
    pump.run_for(0.5)
    assert pump.accepted.data(stream) == b"all"
    assert (pump.dialer.end, pump.accepted.end) == (None, None)


@every_pairing
def test_a_ping_is_acknowledged_by_its_number(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    for side, uid in ((pump.dialer, 7), (pump.accepted, 2**32)):
        sent_at = pump.now
        side.connection.ping(uid)
        pump.run(lambda side=side: bool(side.of(seam.PingAcknowledged)))  # type: ignore[misc]
        assert side.of(seam.PingAcknowledged) == [seam.PingAcknowledged(uid)]
        assert pump.now - sent_at < 0.2


@every_pairing
def test_a_ping_after_one_that_was_lost_is_acknowledged(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    sent_at = pump.now
    pump.drop = lambda side, datagram: pump.now == sent_at
    pump.dialer.connection.ping(1)
    pump.run_for(0.05)
    pump.dialer.connection.ping(2)
    pump.run(lambda: seam.PingAcknowledged(2) in pump.dialer.events, limit_s=1)


@every_pairing
@pytest.mark.parametrize("updating", ["dialer", "listener", "both"])
def test_data_passes_before_during_and_after_key_updates(dialer: str, listener: str, updating: str) -> None:
    pump = Pump(dialer, listener).connected()
    streams = {side.connection.open_stream(): side for side in pump.both()}
    for turn in range(6):
        for stream, side in streams.items():
            side.connection.send(stream, b"before %d " % turn)
        for name, side in (("dialer", pump.dialer), ("listener", pump.accepted)):
            if updating in (name, "both") and turn < 5:
                side.connection.request_key_update()
        for stream, side in streams.items():
            side.connection.send(stream, b"after %d " % turn)
        pump.run_for(0.3)
    expected = b"".join(b"before %d after %d " % (turn, turn) for turn in range(6))
    for stream in streams:
        assert _receiver(pump, stream).data(stream) == expected
    assert (pump.dialer.end, pump.accepted.end) == (None, None)


@every_pairing
def test_a_key_update_before_the_handshake_is_confirmed_does_no_harm(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener)
    pump.dialer.connection.request_key_update()

    def on_event(side: Side, event: seam.EngineEvent) -> None:
        side.connection.request_key_update()

    pump.dialer.on_event = on_event
    pump.on_listener = lambda side: setattr(side, "on_event", on_event)
    pump.run(lambda: len(pump.both()) == 2 and bool(pump.accepted.of(seam.HandshakeCompleted)))
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, b"fine")
    pump.run(lambda: pump.accepted.data(stream) == b"fine")


@every_pairing
def test_segments_of_one_buffer_are_taken_as_the_datagrams_they_are(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    content = random.Random(5).randbytes(30_000)
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, content)
    for _ in range(200):
        datagrams = pump.dialer.connection.datagrams_to_send(pump.now)
        if not datagrams:
            pump.run_for(0.05)
        while datagrams:
            size = len(datagrams[0])
            count = next((at + 1 for at, one in enumerate(datagrams) if len(one) != size), len(datagrams))
            if len(datagrams[count - 1]) > size:
                count -= 1
            pump.accepted.connection.receive_segments(b"".join(datagrams[:count]), size, pump.now)
            del datagrams[:count]
        pump.run_for(0.01)
        if pump.accepted.data(stream) == content:
            return
    pytest.fail("the stream did not arrive")


@every_engine
def test_a_dialer_may_be_asked_everything_before_it_hears_an_answer(engine: str) -> None:
    pump = Pump(engine, engine)
    connection = pump.dialer.connection
    stream = connection.open_stream()
    connection.send(stream, b"early")
    connection.ping(1)
    connection.stop_stream(3, 1)
    connection.receive_segments(b"", 1200, pump.now)
    pump.run(lambda: len(pump.both()) == 2 and pump.accepted.data(stream) == b"early")


def test_qh3_sends_an_acknowledgement_with_data_instead_of_before_it() -> None:
    pump = Pump("qh3", "qh3").connected()
    here, there = pump.dialer, pump.accepted
    question, answer = here.connection.open_stream(), there.connection.open_stream()

    def reply(side: Side, event: seam.EngineEvent) -> None:
        if isinstance(event, seam.StreamData):
            side.connection.send(answer, event.data)

    there.on_event = reply
    before = there.datagrams_sent
    here.connection.send(question, b"question")
    pump.run(lambda: here.data(answer) == b"question")
    pump.run_for(4 * LATENCY_S)
    assert there.datagrams_sent - before == 1


def test_qh3_holds_small_datagrams_back_for_no_less_than_a_timer_knows() -> None:
    pump = Pump("qh3", "qh3", max_datagram_size=8192).connected()
    connection = pump.dialer.connection
    stream = connection.open_stream()
    for _ in range(4):
        connection.send(stream, b"small")
        while connection.datagrams_to_send(pump.now):
            pass
        when = connection.timer()
        assert not connection.unsent_size or (when is not None and when > pump.now + 0.001)
