"""What a listener does with strangers: version negotiation, Retry, tokens, limits."""

from __future__ import annotations

from typing import Any

import pytest

from quicbus.transport._packets import QUIC_VERSION_1, PacketType, parse_header
from quicbus.transport.admission import Accept, Admission, Answer, Drop, Verdict
from quicbus.transport.engines import engine_named
from quicbus.transport.settings import EndpointSettings
from quicbus.wire.close_codes import CloseCode
from tests.transport.pump import dialing

ADDRESS = ("192.0.2.1", 1234)
ELSEWHERE = ("192.0.2.1", 1235)
NEW_ID = b"retry-id"
SOURCE_ID = b"source-1"
FIRST_ID = b"first-id"


def initial(token: bytes = b"", *, destination: bytes = FIRST_ID, version: int = 1, size: int = 1200) -> bytes:
    head = bytes((0xC0,)) + version.to_bytes(4, "big") + bytes((len(destination),)) + destination
    head += bytes((len(SOURCE_ID),)) + SOURCE_ID + (0x4000 | len(token)).to_bytes(2, "big") + token
    payload = size - len(head) - 2
    return head + (0x4000 | payload).to_bytes(2, "big") + bytes(payload)


def admission(**settings: Any) -> Admission:
    return Admission(EndpointSettings(**settings), (QUIC_VERSION_1,), lambda size: NEW_ID[:size])


def judge(
    listener: Admission,
    datagram: bytes,
    *,
    address: tuple[str, int] = ADDRESS,
    connections: int = 0,
    half_open: int = 0,
    now: float = 100.0,
) -> Verdict:
    return listener.judge(datagram, address, connections, half_open, now)


def retried(listener: Admission, now: float = 100.0) -> bytes:
    """Return the Initial that a dialer sends after the Retry that it got."""
    answer = judge(listener, initial(), now=now)
    assert isinstance(answer, Answer)
    assert answer.is_retry
    source, token = read_retry(answer.datagram)
    return initial(token, destination=source)


def read_retry(datagram: bytes) -> tuple[bytes, bytes]:
    header = parse_header(datagram)
    assert header is not None
    assert header.type is PacketType.RETRY
    assert header.destination_connection_id == SOURCE_ID
    start = 7 + len(header.destination_connection_id) + len(header.source_connection_id)
    return header.source_connection_id, datagram[start:-16]


def test_retry_always_answers_with_a_token_then_accepts_it_once() -> None:
    listener = admission(retry="always")
    second = retried(listener)
    assert judge(listener, second) == Accept(FIRST_ID, NEW_ID)
    assert judge(listener, second) == Drop("token_replayed")


def test_a_retry_is_smaller_than_what_asked_for_it() -> None:
    answer = judge(admission(), initial())
    assert isinstance(answer, Answer)
    assert len(answer.datagram) < 1200


def test_repeated_initials_without_token_get_a_token_each() -> None:
    listener = admission()
    assert [type(judge(listener, initial())) for _ in range(3)] == [Answer] * 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"now": 111.0}, "token_expired"),
        ({"address": ELSEWHERE}, "token_other_address"),
        ({"address": ("192.0.2.9", 1234)}, "token_other_address"),
    ],
)
def test_a_token_is_bound_to_its_time_and_address(change: dict[str, Any], reason: str) -> None:
    listener = admission()
    second = retried(listener)
    assert judge(listener, second, **change) == Drop(reason)


def test_a_token_of_another_listener_is_forged() -> None:
    assert judge(admission(), retried(admission())) == Drop("token_forged")


def test_a_token_that_was_changed_is_forged() -> None:
    listener = admission()
    _, token = read_retry(_answer(judge(listener, initial())))
    changed = bytes((token[0] ^ 1,)) + token[1:]
    assert judge(listener, initial(changed, destination=NEW_ID)) == Drop("token_forged")
    assert judge(listener, initial(b"x", destination=NEW_ID)) == Drop("token_forged")


def test_a_token_sent_to_another_connection_id_is_dropped() -> None:
    listener = admission()
    _, token = read_retry(_answer(judge(listener, initial())))
    assert judge(listener, initial(token, destination=b"another1")) == Drop("token_other_connection")


def test_retry_never_accepts_at_once() -> None:
    assert judge(admission(retry="never"), initial()) == Accept(FIRST_ID, None)
    assert judge(admission(retry="never"), initial(b"any token"), half_open=999) == Accept(FIRST_ID, None)


def test_retry_auto_asks_while_its_switch_is_on() -> None:
    listener = admission(retry="auto", retry_auto_half_open=3)
    assert not listener.switch.update(2, 100.0)
    assert judge(listener, initial(), half_open=2) == Accept(FIRST_ID, None)
    assert listener.switch.update(3, 100.0)
    answer = judge(listener, initial(), half_open=3)
    assert isinstance(answer, Answer)
    source, token = read_retry(answer.datagram)
    assert judge(listener, initial(token, destination=source), half_open=0) == Accept(FIRST_ID, NEW_ID)


def test_over_the_limit_of_half_open_handshakes_a_token_is_not_used_up() -> None:
    listener = admission(max_half_open=5)
    second = retried(listener)
    assert judge(listener, second, half_open=5) == Drop("half_open_limit", "max_half_open")
    assert judge(listener, second, half_open=4) == Accept(FIRST_ID, NEW_ID)


def test_a_connection_too_many_is_accepted_to_be_told() -> None:
    verdict = judge(admission(retry="never", max_connections=2), initial(), connections=2)
    assert isinstance(verdict, Accept)
    assert verdict.refusal is not None
    assert verdict.refusal.code is CloseCode.TOO_MANY_CONNECTIONS
    assert "max_connections: 3 is over the limit of 2" in verdict.refusal.reason


def test_a_listener_that_stops_says_so() -> None:
    listener = admission(retry="never")
    listener.is_stopping = True
    verdict = judge(listener, initial())
    assert isinstance(verdict, Accept)
    assert verdict.refusal is not None
    assert verdict.refusal.code is CloseCode.GOING_AWAY


def test_an_unknown_version_is_told_the_known_ones() -> None:
    answer = _answer(judge(admission(), initial(version=0x1A2A3A4A)))
    header = parse_header(answer)
    assert header is not None
    assert header.type is PacketType.VERSION_NEGOTIATION
    assert header.destination_connection_id == SOURCE_ID
    assert answer.endswith((1).to_bytes(4, "big"))
    assert len(answer) < 100


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (initial(size=1199), "short_initial"),
        (initial(destination=b"1234567"), "short_initial"),
        (initial(version=0x1A2A3A4A, size=1199), "unknown_version"),
        (b"\xc0", "garbage"),
        (bytes(1200), "garbage"),
        (b"\xe0" + initial()[1:], "unknown_connection"),
        (b"\x40" + bytes(40), "unknown_connection"),
    ],
)
def test_what_begins_no_connection_is_dropped_by_reason(datagram: bytes, reason: str) -> None:
    assert judge(admission(), datagram) == Drop(reason)


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_the_first_datagram_of_each_engine_is_an_initial(engine: str) -> None:
    connection = engine_named(engine).dial(dialing())
    connection.connect(0.0)
    assert judge(admission(retry="never"), connection.datagrams_to_send(0.0)[0]) != Drop("short_initial")


def _answer(verdict: Verdict) -> bytes:
    assert isinstance(verdict, Answer)
    return verdict.datagram
