"""The probe that every QUIC listener answers, against sockets on loopback; what the way there is judged to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.client.urls import BrokerUrl
from quicbus.identity import Authority
from quicbus.transport.endpoint import NEAR_DATAGRAM_SIZE
from quicbus_cli.doctor.datagrams import UNSPOKEN_VERSION, Answer, Outcome, make_probe, probe, read_versions
from quicbus_cli.doctor.finding import State
from quicbus_cli.doctor.names import check_name, resolve, route_error
from quicbus_cli.doctor.network import check_path, check_udp, check_version, measure_path, sizes_for
from tests.cli.doctor.listeners import answering, names_versions, quic_listener, silent, unused

SHORT_S = 0.1
LONG_S = 20.0
ID = bytes(range(8))
NOWHERE = ("255.255.255.255", 4433)
"""A socket that was not allowed to broadcast can't even be connected there: nothing is sent."""


async def test_a_listener_of_either_engine_names_its_versions(engine: str) -> None:
    async with quic_listener(engine, Authority.create()) as address:
        answer = await probe(address, LONG_S)
    assert (answer.outcome, answer.versions) == (Outcome.QUIC, (1,))
    assert check_udp(address, answer).state is State.OK
    assert check_version(answer).state is State.OK


async def test_a_dead_port_is_refused_by_its_host() -> None:
    address = unused()
    answer = await probe(address, LONG_S)
    assert answer.outcome is Outcome.REFUSED
    finding = check_udp(address, answer)
    assert finding.state is State.FAILURE
    assert "nobody listens" in finding.seen
    assert "start the broker" in finding.remedy


async def test_a_silent_socket_is_told_apart_from_a_dead_one() -> None:
    with silent() as address:
        answer = await probe(address, SHORT_S)
    assert answer.outcome is Outcome.SILENT
    finding = check_udp(address, answer)
    assert finding.state is State.FAILURE
    assert f"let UDP port {address[1]} through the firewalls" in finding.remedy


async def test_what_answers_otherwise_is_no_quic() -> None:
    async with answering(lambda datagram: datagram) as address:
        answer = await probe(address, LONG_S)
    assert answer.outcome is Outcome.OTHER
    assert check_udp(address, answer).state is State.FAILURE


async def test_one_address_that_fails_beside_one_that_answers_is_a_warning() -> None:
    address = unused()
    assert check_udp(address, await probe(address, LONG_S), is_only_way=False).state is State.WARNING


async def test_an_address_that_can_not_be_used_is_unreachable() -> None:
    answer = await probe(NOWHERE, SHORT_S)
    assert answer.outcome is Outcome.UNREACHABLE
    finding = check_udp(NOWHERE, answer)
    assert (finding.state, finding.seen) == (State.FAILURE, "255.255.255.255:4433: permission denied")


async def test_another_version_of_quic_is_named() -> None:
    async with answering(names_versions(0x6B3343CF, 0x1A1A1A1A)) as address:
        finding = check_version(await probe(address, LONG_S))
    assert finding.state is State.FAILURE
    assert "0x6b3343cf, 0x1a1a1a1a, not version 1" in finding.seen


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x80\0\0\0\0",
        make_probe(ID),
        b"\x40" + bytes(30),
        b"\x80\0\0\0\0\x08" + ID,
        b"\x80\0\0\0\0\x08" + ID + b"\xff",
        b"\x80\0\0\0\0\x08" + ID + b"\0",
        b"\x80\0\0\0\0\x08" + ID + b"\0\0\0\1",
        b"\x80\0\0\0\0\x08" + ID[::-1] + b"\0\0\0\0\1",
    ],
    ids=["empty", "short", "long header", "short header", "no source", "lying length", "no version", "cut", "other id"],
)
def test_what_is_no_answer_to_the_probe_names_no_version(datagram: bytes) -> None:
    assert read_versions(datagram, ID) is None


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_versions_or_no_answer(tail: bytes, is_near: bool) -> None:
    datagram = (b"\x80\0\0\0\0\x08" + ID if is_near else b"") + tail
    versions = read_versions(datagram, ID)
    assert versions is None or all(0 <= version < 1 << 32 for version in versions)


def test_the_probe_is_a_long_header_of_a_version_that_is_kept_for_it() -> None:
    datagram = make_probe(ID, 1300)
    assert len(datagram) == 1300
    assert datagram[0] & 0xC0 == 0xC0
    assert int.from_bytes(datagram[1:5], "big") == UNSPOKEN_VERSION
    assert UNSPOKEN_VERSION & 0x0F0F0F0F == 0x0A0A0A0A
    assert read_versions(names_versions(1)(datagram) or b"", ID) == (1,)


async def test_all_sizes_that_matter_pass_on_loopback(engine: str) -> None:
    sizes = sizes_for(is_near=True, configured=4096)
    assert sizes == (1200, 1440, 4096, NEAR_DATAGRAM_SIZE)
    async with quic_listener(engine, Authority.create()) as address:
        finding = check_path(await measure_path(address, sizes, LONG_S), sizes, 4096)
    assert finding.state is State.OK
    assert f"1,200, 1,440, 4,096 and {NEAR_DATAGRAM_SIZE:,} bytes" in finding.seen


@pytest.mark.parametrize(
    ("largest", "configured", "state", "said"),
    [
        (1300, None, State.WARNING, "1200 bytes pass, 1440 do not (nothing came back)"),
        (1440, 4096, State.FAILURE, "set max_datagram_size to 1440 or less"),
        (1000, None, State.FAILURE, "datagrams of 1200 bytes do not pass"),
    ],
    ids=["a tunnel", "a setting that is too large", "a way that QUIC can not take"],
)
async def test_a_narrow_path_is_measured(largest: int, configured: int | None, state: State, said: str) -> None:
    sizes = sizes_for(is_near=False, configured=configured)
    async with answering(names_versions(1, largest=largest)) as address:
        finding = check_path(await measure_path(address, sizes, SHORT_S), sizes, configured)
    assert finding.state is state
    assert said in f"{finding.seen} {finding.remedy}"


async def test_a_datagram_that_the_own_interface_refuses_is_told() -> None:
    sizes = (1200, 65_508)  # one more than UDP over IPv4 can carry
    async with answering(names_versions(1)) as address:
        finding = check_path(await measure_path(address, sizes, LONG_S), sizes, None)
    assert finding.state is State.WARNING
    assert "this host's interface is too small" in finding.seen


def test_sizes_prove_nothing_where_datagrams_may_be_fragmented() -> None:
    answer = Answer(Outcome.QUIC, 1200, is_whole=False)
    assert check_path([answer], (1200,), None).state is State.SKIPPED


async def test_a_name_shows_its_addresses() -> None:
    url = BrokerUrl("127.0.0.1", 4433)
    addresses, why = await resolve(url, LONG_S)
    assert (addresses, why) == ([("127.0.0.1", 4433)], "")
    finding = check_name(url, addresses, why)
    assert (finding.state, finding.seen) == (State.OK, "127.0.0.1 is 127.0.0.1:4433 (IPv4)")


async def test_a_name_that_can_not_be_one_is_told() -> None:
    url = BrokerUrl("a" * 70 + ".example", 4433)  # a label of DNS has at most 63 octets: nobody is asked
    addresses, why = await resolve(url, LONG_S)
    assert addresses == []
    assert check_name(url, addresses, why).state is State.FAILURE


def test_an_address_without_a_way_is_told() -> None:
    assert route_error(NOWHERE) == "permission denied"
    assert check_name(BrokerUrl("host", 1), [NOWHERE], "").state is State.FAILURE
    finding = check_name(BrokerUrl("host", 1), [NOWHERE, ("127.0.0.1", 1)], "")
    assert finding.state is State.WARNING
    assert "no way from here to 255.255.255.255:4433" in finding.seen
