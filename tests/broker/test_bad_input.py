"""What a client may not send, row by row: what it is told, and what becomes of its connection."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.wire.batch import FLAG_HEADERS, encode_body, encode_headers, message_with_headers
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import (
    Flush,
    Hello,
    Ping,
    Pong,
    Refused,
    Subscribed,
    SubscriptionClosed,
    SubscriptionCredit,
    Taken,
)
from quicbus.wire.records import encode_publish
from quicbus_broker.edge import EdgeLimits
from quicbus_broker.edge import session as session_module
from tests.broker.fakes import NODE, FakeBroker, FakeClient
from tests.broker.offences import VERIFIER, closed_with

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = EdgeLimits(max_message_size=100)


# --- messages over max_message_size ---------------------------------------------------------------------------------


def test_a_message_over_the_limit_is_refused_and_the_lane_goes_on() -> None:
    broker = FakeBroker(SMALL)
    client = broker.client()
    client.subscribe("t")
    client.frames()

    client.publish("t", b"small", bytes(101))
    client.publish("t", b"next")

    assert client.messages() == [b"next"]
    refused, taken = client.frames()
    assert isinstance(refused, Refused)
    assert (refused.number, refused.messages, refused.reason) == (1, 2, "too_large")
    assert "max_message_size is 100" in refused.detail
    assert isinstance(taken, Taken)
    assert (taken.accepted, taken.refused) == (1, 2)


def test_headers_do_not_count_as_payload() -> None:
    client = FakeBroker(SMALL).client()
    headers = encode_headers({"unit": "C" * 200})

    client.publish("t", message_with_headers(headers, bytes(100)), flags=FLAG_HEADERS)
    client.publish("t", message_with_headers(headers, bytes(101)), flags=FLAG_HEADERS)

    refused, taken = client.frames()
    assert isinstance(refused, Refused)
    assert refused.number == 2
    assert isinstance(taken, Taken)
    assert (taken.accepted, taken.refused) == (1, 1)


@pytest.mark.parametrize("chunk", [1000, 7_919, 1 << 20])
def test_a_batch_over_the_limit_is_skipped_as_it_arrives(chunk: int) -> None:
    broker = FakeBroker(EdgeLimits(max_message_size=1000))
    client = broker.client()
    client.subscribe("t")
    client.frames()
    huge = encode_publish(encode_body(b"t", [bytes(9 * 1024 * 1024)], number=1))

    for start in range(0, len(huge), chunk):
        client.write_lane(huge[start : start + chunk])
        broker.turn()
    client.number = 1
    client.publish("t", b"next")

    assert client.messages() == [b"next"]
    refused = [frame for frame in client.frames() if isinstance(frame, Refused)]
    assert [(frame.number, frame.messages, frame.reason) for frame in refused] == [(1, 1, "too_large")]
    assert client.session.publisher is not None
    assert client.session.publisher.numbers.all_up_to == 2


def test_repeated_offence_closes_the_connection() -> None:
    client = FakeBroker(SMALL).client()

    for _ in range(limits.MAX_REFUSED_OVERSIZE):
        client.publish("t", bytes(101))
    assert not client.connection.is_closed
    client.publish("t", bytes(101))

    assert closed_with(client) is CloseCode.LIMIT_EXCEEDED


# --- topics and filters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["a/+", "a/#", "a\x00", ""])
def test_a_bad_topic_is_refused_by_name_and_the_connection_stays(topic: str) -> None:
    client = FakeBroker().client()

    client.publish(topic, b"x")

    refused, taken = client.frames()
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.messages) == ("invalid_topic", 1)
    assert isinstance(taken, Taken)
    assert not client.connection.is_closed


@pytest.mark.parametrize("reply_to", ["a/+", "\x00"])
def test_a_bad_reply_topic_is_refused_likewise(reply_to: str) -> None:
    client = FakeBroker().client()

    client.publish("t", b"x", reply_to=reply_to)

    assert [frame.reason for frame in client.frames() if isinstance(frame, Refused)] == ["invalid_topic"]


@pytest.mark.parametrize(("filter", "group"), [("a/b#", None), ("", None), ("a\x00", None), ("a", "g/h"), ("a", "")])
def test_a_bad_filter_or_group_is_refused_by_name(filter: str, group: str | None) -> None:
    client = FakeBroker().client()

    client.subscribe(filter, group=group)

    (closed,) = client.frames()
    assert isinstance(closed, SubscriptionClosed)
    assert closed.reason == "invalid"
    assert closed.detail


# --- permissions ----------------------------------------------------------------------------------------------------


def own_prefix(session: int) -> str:
    return f"$quicbus/reply/{NODE.hex()}/{session.to_bytes(16, 'big').hex()}/"


@pytest.mark.parametrize(
    "filter",
    ["$quicbus/#", "$quicbus/+/x", "$quicbus/reply/#", "$quicbus/reply/+/+/+", own_prefix(2) + "+", "$quicbus/reply"],
)
def test_reply_topics_of_others_cannot_be_subscribed_to(filter: str) -> None:
    client = FakeBroker().client()

    client.subscribe(filter)

    (closed,) = client.frames()
    assert isinstance(closed, SubscriptionClosed)
    assert closed.reason == "not_permitted"
    assert not client.connection.is_closed


@pytest.mark.parametrize("filter", [own_prefix(1) + "+", own_prefix(1) + "#", "$other/#", "$quicbus/else/#", "#"])
def test_its_own_reply_topics_and_other_topics_can(filter: str) -> None:
    client = FakeBroker().client()

    client.subscribe(filter)

    assert client.frames() == [Subscribed(id=1)]


def test_a_wildcard_for_all_does_not_see_replies() -> None:
    broker = FakeBroker()
    asker, other = broker.client(), broker.client()
    asker.subscribe(own_prefix(1) + "+")
    other.subscribe("#")

    other.publish(own_prefix(1) + "7", b"reply")

    assert asker.messages() == [b"reply"]
    assert other.messages() == []


@pytest.mark.parametrize("topic", ["$quicbus/reply/x", "$quicbus/reply/" + "0" * 32 + "/1"])
def test_what_only_looks_like_a_reply_topic_cannot_be_published_to(topic: str) -> None:
    client = FakeBroker().client()

    client.publish(topic, b"x")

    assert [frame.reason for frame in client.frames() if isinstance(frame, Refused)] == ["not_permitted"]


# --- what does not follow the protocol ------------------------------------------------------------------------------


def use_a_number_twice(client: FakeClient) -> None:
    client.publish("t", b"x")
    client.number = 0
    client.publish("t", b"x")


def use_an_id_twice(client: FakeClient) -> None:
    client.subscribe("t")
    client.subscribe("u")


def claim_credit(client: FakeClient) -> None:
    client.subscribe("t")
    client.write(SubscriptionCredit(id=1, messages=1, size=0))


def open_too_many_lanes(client: FakeClient) -> None:
    for number in range(limits.LANES + 1):
        client.session.stream_data(6 + 4 * number, b"\x02", False)


def send_unknown_frames(client: FakeClient) -> None:
    for _ in range(100):
        client.write_control(b"\x3e" + b"\x40\xff" + bytes(255))


VIOLATIONS: dict[str, Callable[[FakeClient], object]] = {
    "a malformed frame": lambda c: c.write_control(b"\x04\x03\x81\xa2\xff"),
    "a frame with a field of the wrong type": lambda c: c.write_control(b"\x0f\x05\x81\xa2id\xa0"),
    "a frame without a field": lambda c: c.write_control(b"\x0f\x01\x80"),
    "a frame that is too long": lambda c: c.write_control(b"\x04\x80\x10\x00\x00"),
    "a frame that is not for brokers": lambda c: c.write(Taken(accepted=1, refused=0, credit=1)),
    "a second Hello": lambda c: c.write(Hello(version=1, kind="client", agent="t")),
    "a batch that lies": lambda c: c.write_lane(encode_publish(encode_body(b"t", [b"x"], number=1) + b"y")),
    "a record without a kind": lambda c: c.write_lane(bytes(5)),
    "a Message record": lambda c: c.write_lane(b"\x02\x00\x00\x00\x02x"),
    "a batch number twice": use_a_number_twice,
    "an unknown overflow policy": lambda c: c.subscribe("t", overflow="panic"),
    "an id that is in use": use_an_id_twice,
    "the id 0": lambda c: c.subscribe("t", id=0),
    "an id beyond 32 bits": lambda c: c.subscribe("t", id=1 << 32),
    "a window of nothing": lambda c: c.subscribe("t", window_messages=0),
    "no room": lambda c: c.subscribe("t", max_pending=0),
    "an endless window": lambda c: c.subscribe("t", window_messages=1 << 60),
    "credit for what was not sent": claim_credit,
    "a second control stream": lambda c: c.session.stream_data(6, b"\x01", False),
    "a stream of unknown type": lambda c: c.session.stream_data(6, b"\x07", False),
    "a bidirectional stream": lambda c: c.session.stream_data(0, b"\x02", False),
    "a lane too many": open_too_many_lanes,
    "a stream that ends before its type": lambda c: c.session.stream_data(6, b"", True),
    "a control stream that ends": lambda c: c.session.stream_data(2, b"", True),
    "a lane that ends in a record": lambda c: c.session.stream_data(6, b"\x02\x09\x00", True),
    "a reset stream": lambda c: c.session.stream_reset(6, 0),
    "endless Flush frames": lambda c: c.write(*[Flush(id=n, batches=9) for n in range(2000)]),
}


@pytest.mark.parametrize("offence", VIOLATIONS)
def test_a_violation_closes_the_connection_and_nobody_elses(offence: str) -> None:
    broker = FakeBroker()
    offender, other = broker.client(), broker.client()

    VIOLATIONS[offence](offender)
    broker.turn()

    assert closed_with(offender) is CloseCode.PROTOCOL_VIOLATION
    assert broker.edge.statistics().violations == 1
    offender.vanish()
    assert not other.connection.is_closed
    assert broker.edge.statistics().connections == 1


def test_bytes_over_the_credit_are_a_violation() -> None:
    broker = FakeBroker(SMALL)
    client = broker.client()
    record = encode_publish(encode_body(b"t", [bytes(100)] * 500, number=1))

    for number in range(1, 100):  # no turn between them: no credit comes back
        client.number = number
        client.write_lane(encode_publish(encode_body(b"t", [bytes(100)] * 500, number=number)))
        if client.connection.is_closed:
            break

    assert closed_with(client) is CloseCode.PROTOCOL_VIOLATION
    assert client.lane_bytes - len(record) <= limits.PUBLISH_WINDOW < client.lane_bytes


BEFORE_PROOF: dict[str, Callable[[FakeClient], object]] = {
    "a Ping": lambda c: c.write(Ping(id=1)),
    "a Subscribe": lambda c: c.subscribe("t"),
    "a lane": lambda c: c.publish("t", b"x"),
    "a large frame": lambda c: c.write_control(b"\x02\x80\x01\x00\x00"),
    "many unknown frames": send_unknown_frames,
}


@pytest.mark.parametrize("offence", BEFORE_PROOF)
def test_before_the_proof_nothing_but_hello_is_allowed(offence: str) -> None:
    client = FakeBroker().connect(VERIFIER)

    BEFORE_PROOF[offence](client)

    assert closed_with(client) is CloseCode.PROTOCOL_VIOLATION


def test_a_client_that_allows_too_few_streams_is_told_so() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.subscribe("t")
    client.connection.streams_allowed = 1

    client.publish("t", b"x")
    broker.turn()

    assert closed_with(client) is CloseCode.LIMIT_EXCEEDED


@pytest.mark.interpreted
def test_a_client_that_reads_no_control_frames_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_UNANSWERED", 8192)
    client = FakeBroker().client()

    for number in range(1000):
        client.write(Ping(id=number))
        client.broker.turn()

    assert closed_with(client) is CloseCode.STALLED


def test_a_client_that_answers_pings_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_UNANSWERED", 8192)
    client = FakeBroker().client()

    for number in range(2000):
        client.write(Ping(id=number))
        client.write(*[Pong(id=frame.id) for frame in client.frames() if isinstance(frame, Ping)])

    assert not client.connection.is_closed


# --- anything -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_end_in_a_close_or_in_nothing(seed: int) -> None:
    rng = random.Random(seed)
    broker = FakeBroker(EdgeLimits(max_message_size=2000))
    witness = broker.client()
    client = broker.client() if seed % 2 else broker.connect(VERIFIER)
    for _ in range(50):
        if client.connection.is_closed:
            break
        data = rng.randbytes(rng.randint(0, 60))
        match rng.randrange(3):
            case 0:
                client.write_control(data)
            case 1:
                client.write_lane(data, rng.randrange(limits.LANES + 1))
            case _:
                client.session.stream_data(rng.randrange(60), data, rng.random() < 0.1)
        broker.turn()
    witness.subscribe("t")
    witness.publish("t", b"still here")

    assert witness.messages() == [b"still here"]
