"""Headers as an endpoint reads them, version negotiation and Retry, for every engine."""

from __future__ import annotations

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicPacketType, get_retry_integrity_tag, pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from quicbus.transport._packets import (
    MEMORY_VERSION,
    QUIC_VERSION_1,
    PacketHeader,
    PacketType,
    has_token,
    make_retry,
    make_version_negotiation,
    parse_header,
    short_header_id,
)
from quicbus.transport.engines import engine_named
from tests.transport.pump import Pump, Side, dialing, every_pairing

INITIAL = PacketHeader(PacketType.INITIAL, QUIC_VERSION_1, b"original", b"dialer's", b"")


def initial_with(token_field: bytes) -> bytes:
    return b"\xc0\0\0\0\1\x08original\x08dialer's" + token_field + bytes(20)


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (initial_with(b"\0"), False),
        (initial_with(b"\x05token"), True),
        (initial_with(b"\x40\0"), False),
        (initial_with(b"\x40\x80" + bytes(128)), True),
        (initial_with(b"\x80\0\0\0"), False),
        (initial_with(b"\xc0\0\0\0\0\0\0\0"), False),
        (initial_with(b"\x05token")[:20], False),
        (b"\xe0" + initial_with(b"\x05token")[1:], False),
        (b"\xc0\0\0\0\1\xff", False),
        (b"\xc0\0\0\0\1\xff" + bytes(20), False),
        (b"", False),
    ],
)
def test_a_token_is_seen_without_parsing_however_its_size_is_written(datagram: bytes, expected: bool) -> None:
    assert has_token(datagram) is expected


@given(st.binary(max_size=80))
def test_any_bytes_may_be_looked_at_for_a_token(datagram: bytes) -> None:
    header = parse_header(datagram)
    if header is not None and header.type is PacketType.INITIAL:
        assert has_token(datagram) is bool(header.token)


@pytest.mark.parametrize("engine", ["aioquic", "qh3", "memory"])
def test_the_first_datagram_of_every_engine_is_an_initial_with_ids_of_eight_bytes(engine: str) -> None:
    connection = engine_named(engine).dial(dialing())
    connection.connect(1.0)
    for datagram in connection.datagrams_to_send(1.0):
        header = parse_header(datagram, engine_named(engine).versions)
        assert header is not None
        assert (header.type, header.version, header.token) == (
            PacketType.INITIAL,
            engine_named(engine).versions[0],
            b"",
        )
        assert (header.source_connection_id,) == connection.connection_ids
        assert len(header.destination_connection_id) == 8
        assert len(datagram) >= 1200


@every_pairing
def test_every_datagram_of_a_connection_carries_an_id_that_its_receiver_named(dialer: str, listener: str) -> None:
    pump = Pump(dialer, listener)
    carried: list[tuple[bool, bytes, PacketType]] = []

    def note(side: Side, datagram: bytes) -> bool:
        header = parse_header(datagram, engine_named(dialer).versions)
        assert header is not None
        carried.append((side is pump.dialer, header.destination_connection_id, header.type))
        return False

    pump.drop = note
    pump.connected()
    pump.dialer.connection.close(0, "")
    pump.run(lambda: pump.accepted.end is not None)
    known = [set(side.connection.connection_ids) for side in pump.both()]
    first_flight = next(one for is_dialers, one, _ in carried if is_dialers)
    assert {one for is_dialers, one, _ in carried if not is_dialers} <= known[0]
    assert {one for is_dialers, one, _ in carried if is_dialers} <= known[1] | {first_flight}
    assert PacketType.ONE_RTT in {kind for _, _, kind in carried}


def test_a_short_header_is_recognized_by_its_first_two_bits() -> None:
    datagram = b"\x5a12345678rest"
    assert short_header_id(datagram) == b"12345678"
    assert parse_header(datagram) == PacketHeader(PacketType.ONE_RTT, 0, b"12345678")
    assert short_header_id(b"\xc0" + datagram[1:]) is None
    assert short_header_id(b"\x1a" + datagram[1:]) is None


@pytest.mark.parametrize(
    "datagram", [b"", b"\x40", b"\x40123456", b"\x40" + bytes(7), b"\x00" + bytes(30), b"\xc0\0\0"]
)
def test_what_is_too_short_or_has_no_fixed_bit_is_not_a_packet(datagram: bytes) -> None:
    assert short_header_id(datagram) is None
    assert parse_header(datagram) is None


@given(st.binary(max_size=80))
def test_parsing_never_raises(datagram: bytes) -> None:
    for start in (b"", b"\xc0\0\0\0\x01", b"\xf0\0\0\0\x01", b"\x80\0\0\0\0", b"\xc0abcd"):
        parse_header(start + datagram)


def test_another_version_gives_no_more_than_its_ids() -> None:
    datagram = b"\xc0\x1a\x2a\x3a\x4a\x02to\x04from" + bytes(1200)
    header = parse_header(datagram)
    assert header == PacketHeader(PacketType.OTHER_VERSION, 0x1A2A3A4A, b"to", b"from")


def test_the_versions_of_quic_and_of_memory_do_not_mistake_each_other() -> None:
    quic = engine_named("aioquic").dial(dialing())
    memory = engine_named("memory").dial(dialing())
    for connection, versions in ((quic, (MEMORY_VERSION,)), (memory, (QUIC_VERSION_1,))):
        connection.connect(1.0)
        header = parse_header(connection.datagrams_to_send(1.0)[0], versions)
        assert header is not None
        assert header.type is PacketType.OTHER_VERSION


def test_version_negotiation_goes_back_with_the_ids_exchanged() -> None:
    header = PacketHeader(PacketType.OTHER_VERSION, 0x1A2A3A4A, b"to", b"from")
    answer = make_version_negotiation(header, (QUIC_VERSION_1,))
    parsed = pull_quic_header(Buffer(data=answer))
    assert parsed.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert (parsed.destination_cid, parsed.source_cid, parsed.supported_versions) == (b"from", b"to", [QUIC_VERSION_1])


def test_version_negotiation_is_no_larger_than_what_it_answers() -> None:
    header = PacketHeader(PacketType.OTHER_VERSION, 7, bytes(255), bytes(255))
    assert len(make_version_negotiation(header)) < 1200


def test_a_retry_carries_token_and_tag() -> None:
    datagram = make_retry(INITIAL, b"retry id", b"the token")
    parsed = pull_quic_header(Buffer(data=datagram))
    assert parsed.packet_type is QuicPacketType.RETRY
    assert (parsed.destination_cid, parsed.source_cid, parsed.token) == (b"dialer's", b"retry id", b"the token")
    assert parsed.integrity_tag == get_retry_integrity_tag(datagram[:-16], b"original", QUIC_VERSION_1)
    assert parse_header(datagram) == PacketHeader(
        PacketType.RETRY, QUIC_VERSION_1, b"dialer's", b"retry id", b"the token"
    )
