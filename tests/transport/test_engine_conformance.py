"""What every engine owes to a session: the handshake, who is accepted, versions, Retry, the channel binding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from quicbus.exceptions import InvalidSetting
from quicbus.transport import engine as seam
from quicbus.transport._packets import parse_header
from quicbus.transport.engines import engine_named
from tests.transport.pump import (
    ALPN,
    LATENCY_S,
    Faults,
    Pump,
    Side,
    authority,
    dialing,
    encrypted_pairing,
    every_engine,
    every_pairing,
    listening,
)

if TYPE_CHECKING:
    from pathlib import Path

ROUND_TRIP_S = 2 * LATENCY_S
ANSWER = pytest.approx(100 + ROUND_TRIP_S, abs=LATENCY_S / 2)
ANSWER_AFTER_RETRY = pytest.approx(100 + 2 * ROUND_TRIP_S, abs=LATENCY_S / 2)


def welcome(side: Side) -> None:
    """Have a listener write as soon as it may."""

    def on_event(side: Side, event: seam.EngineEvent) -> None:
        if isinstance(event, seam.Negotiated):
            side.connection.send(side.connection.open_stream(), b"Welcome")

    side.on_event = on_event


@every_pairing
def test_both_sides_learn_the_protocol_then_the_same_binding(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    for side in pump.both():
        kinds = [type(event) for event in side.events]
        assert side.of(seam.Negotiated) == [seam.Negotiated(ALPN)]
        assert kinds.index(seam.Negotiated) < kinds.index(seam.HandshakeCompleted)
    assert len(pump.dialer.binding) == 32
    assert pump.dialer.binding == pump.accepted.binding


@every_pairing
def test_the_dialer_is_shown_the_certificate_of_the_listener(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    shown = [event.listener_certificate for side in pump.both() for event in side.of(seam.HandshakeCompleted)]
    own = load_pem_x509_certificate(listening().certificate_chain).public_bytes(Encoding.DER)
    assert shown == [b"" if dialer == "memory" else own, b""]


@every_pairing
@pytest.mark.parametrize("seed", range(5))
def test_no_stream_data_comes_before_the_handshake_is_complete(dialer: str, listener: str, seed: int) -> None:
    pump = Pump(dialer, listener, faults=Faults(loss=0.1, reorder=0.4), seed=seed)
    pump.on_listener = welcome
    pump.run(lambda: bool(pump.dialer.of(seam.StreamData)))
    kinds = [type(event) for event in pump.dialer.events]
    assert kinds.index(seam.HandshakeCompleted) < kinds.index(seam.StreamData)


@encrypted_pairing
@pytest.mark.parametrize("is_traced", [False, True])
def test_each_side_measures_the_round_trip(dialer: str, listener: str, is_traced: bool, tmp_path: Path) -> None:
    qlog_dir = tmp_path if is_traced else None
    pump = Pump(
        dialer, listener, dials=replace(dialing(), qlog_dir=qlog_dir), listens=replace(listening(), qlog_dir=qlog_dir)
    )
    assert pump.dialer.connection.round_trip_s == 0
    pump.connected()
    for side in pump.both():
        stream = side.connection.open_stream()
        for _ in range(20):
            side.connection.send(stream, b"data")
            pump.run_for(ROUND_TRIP_S)
        assert side.connection.round_trip_s == pytest.approx(ROUND_TRIP_S, rel=0.2)
    pump.dialer.connection.close(0, "")
    pump.run_for(ROUND_TRIP_S)
    assert [side.connection.round_trip_s for side in pump.both()] == [0, 0]


@every_pairing
def test_the_binding_of_another_connection_differs(dialer: str, listener: str) -> None:
    bindings = {Pump(dialer, listener).connected().dialer.binding for _ in range(3)}
    assert len(bindings) == 3


@every_pairing
def test_what_a_listener_writes_when_the_protocol_is_known_costs_no_round_trip(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener)
    pump.on_listener = welcome
    pump.run(lambda: bool(pump.dialer.of(seam.StreamData)))
    assert pump.retries >= 1
    assert pump.dialer.when(seam.HandshakeCompleted) == ANSWER_AFTER_RETRY
    assert pump.dialer.when(seam.StreamData) == ANSWER_AFTER_RETRY
    assert pump.dialer.data(3) == b"Welcome"


@pytest.mark.parametrize(("dialer", "listener"), [("aioquic", "aioquic"), ("qh3", "aioquic"), ("memory", "memory")])
def test_without_retry_the_first_answer_comes_after_one_round_trip(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, retry=False)
    pump.on_listener = welcome
    pump.run(lambda: bool(pump.dialer.of(seam.StreamData)))
    assert pump.dialer.when(seam.StreamData) == ANSWER


@every_pairing
def test_without_retry_every_pairing_connects_within_two_seconds(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, retry=False)

    def large_welcome(side: Side) -> None:
        def on_event(side: Side, event: seam.EngineEvent) -> None:
            if isinstance(event, seam.Negotiated):
                side.connection.send(side.connection.open_stream(), bytes(6000))

        side.on_event = on_event

    pump.on_listener = large_welcome
    pump.run(lambda: len(pump.dialer.data(3)) == 6000, limit_s=2.5)
    pump.connected()


@every_pairing
def test_a_listener_sends_no_more_than_three_times_what_it_received_before_it_heard_twice(
    dialer: str, listener: str
) -> None:
    pump = Pump(dialer, listener, retry=False)

    def write_much(side: Side) -> None:
        def on_event(side: Side, event: seam.EngineEvent) -> None:
            if isinstance(event, seam.Negotiated):
                side.connection.send(side.connection.open_stream(), bytes(100_000))

        side.on_event = on_event

    pump.on_listener = write_much
    pump.drop = lambda side, datagram: pump.now > 100.0  # only the dialer's first flight arrives
    pump.run_for(5.0)
    first_flight = 1200 * (2 if dialer == "qh3" else 1)  # its key share for ML-KEM fills a second datagram
    assert 0 < pump.accepted.bytes_sent <= 3 * first_flight


@encrypted_pairing
def test_a_listener_with_another_name_is_refused(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, dials=replace(dialing(), server_name="node.somewhere.quicbus.internal"))
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None)
    _assert_refused_by_dialer(pump)


@encrypted_pairing
def test_a_listener_of_another_authority_is_refused(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, dials=replace(dialing(), authority=authority("theirs").certificate_pem))
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None)
    _assert_refused_by_dialer(pump)


@encrypted_pairing
def test_a_client_certificate_cannot_play_the_listener(dialer: str, listener: str) -> None:
    client = authority().issue_client("mallory")
    listens = replace(listening(), certificate_chain=client.chain_pem, private_key=client.private_key_pem)
    pump = Pump(dialer, listener, listens=listens)
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None)
    _assert_refused_by_dialer(pump)


def _assert_refused_by_dialer(pump: Pump) -> None:
    for side, is_local in ((pump.dialer, True), (pump.accepted, False)):
        assert not side.of(seam.HandshakeCompleted)
        end = side.end
        assert end is not None
        assert 0x100 < end.code < 0x200, "a TLS alert"
        assert (end.is_application, end.is_local) == (False, is_local)
        assert end.reason


@every_pairing
def test_another_protocol_is_refused_with_its_alert(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, dials=replace(dialing(), alpn="other/1"))
    pump.run(lambda: pump.dialer.end is not None and pump.accepted.end is not None)
    for side in pump.both():
        end = side.end
        assert end is not None
        assert not side.of(seam.HandshakeCompleted)
        # RFC 7301: no_application_protocol (120). qh3 says handshake_failure (40).
        assert end.code in (0x100 + 120, 0x100 + 40)
        assert not end.is_application
    assert pump.accepted.end is not None
    assert pump.accepted.end.is_local


@every_pairing
@pytest.mark.parametrize("wanted", [ALPN, "further/1"])
def test_a_listener_of_two_protocols_tells_which_one_was_dialed(dialer: str, listener: str, wanted: str) -> None:
    listens = replace(listening(), further_alpns=("further/1",))
    pump = Pump(dialer, listener, dials=replace(dialing(), alpn=wanted), listens=listens).connected()
    for side in pump.both():
        assert side.of(seam.Negotiated) == [seam.Negotiated(wanted)]


@every_engine
def test_an_unknown_version_in_the_answer_ends_the_attempt(engine: str) -> None:
    connection = engine_named(engine).dial(dialing())
    connection.connect(100.0)
    (first, *_) = connection.datagrams_to_send(100.0)
    header = parse_header(first, engine_named(engine).versions)
    assert header is not None
    ids = (header.source_connection_id, header.destination_connection_id)
    head = b"\x80\0\0\0\0" + b"".join(bytes([len(one)]) + one for one in ids)
    connection.receive(head + b"\x1a\x2a\x3a\x4a", 100.01)
    connection.datagrams_to_send(100.01)
    end = connection.next_event()
    assert isinstance(end, seam.Terminated)
    assert (end.is_application, end.is_local) == (False, True)
    assert "version" in end.reason


@every_pairing
def test_a_retry_is_followed_once(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    first = pump.accepted.connection.connection_ids[1]
    assert len(first) == 8
    assert pump.dialer.end is None


@every_pairing
def test_a_listener_that_misnames_the_original_id_is_refused(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener, retry=False)
    pump.misname_original_id = True
    pump.run(lambda: pump.dialer.end is not None)
    assert pump.dialer.end is not None
    assert (pump.dialer.end.code, pump.dialer.end.is_local) == (0x8, True)


@every_pairing
def test_a_first_flight_that_was_lost_is_repeated(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener)
    pump.drop = lambda side, datagram: pump.now == 100.0
    pump.run(lambda: len(pump.both()) == 2 and bool(pump.accepted.of(seam.HandshakeCompleted)))


@every_pairing
def test_ids_of_a_connection_have_eight_bytes_and_differ(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    known = [
        *(one for side in pump.both() for one in side.connection.connection_ids),
        *(event.connection_id for side in pump.both() for event in side.of(seam.ConnectionIdIssued)),
    ]
    assert all(len(one) == 8 for one in known)
    assert len(set(known)) == len(known)
    assert len(pump.dialer.connection.connection_ids) == 1
    assert len(pump.accepted.connection.connection_ids) == 2


@encrypted_pairing
def test_each_side_issues_further_ids_after_the_handshake(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener).connected()
    assert pump.dialer.of(seam.ConnectionIdIssued)
    assert pump.accepted.of(seam.ConnectionIdIssued)


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_a_dialer_that_could_not_verify_its_peer_is_not_made(engine: str) -> None:
    with pytest.raises(InvalidSetting, match="authority"):
        engine_named(engine).dial(replace(dialing(), authority=b""))
    with pytest.raises(InvalidSetting, match="server_name"):
        engine_named(engine).dial(replace(dialing(), server_name=""))


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_a_listener_without_certificate_or_key_is_not_made(engine: str) -> None:
    for configuration in (replace(listening(), certificate_chain=b""), replace(listening(), private_key=b"")):
        with pytest.raises(InvalidSetting, match="certificate"):
            engine_named(engine).accept(configuration, bytes(8), None)


@encrypted_pairing
def test_each_connection_leaves_a_qlog_file_of_its_own(dialer: str, listener: str, tmp_path: Path) -> None:
    pump = Pump(
        dialer,
        listener,
        dials=replace(dialing(), qlog_dir=tmp_path),
        listens=replace(listening(), qlog_dir=tmp_path),
    ).connected()
    assert not list(tmp_path.iterdir())
    pump.dialer.connection.close(0, "done")
    pump.run(lambda: pump.accepted.end is not None)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[16:] for name in names] == ["_client.qlog", "_server.qlog"]
    assert names[0][:16] == names[1][:16]


def test_the_memory_engine_writes_no_qlog(tmp_path: Path) -> None:
    pump = Pump("memory", "memory", dials=replace(dialing(), qlog_dir=tmp_path)).connected()
    pump.dialer.connection.close(0, "")
    pump.run(lambda: pump.accepted.end is not None)
    assert not list(tmp_path.iterdir())
