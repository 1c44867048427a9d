"""Strangers at the door: who comes first, what is dropped unread, who has to go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from quicbus import limits
from quicbus.transport._packets import QUIC_VERSION_1
from quicbus.transport.admission import Accept, Admission
from quicbus.transport.counters import Counters
from quicbus.transport.demultiplexer import connection_id
from quicbus.transport.door import Door
from quicbus.transport.network import Path
from quicbus.transport.settings import EndpointSettings
from quicbus.wire.close_codes import CloseCode
from tests.transport.test_admission import FIRST_ID, initial, read_retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Connection, ConnectionHandler


def path(number: int = 1) -> Path:
    address = (f"192.0.2.{number}", 5000)
    return Path(address, address)


class Guest:
    """An `EndpointConnection` as far as the door knows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.unproven_size = 0
        self.closed: tuple[CloseCode, str] | None = None

    def begin(self, handler: ConnectionHandler, now: float) -> None: ...

    def close_for(self, code: CloseCode, reason: str, cause: str) -> None:
        self.closed = (code, reason)


class Endpoint:
    """The owner of a door. `cost` is what each thing that the door has done takes of the processor."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.cost = 0.0
        self.spent = 0.0
        self.counters = Counters()
        self.guests: list[Guest] = []
        self.served: list[tuple[int, bytes]] = []
        self.sent: list[bytes] = []
        self.made: list[Connection] = []
        chosen = EndpointSettings(**settings)
        ids = iter(range(1, 1 << 20))
        admission = Admission(chosen, (QUIC_VERSION_1,), lambda size: next(ids).to_bytes(size, "big"), now=self.now)
        self.door = Door(self, chosen, admission, lambda: self.spent)  # type: ignore[arg-type]

    @property
    def make_handler(self) -> Callable[[Connection], Any] | None:
        return self.made.append

    def find(self, identifier: bytes) -> None:
        return None

    def accept(self, verdict: Accept, path: Path, now: float) -> Guest:
        self.guests.append(Guest(len(self.guests)))
        return self.guests[-1]

    def feed(self, connection: Guest, buffer: bytes, segment_size: int, path: Path, now: float) -> None:
        self.spent += self.cost
        self.served.append((connection.number, buffer))

    def send_to_stranger(self, path: Path, datagram: bytes) -> None:
        self.spent += self.cost
        self.sent.append(datagram)

    def forget(self, connection: Guest) -> None:
        self.door.forgotten(connection, self.now)  # type: ignore[arg-type]

    def knock(self, datagram: bytes, *, by: int = 1) -> None:
        self.door.knock(connection_id(datagram), datagram, len(datagram), path(by), self.now)

    def defer(self, guest: Guest, data: bytes) -> None:
        self.door.defer(guest, data, len(data), path())  # type: ignore[arg-type]

    def turn(self) -> None:
        self.door.worked(self.door.work(self.now))

    def turns(self) -> None:
        while self.door.waiting:
            self.now += 0.01
            self.turn()


def first(number: int, token: bytes = b"") -> bytes:
    return initial(token, destination=number.to_bytes(8, "big"))


def test_nothing_is_done_for_strangers_until_it_is_their_turn() -> None:
    endpoint = Endpoint(retry="never")
    endpoint.knock(first(1))
    assert endpoint.guests == []
    endpoint.turn()
    assert endpoint.served == [(0, first(1))]
    assert not endpoint.door.waiting
    assert endpoint.door.half_open == 1


def test_handshakes_under_way_come_first_then_tokens_then_the_rest() -> None:
    endpoint = Endpoint(retry="auto")
    endpoint.knock(first(1))
    endpoint.turn()
    (guest,) = endpoint.guests
    listener = endpoint.door.admission
    listener.switch.update(1000, endpoint.now)
    endpoint.knock(first(2))
    endpoint.turn()
    source, token = read_retry(endpoint.sent.pop())
    endpoint.served.clear()

    endpoint.knock(first(3))
    endpoint.knock(initial(token, destination=source))
    endpoint.defer(guest, b"finished")
    endpoint.turn()

    assert endpoint.served == [(0, b"finished"), (1, initial(token, destination=source))]
    assert len(endpoint.sent) == 1


def test_a_turn_takes_bounded_time_and_the_rest_waits_for_the_next() -> None:
    endpoint = Endpoint(retry="never", handshake_share=1.0)
    endpoint.cost = limits.STRANGERS_TURN_S / 2
    for number in range(5):
        endpoint.knock(first(number))
    endpoint.turn()
    assert len(endpoint.guests) == 2
    endpoint.turn()
    assert len(endpoint.guests) == 4
    assert endpoint.door.waiting


def test_handshakes_take_no_more_than_their_share_and_dialers_may_try_again() -> None:
    endpoint = Endpoint(retry="never", handshake_share=0.5, max_handshakes_per_address=10_000)
    endpoint.cost = 0.002
    for number in range(3000):
        endpoint.now += 0.001
        endpoint.knock(first(number), by=number % 200)
        endpoint.turn()
    assert endpoint.spent == pytest.approx(3.0 * 0.5, abs=0.15)
    assert len(endpoint.guests) == pytest.approx(750, abs=60)
    counters = endpoint.counters
    assert counters.limits["handshake_share"] + counters.dropped.get("flood", 0) == 3000 - len(endpoint.guests)


def test_more_than_can_be_answered_is_dropped_unread() -> None:
    endpoint = Endpoint(retry="always")
    endpoint.cost = 0.001
    for number in range(5000):
        endpoint.now += 0.0002
        endpoint.knock(first(number), by=number % 200)
        endpoint.turn()
    assert endpoint.counters.retries_sent == len(endpoint.sent) == pytest.approx(300, abs=30)
    assert endpoint.counters.dropped == {"flood": 5000 - len(endpoint.sent)}
    assert endpoint.guests == []


def test_who_brings_a_token_gets_in_during_a_flood_that_is_not_answered() -> None:
    endpoint = Endpoint(retry="always")
    endpoint.knock(initial())
    endpoint.turn()
    source, token = read_retry(endpoint.sent.pop())
    endpoint.door.admission.answers.spent(1.0)
    endpoint.knock(first(2))
    endpoint.knock(initial(token, destination=source))
    endpoint.turn()
    assert len(endpoint.guests) == 1
    assert endpoint.sent == []


def test_a_queue_that_is_full_drops_what_comes() -> None:
    endpoint = Endpoint(retry="never")
    for number in range(limits.MAX_STRANGERS_WAITING + 10):
        endpoint.knock(first(number))
    assert endpoint.counters.dropped == {"flood": 10}
    endpoint = Endpoint(retry="never")
    large = first(1) + bytes(60_000)
    for _ in range(limits.MAX_STRANGERS_WAITING_SIZE // len(large) + 3):
        endpoint.knock(large)
    assert endpoint.counters.dropped == {"flood": 3}


def test_one_address_begins_so_many_handshakes_a_second_and_others_go_on() -> None:
    endpoint = Endpoint(retry="never", max_handshakes_per_address=10)
    for number in range(30):
        endpoint.knock(first(number))
        endpoint.turn()
    assert len(endpoint.guests) == 10
    assert endpoint.counters.limits["max_handshakes_per_address"] == 20
    endpoint.knock(first(100), by=2)
    endpoint.turn()
    assert len(endpoint.guests) == 11


def test_forged_addresses_use_up_no_more_than_half_of_what_their_owner_may_begin() -> None:
    endpoint = Endpoint(retry="auto", max_handshakes_per_address=10)
    for number in range(30):
        endpoint.knock(first(number))
        endpoint.turn()
    assert len(endpoint.guests) == 6
    source, token = read_retry(endpoint.sent[-1])
    endpoint.knock(initial(token, destination=source))
    endpoint.turn()
    assert len(endpoint.guests) == 7


def test_one_address_has_a_quarter_of_those_without_a_proof() -> None:
    endpoint = Endpoint(retry="never", max_half_open=100, max_handshakes_per_address=1000)
    for number in range(60):
        endpoint.knock(first(number))
        endpoint.turn()
    assert len(endpoint.guests) == 25
    assert endpoint.counters.limits["max_half_open"] == 35
    endpoint.knock(first(100), by=2)
    endpoint.door.proven(endpoint.guests[0])  # type: ignore[arg-type]
    endpoint.knock(first(101))
    endpoint.turns()
    assert len(endpoint.guests) == 27


def test_a_connection_over_that_of_its_address_is_told_the_number() -> None:
    endpoint = Endpoint(retry="never", max_connections_per_address=2)
    for number in range(3):
        endpoint.knock(first(number))
        endpoint.turn()
    assert len(endpoint.guests) == 3
    assert len(endpoint.made) == 2, "the third has a session that refuses"
    assert endpoint.counters.limits["max_connections_per_address"] == 1
    verdict = endpoint.door.admission.judge(first(9), ("192.0.2.1", 5000), 3, 3, endpoint.now)
    assert isinstance(verdict, Accept)
    assert verdict.refusal is not None
    assert verdict.refusal.code is CloseCode.TOO_MANY_CONNECTIONS
    assert "max_connections_per_address: 4 is over the limit of 2 for 192.0.2.1" in verdict.refusal.reason
    for guest in endpoint.guests[1:]:
        endpoint.forget(guest)
    assert endpoint.door.accepted == 1
    endpoint.knock(first(4))
    endpoint.turn()
    assert len(endpoint.made) == 3


def test_when_all_without_a_proof_sent_too_much_those_that_sent_most_are_closed() -> None:
    endpoint = Endpoint(retry="never", max_unproven_total_size=100_000)
    for number in range(10):
        endpoint.knock(first(number))
    endpoint.turns()
    for guest in endpoint.guests[:3]:
        endpoint.defer(guest, bytes(29_000))
    endpoint.turns()
    assert [guest.number for guest in endpoint.guests if guest.closed] == []
    endpoint.defer(endpoint.guests[9], bytes(2_000))
    endpoint.turns()

    (closed,) = [guest for guest in endpoint.guests if guest.closed]
    assert closed.number in (0, 1, 2)
    assert closed.closed is not None
    assert closed.closed[0] is CloseCode.LIMIT_EXCEEDED
    assert "max_unproven_total_size" in closed.closed[1]
    assert endpoint.counters.limits["max_unproven_total_size"] == 1
    assert endpoint.door.half_open == 9


def test_who_has_proved_itself_counts_no_longer_and_its_end_may_be_told_again() -> None:
    endpoint = Endpoint(retry="never", max_unproven_total_size=50_000)
    endpoint.knock(first(1))
    endpoint.turn()
    (guest,) = endpoint.guests
    for _ in range(2):
        endpoint.door.proven(guest)  # type: ignore[arg-type]
    for _ in range(100):
        endpoint.defer(guest, bytes(1_000))
        endpoint.turn()
    assert guest.closed is None
    assert endpoint.door.half_open == 0
    for _ in range(2):
        endpoint.forget(guest)
    assert endpoint.door.accepted == 0
    assert endpoint.door.admission.addresses.use("192.0.2.1") is not None


def test_a_flood_turns_retry_on_and_its_end_off_each_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quicbus.transport")
    endpoint = Endpoint(retry="auto", retry_auto_rate=50, max_handshakes_per_address=10_000)
    for number in range(500):
        endpoint.now += 0.001
        endpoint.knock(first(number), by=number % 200)
        endpoint.turn()
    assert endpoint.counters.limits["retry_auto"] == 1
    assert len(endpoint.guests) in (49, 50)
    assert not endpoint.door.is_over(endpoint.now)
    for guest in endpoint.guests:
        endpoint.forget(guest)
    endpoint.now += 10.0
    assert endpoint.door.is_over(endpoint.now)
    assert [record.message.split(":")[0] for record in caplog.records] == ["= Retry is on", "= Retry is off again"]
    endpoint.knock(initial(destination=FIRST_ID))
    endpoint.turn()
    assert endpoint.counters.limits["retry_auto"] == 1
