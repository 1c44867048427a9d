"""What every engine owes to a session: how connections end, and that nothing a stranger sends raises."""

from __future__ import annotations

import gc
import os
import random
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from quicbus import limits
from quicbus.exceptions import LimitExceeded
from quicbus.transport import engine as seam
from quicbus.transport.engines import engine_named
from tests.transport.pump import Pump, Side, dialing, encrypted_pairing, every_engine, every_pairing, listening

if TYPE_CHECKING:
    from collections.abc import Callable

GARBAGE_ROUNDS = int(os.environ.get("QUICBUS_GARBAGE_ROUNDS", "300"))


def ends(pump: Pump, closing: str) -> tuple[Side, Side]:
    return (pump.dialer, pump.accepted) if closing == "dialer" else (pump.accepted, pump.dialer)


@every_pairing
@pytest.mark.parametrize("closing", ["dialer", "listener"])
@pytest.mark.parametrize(("code", "reason"), [(0, ""), (0x105, "the proof is wrong: ask for a new credential")])
def test_code_and_reason_of_a_close_arrive(dialer: str, listener: str, closing: str, code: int, reason: str) -> None:
    pump = Pump(dialer, listener).connected()
    here, there = ends(pump, closing)
    here.connection.close(code, reason)
    pump.run(lambda: here.end is not None and there.end is not None, limit_s=0.1)
    assert here.end == seam.Terminated(code, reason, is_application=True, is_local=True)
    assert there.end == seam.Terminated(code, reason, is_application=True, is_local=False)


@every_pairing
def test_a_listener_may_close_in_the_moment_the_handshake_is_complete(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener)

    def refuse(side: Side, event: seam.EngineEvent) -> None:
        if isinstance(event, seam.HandshakeCompleted):
            side.connection.close(0x100, "no credential")

    pump.on_listener = lambda side: setattr(side, "on_event", refuse)
    pump.run(lambda: pump.dialer.end is not None)
    assert pump.dialer.end == seam.Terminated(0x100, "no credential", is_application=True, is_local=False)


@every_pairing
def test_a_close_before_the_handshake_is_complete_ends_both_sides_but_for_a_qh3_listener(
    dialer: str, listener: str
) -> None:
    pump = Pump(dialer, listener)

    def refuse(side: Side, event: seam.EngineEvent) -> None:
        if isinstance(event, seam.Negotiated):
            side.connection.close(0x100, "too early to say")

    pump.on_listener = lambda side: setattr(side, "on_event", refuse)
    pump.run_for(1)
    assert pump.accepted.end == seam.Terminated(0x100, "too early to say", is_application=True, is_local=True)
    if listener == "qh3":  # it sends the close in a packet that the dialer can't read yet
        assert pump.dialer.end is None
        pump.run(lambda: pump.dialer.end is not None, limit_s=60)
    else:
        assert pump.dialer.end is not None
        assert not pump.dialer.end.is_local


@encrypted_pairing
@pytest.mark.parametrize("call", ["receive_datagram", "datagrams_to_send"])
def test_an_exception_out_of_a_library_ends_its_connection_and_the_peer_learns_of_it(
    dialer: str, listener: str, call: str
) -> None:
    pump = Pump(dialer, listener).connected()
    library = pump.accepted.connection._quic  # type: ignore[attr-defined]
    if listener == "qh3":
        library._core = OddOnce(library._core, {"datagrams_to_send": "poll_transmit"}.get(call, "receive_gro_buffer"))
    else:
        setattr(library, call, OddOnce(library, call).call)
    pump.dialer.connection.ping(1)
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None, limit_s=2)
    assert pump.accepted.end == seam.Terminated(1, "Odd: unheard of", is_application=False, is_local=True)
    assert pump.dialer.end == seam.Terminated(1, "Odd: unheard of", is_application=False, is_local=False)


class Odd(BaseException):
    """As the panic of a library in Rust is: no `Exception`."""


class OddOnce:
    """Something genuine, but for one method that raises when it is called first."""

    def __init__(self, genuine: Any, odd: str) -> None:
        self._genuine = genuine
        self._odd = odd
        self._method = getattr(genuine, odd)
        self._was_called = False

    def __getattr__(self, name: str) -> Any:
        return self.call if name == self._odd else getattr(self._genuine, name)

    def call(self, *arguments: Any) -> Any:
        if not self._was_called:
            self._was_called = True
            raise Odd("unheard of")
        return self._method(*arguments)


@every_engine
def test_a_dialer_that_closes_before_any_answer_is_done(engine: str) -> None:
    pump = Pump(engine, engine, retry=False)
    pump.dialer.connection.close(0, "never mind")
    pump.run(lambda: pump.dialer.end is not None, limit_s=0.01)
    assert pump.dialer.end == seam.Terminated(0, "never mind", is_application=True, is_local=True)


@every_engine
def test_a_listener_that_never_received_anything_can_be_closed(engine: str) -> None:
    connection = engine_named(engine).accept(listening(), bytes(8), None)
    assert connection.timer() is None
    assert connection.datagrams_to_send(100.0) == []
    connection.close(1, "not wanted")
    connection.datagrams_to_send(100.0)
    assert isinstance(connection.next_event(), seam.Terminated)
    assert connection.next_event() is None


@every_pairing
@pytest.mark.parametrize("character", ["x", "é", "€", "🚌"])
def test_a_long_reason_is_cut_between_characters(dialer: str, listener: str, character: str) -> None:
    pump = Pump(dialer, listener).connected()
    pump.dialer.connection.close(1, character * 2000)
    pump.run(lambda: pump.accepted.end is not None)
    assert pump.accepted.end is not None
    arrived = pump.accepted.end.reason
    assert arrived == character * (limits.MAX_CLOSE_REASON_SIZE // len(character.encode()))


def test_a_reason_that_cannot_be_encoded_is_still_a_reason() -> None:
    assert seam.cut_reason("lone \ud800 surrogate") == "lone ? surrogate"


@every_pairing
def test_the_first_close_counts(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    pump.dialer.connection.close(1, "first")
    pump.dialer.connection.close(2, "second")
    pump.run(lambda: pump.accepted.end is not None)
    assert pump.accepted.end is not None
    assert (pump.accepted.end.code, pump.accepted.end.reason) == (1, "first")


@every_pairing
def test_until_its_end_was_told_a_connection_wants_to_be_called(dialer: str, listener: str) -> None:
    connection = Pump(dialer, listener).connected().dialer.connection
    connection.close(0, "")
    assert connection.next_event() is None
    assert len(connection.datagrams_to_send(200.0)) == 1
    assert connection.timer() == 0.0
    connection.handle_timer(200.0)
    assert isinstance(connection.next_event(), seam.Terminated)
    assert connection.timer() is None


@every_pairing
def test_a_close_that_was_lost_is_repeated_to_a_peer_that_goes_on(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    stream = pump.dialer.connection.open_stream()
    closed_at = pump.now
    pump.drop = lambda side, datagram: side is pump.accepted and pump.now == closed_at
    pump.accepted.connection.close(0x105, "lost at first")
    pump.run(lambda: pump.accepted.end is not None)
    assert pump.dialer.end is None
    pump.now += 0.01
    pump.dialer.connection.send(stream, b"still here")
    pump.run(lambda: pump.dialer.end is not None, limit_s=1)
    assert pump.dialer.end == seam.Terminated(0x105, "lost at first", is_application=True, is_local=False)


@every_pairing
def test_closes_are_not_repeated_to_each_other_for_ever(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    pump.dialer.connection.close(0, "")
    pump.accepted.connection.close(0, "")
    pump.run_for(1)
    sent = [side.datagrams_sent for side in pump.both()]
    pump.run_for(10)
    assert [side.datagrams_sent for side in pump.both()] == sent


@every_pairing
def test_silence_ends_both_sides_with_code_0(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, dials=replace(dialing(), idle_timeout_s=5.0)).connected()
    pump.drop = lambda side, datagram: True
    silent_since = pump.now
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None, limit_s=20)
    assert pump.now - silent_since < 6, "the smaller of both time-outs counts"
    for side in pump.both():
        assert side.end is not None
        assert (side.end.code, side.end.is_application, side.end.is_local) == (0, False, True)
        assert "dle" in side.end.reason


@every_pairing
def test_pings_keep_a_connection_alive(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, dials=replace(dialing(), idle_timeout_s=2.0)).connected()
    for uid in range(6):
        pump.dialer.connection.ping(uid)
        pump.run_for(1.5)
    assert len(pump.dialer.of(seam.PingAcknowledged)) == 6
    assert (pump.dialer.end, pump.accepted.end) == (None, None)


@every_pairing
def test_nobody_there_ends_with_the_idle_time_out(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, dials=replace(dialing(), idle_timeout_s=3.0))
    pump.drop = lambda side, datagram: True
    pump.run(lambda: pump.dialer.end is not None, limit_s=10)
    assert pump.dialer.end is not None
    assert (pump.dialer.end.code, pump.dialer.end.is_application) == (0, False)


@every_pairing
@pytest.mark.parametrize("closing", ["dialer", "listener"])
def test_after_the_end_every_call_does_nothing(dialer: str, listener: str, closing: str) -> None:
    pump = Pump(dialer, listener).connected()
    stream = pump.dialer.connection.open_stream()
    pump.dialer.connection.send(stream, b"x")
    pump.run(lambda: bool(pump.accepted.data(stream)))
    here, there = ends(pump, closing)
    here.connection.close(0, "")
    pump.run(lambda: here.end is not None and there.end is not None)
    pump.run_for(1)
    for side in pump.both():
        connection = side.connection
        connection.send(stream, b"x", end=True)
        connection.reset_stream(stream, 1)
        connection.stop_stream(stream, 1)
        connection.ping(1)
        connection.request_key_update()
        connection.close(5, "again")
        connection.handle_timer(pump.now + 100)
        assert len(connection.connection_ids) >= 1
        assert connection.timer() is None
        assert connection.next_event() is None
        assert connection.datagrams_to_send(pump.now + 100) == []
    for side in pump.both():
        side.connection.receive(bytes(50), pump.now)
        side.connection.receive_segments(bytes(100), 50, pump.now)
        assert side.connection.next_event() is None
        try:
            side.connection.send(side.connection.open_stream(), b"x")
        except LimitExceeded:
            pass


@encrypted_pairing
def test_a_stateless_reset_is_not_a_goodbye(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    before = list(pump.dialer.events)
    pump.inject(pump.dialer, b"\x41" + random.Random(1).randbytes(60))
    assert pump.dialer.events == before, "without the token it is noise"


def test_a_stateless_reset_is_reported_by_qh3_as_an_end_that_is_nobodys_close() -> None:
    pump = Pump("qh3", "aioquic").connected()
    ids = pump.accepted.connection._quic._host_cids  # type: ignore[attr-defined]
    for one in ids:
        pump.inject(pump.dialer, b"\x41" + random.Random(1).randbytes(40) + one.stateless_reset_token)
    pump.run_for(5)
    assert pump.dialer.end is not None
    assert not pump.dialer.end.is_application
    assert pump.dialer.end.reason


def held_by_aioquic(library: Any) -> list[object]:
    return [library._loss, library.tls]


def held_by_qh3(library: Any) -> list[object]:
    return [library._tls, library._tls.tls]


@pytest.mark.parametrize("closing", ["dialer", "listener"])
@pytest.mark.parametrize(("engine", "held_by"), [("aioquic", held_by_aioquic), ("qh3", held_by_qh3)])
def test_once_its_end_was_told_what_a_library_held_waits_for_no_collection(
    engine: str, held_by: Callable[[Any], list[object]], closing: str
) -> None:
    pump = Pump(engine, engine).connected()
    sides = pump.both()
    parts = [weakref.ref(part) for side in sides for part in held_by(side.connection._quic)]  # type: ignore[attr-defined]
    ids = [side.connection.connection_ids for side in sides]
    assert len(parts) == 4
    gc.collect()
    gc.disable()
    try:
        ends(pump, closing)[0].connection.close(0, "")
        pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None, limit_s=1)
        assert [part() for part in parts] == [None] * 4
    finally:
        gc.enable()
    assert [side.connection.connection_ids for side in sides] == ids


@every_pairing
def test_noise_and_changed_datagrams_change_nothing(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    seed = 20_260_101
    print("seed", seed)
    rng = random.Random(seed)
    stream = pump.dialer.connection.open_stream()
    captured: list[bytes] = []

    def capture(side: Side, datagram: bytes) -> bool:
        captured.append(datagram)
        return False

    pump.drop = capture
    for turn in range(GARBAGE_ROUNDS):
        pump.dialer.connection.send(stream, b"%d," % turn)
        pump.run_for(0.001)
        for side in pump.both():
            ids = side.connection.connection_ids
            pump.inject(side, noise(rng, ids, captured))
            side.connection.receive_segments(noise(rng, ids, captured), rng.randrange(1, 400), pump.now)
    expected = b"".join(b"%d," % turn for turn in range(GARBAGE_ROUNDS))
    pump.run(lambda: pump.accepted.data(stream) == expected)
    assert (pump.dialer.end, pump.accepted.end) == (None, None)


def noise(rng: random.Random, ids: tuple[bytes, ...], captured: list[bytes]) -> bytes:
    kind = rng.randrange(5)
    if kind == 0 or not captured:
        return rng.randbytes(rng.randrange(0, 1500))
    if kind == 1:
        return b"\x40" + rng.choice(ids) + rng.randbytes(rng.randrange(0, 200))
    if kind == 2:
        return bytes([0xC0 | rng.randrange(64)]) + b"\0\0\0\x01\x08" + rng.choice(ids) + rng.randbytes(1200)
    changed = bytearray(rng.choice(captured))
    if kind == 3:
        return bytes(changed[: rng.randrange(len(changed))])
    for _ in range(rng.randrange(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@every_engine
def test_noise_during_the_handshake_changes_nothing(engine: str) -> None:
    seed = 20_260_102
    print("seed", seed)
    rng = random.Random(seed)
    pump = Pump(engine, engine, retry=False)
    captured: list[bytes] = []

    def drop(side: Side, datagram: bytes) -> bool:
        captured.append(datagram)
        for one in pump.both():
            for _ in range(5):
                one.connection.receive(noise(rng, one.connection.connection_ids, captured), pump.now)
        return False

    pump.drop = drop
    pump.connected()
    assert pump.dialer.binding == pump.accepted.binding


@every_engine
def test_a_listener_survives_noise_as_its_first_datagram(engine: str) -> None:
    seed = 20_260_103
    print("seed", seed)
    rng = random.Random(seed)
    captured = _initials(engine)
    for _ in range(GARBAGE_ROUNDS):
        connection = engine_named(engine).accept(listening(), captured[0][6:14], None)
        connection.receive(noise(rng, (captured[0][6:14],), captured), 100.0)
        connection.datagrams_to_send(100.0)
        while connection.next_event() is not None:
            pass
        connection.timer()
        connection.handle_timer(100.5)
        connection.close(0, "")
        connection.datagrams_to_send(100.5)


def _initials(engine: str) -> list[bytes]:
    connection = engine_named(engine).dial(dialing())
    connection.connect(100.0)
    return connection.datagrams_to_send(100.0)
