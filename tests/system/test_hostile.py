"""Hostile peers against a broker process: each is told what it did wrong, and nobody else notices.

What single frames and records may not say is tested byte by byte in tests/broker/test_bad_input.py; here is the whole
way, over UDP and TLS, with a good client beside it and an eye on the broker's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.identity import Authority, sign_proof
from quicbus.testing.launcher import BrokerProcess
from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import (
    Flush,
    Flushed,
    Hello,
    Ping,
    Pong,
    Refused,
    Subscribe,
    Subscribed,
    SubscriptionClosed,
    SubscriptionCredit,
    Welcome,
)
from quicbus.wire.records import encode_publish
from tests.system.buses import final_statistics
from tests.system.bystander import MIB, Bystander, bystander, resident
from tests.system.stranger import Stranger, endpoint_and_broker, hello, of_broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from quicbus.identity import Credential

MAX_MESSAGE_SIZE = 1_000
OPTIONS = ("--handshake-timeout-s", "4", "--max-message-size", str(MAX_MESSAGE_SIZE), "--max-subscriptions", "10")


@pytest.fixture(scope="module")
def target(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """The broker that all strangers of this module meet. At the end it must be whole, and have raised nothing."""
    folder = tmp_path_factory.mktemp("target") / "data"
    with BrokerProcess(data_dir=folder, engine=engine, options=OPTIONS) as broker:
        yield broker
        ended = broker.stop()
        statistics = final_statistics(ended)
        assert "Traceback" not in ended.stderr
        books = statistics["books"]
        assert books["deliveries"] == books["handed_over"] + sum(books["dropped"].values())


# --- before the proof -----------------------------------------------------------------------------------------------


OTHER_MESH = Authority.create()


def expired(authority: Authority) -> Credential:
    return authority.issue_client("old", days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=2))


def stolen(stranger: Stranger, authority: Authority) -> Hello:
    """The certificate of one client, the signature of another."""
    thief = authority.issue_client("thief")
    signature = sign_proof(thief, stranger.binding, "client")
    chain = authority.issue_client("alice").chain_der
    return Hello(version=1, kind="client", agent="stranger", chain=chain, signature=signature)


UNPROVEN: dict[str, tuple[Callable[[Stranger, Authority], object], CloseCode, str]] = {
    "says nothing": (lambda s, a: None, CloseCode.HANDSHAKE_TIMEOUT, "no proof within 4 s"),
    "shows no credential": (
        lambda s, a: s.write(Hello(version=1, kind="client", agent="stranger")),
        CloseCode.CREDENTIAL_MISSING,
        "quicbus cert issue --client",
    ),
    "is of another mesh": (
        lambda s, a: s.write(hello(OTHER_MESH.issue_client("alice"), s.binding)),
        CloseCode.CREDENTIAL_OTHER_MESH,
        "quicbus cert issue --client",
    ),
    "shows an expired certificate": (
        lambda s, a: s.write(hello(expired(a), s.binding)),
        CloseCode.CREDENTIAL_EXPIRED,
        "quicbus cert issue --client",
    ),
    "is a node that plays a client": (
        lambda s, a: s.write(hello(a.issue_node("tokyo"), s.binding)),
        CloseCode.CREDENTIAL_WRONG_ROLE,
        "a node certificate (tokyo) can't open a client session",
    ),
    "is a client that plays a node": (
        lambda s, a: s.write(hello(a.issue_client("alice"), s.binding, kind="node")),
        CloseCode.CREDENTIAL_WRONG_ROLE,
        "can't open a node session",
    ),
    "shows a certificate without its key": (
        lambda s, a: s.write(stolen(s, a)),
        CloseCode.PROOF_INVALID,
        "",
    ),
    "signs for another TLS session": (
        lambda s, a: s.write(hello(a.issue_client("alice"), bytes(len(s.binding)))),
        CloseCode.PROOF_INVALID,
        "",
    ),
    "speaks another version": (
        lambda s, a: s.write(hello(a.issue_client("alice"), s.binding, version=9)),
        CloseCode.UNSUPPORTED_VERSION,
        "speaks version 1, not 9",
    ),
    "publishes": (
        lambda s, a: s.publish(b"good/news", b"bad"),
        CloseCode.PROTOCOL_VIOLATION,
        "a lane before the proof was accepted",
    ),
    "subscribes": (
        lambda s, a: s.write(subscribe(1, "#")),
        CloseCode.PROTOCOL_VIOLATION,
        "Subscribe before the proof was accepted",
    ),
    "sends more than a Hello": (
        lambda s, a: s.write_control(b"\x02\x80\x00\xff\xff" + bytes(20_000)),
        CloseCode.PROTOCOL_VIOLATION,
        "",
    ),
}


def subscribe(id: int, filter: str, *, overflow: str = "drop_oldest") -> Subscribe:
    return Subscribe(
        id=id,
        filter=filter,
        overflow=overflow,
        max_pending=100,
        max_pending_size=10_000,
        window_messages=50,
        window_size=5_000,
    )


def assert_told(stranger: Stranger, code: CloseCode, sentence: str) -> None:
    termination = stranger.termination
    assert termination is not None
    assert termination.is_application, termination
    assert not termination.is_local, termination
    assert CloseCode(termination.code) is code, termination
    assert termination.reason
    assert len(termination.reason.encode()) <= limits.MAX_CLOSE_REASON_SIZE
    assert sentence in termination.reason


@pytest.mark.parametrize("offence", UNPROVEN)
async def test_a_stranger_without_a_proof_gets_nowhere_and_is_told_why(target: BrokerProcess, offence: str) -> None:
    commit, code, sentence = UNPROVEN[offence]
    async with bystander(target), endpoint_and_broker(target, target.engine) as dial:
        stranger = dial()
        await stranger.wait_connected()
        commit(stranger, of_broker(target))
        await stranger.wait_closed()
        assert_told(stranger, code, sentence)
        assert all(isinstance(frame, Welcome) for frame in stranger.frames)
        assert stranger.lane_bytes == 0


async def test_a_proof_is_of_no_use_in_another_session(target: BrokerProcess) -> None:
    async with bystander(target), endpoint_and_broker(target, target.engine) as dial:
        victim, replaying = dial(), dial()
        await victim.wait_connected()
        await replaying.wait_connected()
        assert victim.binding != replaying.binding
        overheard = hello(of_broker(target).issue_client("alice"), victim.binding)
        victim.write(overheard)
        replaying.write(overheard)
        await replaying.wait_closed()
        assert_told(replaying, CloseCode.PROOF_INVALID, "")
        victim.write(Ping(id=7))
        assert (await victim.wait_frame(Pong)).id == 7


# --- after the proof ------------------------------------------------------------------------------------------------


def lying(table: bytes) -> bytes:
    """A batch of two messages whose sizes are others than the table says."""
    body = encode_body(b"good/news", [b"abc", b"de"], number=1)
    at = body.index(b"\x03\x00\x02\x00abcde")
    return encode_publish(body[:at] + table + body[at + 4 :])


PROVEN: dict[str, tuple[Callable[[Stranger], object], CloseCode, str]] = {
    "lies about the sizes of messages": (
        lambda s: s.open_lane(lying(b"\xff\xff\xff\xff")),
        CloseCode.PROTOCOL_VIOLATION,
        "the sizes of a batch add up to 131070 bytes, but 5 bytes follow",
    ),
    "sends a batch of nothing": (
        lambda s: s.open_lane(encode_publish(encode_body(b"t", [], number=1))),
        CloseCode.PROTOCOL_VIOLATION,
        "without messages",
    ),
    "sends a record of nothing": (lambda s: s.open_lane(bytes(5)), CloseCode.PROTOCOL_VIOLATION, "without a kind"),
    "ends a lane within a record": (
        lambda s: s.open_lane(b"\x09\x00", end=True),
        CloseCode.PROTOCOL_VIOLATION,
        "in the middle of a record",
    ),
    "plays the broker": (
        lambda s: s.open_lane(b"\x05\x00\x00\x00\x02abcd"),
        CloseCode.PROTOCOL_VIOLATION,
        "a Message record towards the broker",
    ),
    "opens one lane too many": (
        lambda s: [s.open_lane(b"\x00") for _ in range(limits.LANES + 1)],
        CloseCode.PROTOCOL_VIOLATION,
        f"more than {limits.LANES} lanes",
    ),
    "opens a stream of no known type": (
        lambda s: s.connection.send(s.connection.open_stream(), b"\x7fabc"),
        CloseCode.PROTOCOL_VIOLATION,
        "unknown type 0x7f",
    ),
    "opens a second control stream": (
        lambda s: s.connection.send(s.connection.open_stream(), b"\x01"),
        CloseCode.PROTOCOL_VIOLATION,
        "a second control stream",
    ),
    "ends its control stream": (
        lambda s: s.write_control(b"", end=True),
        CloseCode.PROTOCOL_VIOLATION,
        "the control stream ended",
    ),
    "sends a frame that is no msgpack": (
        lambda s: s.write_control(b"\x0f\x03\xc1\xc1\xc1"),
        CloseCode.PROTOCOL_VIOLATION,
        "Ping: ",
    ),
    "leaves out a field": (
        lambda s: s.write_control(b"\x0f\x01\x80"),
        CloseCode.PROTOCOL_VIOLATION,
        "missing required field `id`",
    ),
    "sends a field of the wrong type": (
        lambda s: s.write_control(b"\x0f\x06\x81\xa2id\xa1x"),
        CloseCode.PROTOCOL_VIOLATION,
        "Expected `int`, got `str`",
    ),
    "announces a frame without end": (
        lambda s: s.write_control(b"\x04\xff\xff\xff\xff\xff\xff\xff\xff"),
        CloseCode.PROTOCOL_VIOLATION,
        "at most 262144 may be",
    ),
    "consumes what was never sent": (
        lambda s: s.write(subscribe(1, "x"), SubscriptionCredit(id=1, messages=5, size=5)),
        CloseCode.PROTOCOL_VIOLATION,
        "credit of subscription 1",
    ),
    "names no overflow policy": (
        lambda s: s.write(subscribe(1, "x", overflow="whatever")),
        CloseCode.PROTOCOL_VIOLATION,
        "is no overflow policy",
    ),
    "asks for two subscriptions by one id": (
        lambda s: s.write(subscribe(1, "x"), subscribe(1, "y")),
        CloseCode.PROTOCOL_VIOLATION,
        "id 1 is in use",
    ),
    "proves itself twice": (
        lambda s: s.write(Hello(version=1, kind="client", agent="stranger")),
        CloseCode.PROTOCOL_VIOLATION,
        "Hello is not for a broker",
    ),
}


@contextlib.asynccontextmanager
async def proven(broker: BrokerProcess, name: str = "mallory") -> AsyncIterator[tuple[Bystander, Stranger]]:
    async with bystander(broker) as good, endpoint_and_broker(broker, broker.engine) as dial:
        stranger = dial()
        await stranger.wait_connected()
        await stranger.prove(of_broker(broker).issue_client(name))
        yield good, stranger


@pytest.mark.parametrize("offence", PROVEN)
async def test_a_client_that_breaks_the_protocol_is_closed_and_told_how(target: BrokerProcess, offence: str) -> None:
    commit, code, sentence = PROVEN[offence]
    async with proven(target) as (_, stranger):
        commit(stranger)
        await stranger.wait_closed()
        assert_told(stranger, code, sentence)


async def test_an_oversize_message_is_refused_and_the_lane_goes_on_but_not_for_ever(target: BrokerProcess) -> None:
    async with proven(target) as (_, stranger):
        lane = stranger.publish(b"t", bytes(MAX_MESSAGE_SIZE + 1))
        # Longer than any batch may be: skipped as it arrives.
        stranger.connection.send(lane, encode_publish(encode_body(b"t", [bytes(MIB)], number=2)))
        stranger.connection.send(lane, encode_publish(encode_body(b"t", [b"fits"], number=3)))
        stranger.write(Flush(id=1, batches=3))
        flushed = await stranger.wait_frame(Flushed)
        assert (flushed.accepted, flushed.refused) == (1, 2)
        refused = [frame for frame in stranger.frames if isinstance(frame, Refused)]
        assert [(frame.number, frame.reason) for frame in refused] == [(1, "too_large"), (2, "too_large")]
        assert f"max_message_size is {MAX_MESSAGE_SIZE}" in refused[0].detail
        for number in range(4, 4 + limits.MAX_REFUSED_OVERSIZE):
            oversize = encode_body(b"t", [bytes(MAX_MESSAGE_SIZE + 1)], number=number)
            stranger.connection.send(lane, encode_publish(oversize))
        await stranger.wait_closed()
        assert_told(stranger, CloseCode.LIMIT_EXCEEDED, "oversize messages, although refused")


async def test_bytes_beyond_the_credit_close_the_connection(target: BrokerProcess) -> None:
    async with proven(target) as (good, stranger):
        # A full subscription holds its publishers back: no credit comes, and this one sends all the same.
        async with good.bus.subscribe("held", overflow="block", max_pending=1):
            lane = stranger.open_lane()
            record = [encode_publish(encode_body(b"held", [bytes(1_000)] * 60, number=n)) for n in range(1, 101)]
            while stranger.termination is None:
                stranger.connection.send(lane, b"".join(record))
                record = [encode_publish(encode_body(b"held", [bytes(1_000)] * 60, number=1))] * 100
                await good.round_trip()
        assert_told(stranger, CloseCode.PROTOCOL_VIOLATION, "with credit for")


async def test_more_subscriptions_than_allowed_are_refused_by_name_and_the_connection_stays(
    target: BrokerProcess,
) -> None:
    async with proven(target) as (_, stranger):
        stranger.write(*[subscribe(number, "x") for number in range(1, 12)])
        refused = await stranger.wait_frame(SubscriptionClosed)
        assert (refused.reason, refused.limit, refused.allowed) == ("limit", "max_subscriptions", 10)
        assert sum(isinstance(frame, Subscribed) for frame in stranger.frames) == 10
        stranger.write(Ping(id=1))
        await stranger.wait_frame(Pong)


async def test_a_client_that_reads_no_stream_of_the_broker_harms_itself_only(target: BrokerProcess) -> None:
    async with proven(target) as (good, stranger):
        stranger.write(subscribe(1, "noise", overflow="drop_oldest"))
        await stranger.wait_frame(Subscribed)
        assert stranger.control_of_broker is not None
        stranger.connection.stop_stream(stranger.control_of_broker, 0)
        for _ in range(20):
            stranger.write(Ping(id=1))
            await good.bus.publish("noise", bytes(100))
            await good.round_trip()


async def test_a_stream_that_never_ends_is_read_and_not_kept(target: BrokerProcess) -> None:
    async with proven(target) as (good, stranger):
        # A record of 4 GiB, and a frame of an unknown type that is as long.
        lane = stranger.open_lane(b"\xff\xff\xff\xff\x01" + encode_body(b"t", [b""], number=1))
        stranger.write_control(b"\x3f\xff\xff\xff\xff\xff\xff\xff\xff"[:9])
        before = resident(target)
        for _ in range(32):
            stranger.connection.send(lane, bytes(MIB))
            stranger.write_control(bytes(MIB))
            await good.round_trip()
            stranger.write(Ping(id=0))
        await good.round_trip()
        assert resident(target) - before < 24 * MIB


# --- many of them ---------------------------------------------------------------------------------------------------


CONNECTIONS = 1_000
AT_ONCE = 20


async def test_a_thousand_connections_that_come_and_go_leave_nothing_behind(target: BrokerProcess) -> None:
    credential = of_broker(target).issue_client("crowd")

    async def come_and_go(dial: Callable[[], Stranger], number: int) -> None:
        stranger = dial()
        await stranger.wait_connected()
        match number % 4:
            case 0:  # in order
                await stranger.prove(credential)
                stranger.write(subscribe(1, "#"))
                await stranger.wait_frame(Subscribed)
                stranger.connection.close(CloseCode.GOODBYE, "")
            case 1:  # at once
                stranger.connection.close(CloseCode.GOODBYE, "")
            case 2:  # with something under way
                stranger.write(hello(credential, stranger.binding))
                stranger.connection.close(CloseCode.INTERNAL_ERROR, "oops")
            case _:  # sent away
                stranger.publish(b"t", b"x")
                await stranger.wait_closed()
                assert_told(stranger, CloseCode.PROTOCOL_VIOLATION, "")

    async with bystander(target) as good, endpoint_and_broker(target, "auto") as dial:

        async def crowd(count: int) -> None:
            numbers = iter(range(count))

            async def one_after_the_other() -> None:
                for number in numbers:
                    await come_and_go(dial, number)

            await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)), good.round_trip())

        await crowd(CONNECTIONS // 4)
        before = resident(target)
        await crowd(CONNECTIONS * 3 // 4)
        await good.round_trip()
        assert resident(target) - before < 32 * MIB
