"""The client against a scripted broker: no network, no time."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus import limits
from quicbus.exceptions import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    CredentialRefused,
    InvalidTopic,
    MessageTooLarge,
    NoResponders,
    NotPermitted,
    PublishRefused,
    RequestTimeout,
    SubscriptionEnded,
    WaitTimeout,
    WouldBlock,
)
from quicbus.wire import frames
from quicbus.wire.batch import FLAG_HEADERS, FLAG_REQUEST, encode_headers, message_with_headers
from quicbus.wire.close_codes import CloseCode
from tests.client.scripted_broker import NODE, SESSION, ScriptedDialer, settle, start, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quicbus.client.api import Client


@pytest.fixture
def dialer() -> ScriptedDialer:
    return ScriptedDialer()


@pytest.fixture
async def bus(dialer: ScriptedDialer) -> AsyncIterator[Client]:
    client = await start(dialer)
    yield client
    await client.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert {task.get_name() for task in others if task.get_name().startswith("quicbus")} == set()


# --- publishing


async def test_messages_of_one_turn_and_topic_leave_as_one_batch(bus: Client, dialer: ScriptedDialer) -> None:
    for number in range(3):
        await bus.publish("a", b"%d" % number)
    await bus.publish("b", "text")
    await settle()
    assert [(body.topic, body.count) for body in dialer.broker.bodies] == [(b"a", 3), (b"b", 1)]
    assert dialer.broker.payloads() == [b"0", b"1", b"2", b"text"]


async def test_messages_that_differ_in_reply_topic_keep_their_order_in_batches_of_their_own(
    bus: Client, dialer: ScriptedDialer
) -> None:
    await bus.publish("a", b"1")
    await bus.publish("a", b"2", reply_to="r")
    await bus.publish("a", b"3")
    await settle()
    assert [(body.reply_to, body.number) for body in dialer.broker.bodies] == [(b"", 1), (b"r", 2), (b"", 3)]
    assert dialer.broker.payloads() == [b"1", b"2", b"3"]


async def test_headers_travel_inside_the_message(bus: Client, dialer: ScriptedDialer) -> None:
    await bus.publish("a", b"x", headers={"unit": "C"})
    await settle()
    assert dialer.broker.bodies[0].flags == FLAG_HEADERS
    assert dialer.broker.payloads() == [message_with_headers(encode_headers({"unit": "C"}), b"x")]


async def test_bad_topics_and_large_messages_are_refused_before_anything_is_sent(
    bus: Client, dialer: ScriptedDialer
) -> None:
    with pytest.raises(InvalidTopic):
        await bus.publish("a/+", b"")
    with pytest.raises(MessageTooLarge) as caught:
        await bus.publish("a", bytes(limits.MAX_MESSAGE_SIZE + 1))
    assert (caught.value.size, caught.value.allowed) == (limits.MAX_MESSAGE_SIZE + 1, limits.MAX_MESSAGE_SIZE)
    with pytest.raises(TypeError):
        await bus.publish("a", 5)  # type: ignore[arg-type]
    await settle()
    assert dialer.broker.bodies == []
    assert bus.statistics().published == 0


async def test_publish_waits_for_credit_and_publish_nowait_raises(dialer: ScriptedDialer) -> None:
    dialer.plan = [{"credit": 2000, "auto": False}]
    connecting = asyncio.create_task(start(dialer))
    await settle()
    dialer.broker.accept()
    bus = await connecting
    await bus.publish("a", bytes(1500))
    waiting = asyncio.create_task(bus.publish("a", bytes(1000)))
    await settle()
    assert not waiting.done()
    with pytest.raises(WouldBlock):
        bus.publish_nowait("b", b"")
    dialer.broker.take()
    await asyncio.wait_for(waiting, 5)
    await settle()
    assert [body.total for body in dialer.broker.bodies] == [1500, 1000]
    await bus.close(timeout=0)


async def test_a_cancelled_publish_has_published_nothing_and_lets_the_next_one_through(dialer: ScriptedDialer) -> None:
    dialer.plan = [{"credit": 2000}]
    bus = await start(dialer)
    dialer.broker.auto = False
    await bus.publish("a", bytes(1500))
    first = asyncio.create_task(bus.publish("a", b"1" * 1500))
    second = asyncio.create_task(bus.publish("a", b"2" * 1500))
    await settle()
    first.cancel()
    await asyncio.wait((first,))
    dialer.broker.take()
    await asyncio.wait_for(second, 5)
    await settle()
    assert [payload[:1] for payload in dialer.broker.payloads()] == [b"\0", b"2"]
    assert bus.statistics().published == 2
    await bus.close(timeout=0)


async def test_a_publisher_that_never_waits_gives_the_loop_turns(bus: Client, dialer: ScriptedDialer) -> None:
    for _ in range(4 * limits.YIELD_AFTER_MESSAGES):
        await bus.publish("a", b"x")
    assert len(dialer.broker.bodies) >= 3


# --- flush


async def test_flush_returns_when_the_broker_has_taken_all(bus: Client, dialer: ScriptedDialer) -> None:
    dialer.broker.auto = False
    await bus.publish("a", b"x")
    flush = asyncio.create_task(bus.flush())
    await settle()
    assert not flush.done()
    (frame,) = dialer.broker.of(frames.Flush)
    assert frame.batches == 1
    dialer.broker.take()
    dialer.broker.send(frames.Flushed(id=frame.id, accepted=1, refused=0))
    await asyncio.wait_for(flush, 5)
    await asyncio.wait_for(bus.flush(), 5)
    dialer.broker.auto = True


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("not_permitted", NotPermitted), ("too_large", MessageTooLarge), ("draining", PublishRefused)],
)
async def test_flush_raises_what_was_refused_once(
    bus: Client, dialer: ScriptedDialer, reason: str, expected: type[Exception]
) -> None:
    dialer.broker.auto = False
    await bus.publish("secret", b"x")
    await settle()
    dialer.broker.refuse(1, 1, reason, "why")
    await settle()
    with pytest.raises(expected):
        await bus.flush()
    await bus.flush()
    assert bus.statistics().refused == {reason: 1}
    dialer.broker.auto = True


async def test_a_topic_that_was_not_permitted_is_refused_at_once_afterwards(
    bus: Client, dialer: ScriptedDialer
) -> None:
    dialer.broker.auto = False
    await bus.publish("secret", b"x")
    await settle()
    dialer.broker.refuse(1, 1, "not_permitted")
    await settle()
    with pytest.raises(NotPermitted) as caught:
        await bus.publish("secret", b"x")
    assert caught.value.topic == "secret"
    dialer.broker.auto = True


async def test_flush_times_out_by_name(bus: Client, dialer: ScriptedDialer) -> None:
    dialer.broker.auto = False
    await bus.publish("a", b"x")
    with pytest.raises(WaitTimeout):
        await bus.flush(timeout=0.01)
    dialer.broker.take()
    dialer.broker.auto = True


# --- receiving


async def test_entering_waits_for_the_broker_and_messages_carry_everything(bus: Client, dialer: ScriptedDialer) -> None:
    async with bus.subscribe("a/+") as messages:
        (frame,) = dialer.broker.of(frames.Subscribe)
        assert (frame.filter, frame.group, frame.overflow) == ("a/+", None, "drop_oldest")
        encoded = [message_with_headers(encode_headers({"k": "v"}), b"1"), message_with_headers(b"", b"2")]
        dialer.broker.deliver(frame.id, "a/b", encoded, flags=FLAG_HEADERS, reply_to=b"r")
        first, second = await messages.next(5), await messages.next(5)
    assert (first.topic, first.payload, first.headers) == ("a/b", b"1", {"k": "v"})
    assert (first.reply_to, first.publisher, first.id) == ("r", "alice", f"{NODE.hex()}-1-1-0")
    assert (second.payload, second.headers, second.id) == (b"2", {}, f"{NODE.hex()}-1-1-1")


async def test_a_cancelled_next_takes_no_message(bus: Client, dialer: ScriptedDialer) -> None:
    async with bus.subscribe("a") as messages:
        with pytest.raises(WaitTimeout):
            await messages.next(0.01)
        waiting = asyncio.create_task(messages.next())
        await settle()
        waiting.cancel()
        dialer.broker.deliver(1, "a", [b"1", b"2"])
        await settle()
        assert messages.pending == 2
        assert (await messages.next(5)).payload == b"1"
        assert [m.payload for m in await anext(messages.batches())] == [b"2"]


async def test_credit_returns_as_the_application_consumes(bus: Client, dialer: ScriptedDialer) -> None:
    async with bus.subscribe("a", max_pending=16) as messages:
        assert dialer.broker.of(frames.Subscribe)[0].window_messages == 8
        for number in range(8):
            dialer.broker.deliver(1, "a", [b"%d" % number])
        await settle()
        assert dialer.broker.of(frames.SubscriptionCredit) == []
        for _ in range(4):
            await messages.next(5)
        await settle()
        assert [frame.messages for frame in dialer.broker.of(frames.SubscriptionCredit)] == [4]


async def test_a_group_member_reports_credit_whenever_it_would_wait(bus: Client, dialer: ScriptedDialer) -> None:
    async with bus.subscribe("$share/workers/a") as messages:
        assert dialer.broker.of(frames.Subscribe)[0].group == "workers"
        dialer.broker.deliver(1, "a", [b"1"])
        assert (await messages.next(5)).payload == b"1"
        waiting = asyncio.create_task(messages.next())
        await settle()
        assert [frame.messages for frame in dialer.broker.of(frames.SubscriptionCredit)] == [1]
        waiting.cancel()


async def test_what_cannot_be_decoded_is_dropped_and_counted(bus: Client, dialer: ScriptedDialer) -> None:
    async with bus.subscribe("a") as messages:
        good = message_with_headers(b"", b"good")
        dialer.broker.deliver(1, "a", [b"\xff", good, b"\x01\x00\xc1x"], flags=FLAG_HEADERS)
        dialer.broker.deliver(1, "a", [good], flags=FLAG_HEADERS, dropped=5)
        assert [(await messages.next(5)).payload for _ in range(2)] == [b"good", b"good"]
        assert messages.dropped == 7
        assert messages.statistics().dropped_here == {"undecodable": 2}
        assert messages.statistics().received == 2


async def test_an_ended_subscription_gives_what_is_under_way_and_then_raises(
    bus: Client, dialer: ScriptedDialer
) -> None:
    async with bus.subscribe("a", overflow="disconnect") as messages:
        dialer.broker.close_subscription(1, "overflow", handed_over=1, dropped={"overflow": 4})
        await settle()
        dialer.broker.deliver(1, "a", [b"last"])
        assert (await messages.next(5)).payload == b"last"
        with pytest.raises(SubscriptionEnded) as caught:
            await messages.next(5)
        assert caught.value.reason == "overflow"
        assert messages.dropped == 4


async def test_a_filter_that_is_not_permitted_raises_on_entering(bus: Client, dialer: ScriptedDialer) -> None:
    dialer.broker.auto = False
    entering = asyncio.create_task(bus.subscribe("secret/#").__aenter__())
    await settle()
    dialer.broker.close_subscription(1, "not_permitted")
    with pytest.raises(NotPermitted):
        await asyncio.wait_for(entering, 5)
    dialer.broker.auto = True


async def test_leaving_ends_the_iteration_and_counts_what_was_not_read(bus: Client, dialer: ScriptedDialer) -> None:
    subscription = await bus.subscribe("a")
    dialer.broker.deliver(1, "a", [b"1", b"2"])
    await settle()
    await subscription.close()
    await subscription.close()
    assert [message async for message in subscription] == []
    with pytest.raises(ClientClosed):
        await subscription.next(1)
    statistics = subscription.statistics()
    assert (statistics.received, statistics.dropped_here) == (0, {"unsubscribed": 2})


# --- requests


async def _answer(dialer: ScriptedDialer, payload: bytes, count: int = 1) -> None:
    """Wait for requests and answer them all."""
    await until(lambda: len([body for body in dialer.broker.bodies if body.flags & FLAG_REQUEST]) == count)
    leg = dialer.broker.of(frames.Subscribe)[-1].id
    for body in dialer.broker.bodies:
        dialer.broker.deliver(leg, body.reply_to.decode(), [payload])


async def test_requests_get_their_replies_over_one_subscription(bus: Client, dialer: ScriptedDialer) -> None:
    async with asyncio.TaskGroup() as group:
        requests = [group.create_task(bus.request("add", b"%d" % number)) for number in range(3)]
        group.create_task(_answer(dialer, b"reply", 3))
    assert [request.result().payload for request in requests] == [b"reply"] * 3
    (subscribe,) = dialer.broker.of(frames.Subscribe)
    assert subscribe.filter == f"$quicbus/reply/{NODE.hex()}/{SESSION.hex()}/+"


async def test_no_responders_is_raised_at_once(bus: Client, dialer: ScriptedDialer) -> None:
    request = asyncio.create_task(bus.request("nobody", b""))
    await until(lambda: dialer.broker.bodies)
    dialer.broker.send(frames.NoResponder(number=1))
    with pytest.raises(NoResponders):
        await asyncio.wait_for(request, 5)


async def test_a_request_without_reply_times_out(bus: Client) -> None:
    with pytest.raises(RequestTimeout) as caught:
        await bus.request("slow", b"", timeout=0.01)
    assert isinstance(caught.value, TimeoutError)


async def test_a_request_fails_when_the_connection_is_lost(bus: Client, dialer: ScriptedDialer) -> None:
    request = asyncio.create_task(bus.request("slow", b""))
    await until(lambda: dialer.broker.bodies)
    dialer.pipe.break_off()
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(request, 5)


# --- reconnecting


async def test_a_lost_connection_is_made_again_with_its_subscriptions_and_a_gap(
    bus: Client, dialer: ScriptedDialer
) -> None:
    events = bus.events()
    async with bus.subscribe("a") as messages:
        dialer.broker.deliver(1, "a", [b"before"])
        await settle()
        dialer.pipe.break_off("gone")
        await until(lambda: len(dialer.brokers) == 2 and dialer.broker.of(frames.Subscribe))
        dialer.broker.deliver(1, "a", [b"after"])
        assert [(await messages.next(5)).payload for _ in range(2)] == [b"before", b"after"]
        kinds = [type(await anext(events)) for _ in range(4)]
        assert kinds == [quicbus.Disconnected, quicbus.Reconnecting, quicbus.Gap, quicbus.Connected]
        assert messages.statistics().gaps == 1
    assert bus.statistics().reconnects == 1


async def test_what_was_in_flight_is_possibly_lost_and_what_was_buffered_is_sent_later(
    bus: Client, dialer: ScriptedDialer
) -> None:
    dialer.broker.auto = False
    await bus.publish("a", b"in flight")
    await settle()
    dialer.pipe.break_off()
    await settle()
    await bus.publish("a", b"buffered")
    await bus.publish("a", b"expired", expires_in=1e-3)
    await asyncio.sleep(0.002)
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(bus.flush(), 10)
    assert dialer.broker.payloads() == [b"buffered"]
    statistics = bus.statistics()
    assert statistics.published == 3
    assert (statistics.accepted, statistics.possibly_lost, statistics.dropped_while_disconnected) == (1, 1, 1)


async def test_publishing_while_disconnected_waits_when_the_offline_buffer_is_full() -> None:
    dialer = ScriptedDialer({}, "nobody there")
    bus = await start(dialer, offline_buffer_size=1000)
    dialer.pipe.break_off()
    await settle()
    await bus.publish("a", bytes(900))
    with pytest.raises(WouldBlock):
        bus.publish_nowait("a", bytes(900))
    waiting = asyncio.create_task(bus.publish("a", bytes(900)))
    await settle()
    assert not waiting.done()
    dialer.plan = [{}]
    await asyncio.wait_for(waiting, 10)
    await bus.flush()
    assert bus.statistics().accepted == 2
    await bus.close()


async def test_a_refused_credential_later_ends_iterators_and_publishes() -> None:
    refusal = (int(CloseCode.CREDENTIAL_EXPIRED), "get a new one")
    dialer = ScriptedDialer({}, {"refuse": refusal})
    bus = await start(dialer)
    async with bus.subscribe("a") as messages:
        dialer.pipe.break_off()
        with pytest.raises(CredentialRefused, match="get a new one"):
            await asyncio.wait_for(messages.next(), 10)
    with pytest.raises(CredentialRefused):
        await bus.publish("a", b"")
    assert bus.status is quicbus.Status.REFUSED
    await bus.close()


async def test_a_broker_that_goes_away_is_told_that_all_was_sent(bus: Client, dialer: ScriptedDialer) -> None:
    await bus.publish("a", b"1")
    dialer.broker.send(frames.GoAway(reason="stopping", deadline_s=5))
    await settle()
    assert dialer.broker.of(frames.Drained) == [frames.Drained(batches=1)]
    await bus.publish("a", b"2")
    await settle()
    assert dialer.broker.payloads() == [b"1"]
    dialer.broker.connection.close(CloseCode.GOODBYE, "")
    await bus.flush()
    assert dialer.broker.payloads() == [b"2"]
    assert bus.statistics().accepted == 2


async def test_a_broker_that_breaks_the_protocol_is_left(bus: Client, dialer: ScriptedDialer) -> None:
    broken = dialer.broker
    broken.send_raw(b"\x01\x01\xc0")
    await until(lambda: broken.termination and len(dialer.brokers) == 2)
    assert broken.termination is not None
    assert broken.termination.code == CloseCode.PROTOCOL_VIOLATION


# --- connecting and closing


async def test_the_first_connect_raises_each_url_with_its_cause() -> None:
    dialer = ScriptedDialer("nobody there")
    with pytest.raises(ConnectFailed) as caught:
        await start(dialer, "quic://one", "quic://two:5", connect_timeout_s=0.05)
    assert caught.value.attempts == (("quic://one:4433", "nobody there"), ("quic://two:5", "nobody there"))
    assert dialer.is_closed


async def test_the_first_connect_raises_a_refused_credential_at_once() -> None:
    dialer = ScriptedDialer({"refuse": (int(CloseCode.CREDENTIAL_INVALID), "use another")})
    with pytest.raises(CredentialRefused) as caught:
        await start(dialer)
    assert (caught.value.code, str(caught.value)) == (CloseCode.CREDENTIAL_INVALID, "use another")


async def test_a_cause_is_not_forgotten_when_the_time_is_up_in_the_middle_of_the_next_attempt() -> None:
    dialer = ScriptedDialer("network is unreachable", {"silent": True})
    with pytest.raises(ConnectFailed) as caught:
        await start(dialer, connect_timeout_s=0.3, rng=random.Random(1))
    assert caught.value.attempts == (("quic://scripted:4433", "network is unreachable"),)
    assert len(dialer.dialed) == 2


@pytest.mark.parametrize("setting", ["connect_timeout_s", "stall_timeout_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_times_that_are_none_are_refused_at_once(setting: str, value: float) -> None:
    with pytest.raises(quicbus.InvalidSetting) as caught:
        quicbus.connect(**{setting: value})  # type: ignore[arg-type]  # one of several settings
    assert caught.value.name == setting


async def test_the_addresses_of_a_name_are_tried_in_turn() -> None:
    dialer = ScriptedDialer("refused", {})
    dialer.addresses["scripted"] = [("::1", 1), ("127.0.0.1", 1)]
    bus = await start(dialer)
    assert dialer.dialed == [("::1", 1), ("127.0.0.1", 1)]
    await bus.close()


async def test_the_second_address_wins_when_the_first_is_silent() -> None:
    dialer = ScriptedDialer({"silent": True}, {})
    dialer.addresses["scripted"] = [("::1", 1), ("127.0.0.1", 1)]
    bus = await start(dialer)
    assert bus.status is quicbus.Status.CONNECTED
    assert dialer.brokers[0].received == []
    await bus.close()


async def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    dialer = ScriptedDialer({"silent": True})
    connecting = asyncio.create_task(start(dialer))
    await settle()
    connecting.cancel()
    await asyncio.wait((connecting,))
    assert dialer.is_closed
    assert dialer.pipe.dialer.is_closed


async def test_closing_says_goodbye_after_what_was_published_and_every_later_call_raises(
    dialer: ScriptedDialer,
) -> None:
    bus = await start(dialer)
    messages = await bus.subscribe("a")
    await bus.publish("a", b"last")
    await bus.close()
    await bus.close()
    assert dialer.broker.payloads() == [b"last"]
    assert dialer.broker.termination is not None
    assert dialer.broker.termination.code == CloseCode.GOODBYE
    assert bus.statistics().accepted == 1
    for call in (bus.publish("a", b""), bus.request("a", b""), messages.next(), bus.ping()):
        with pytest.raises(ClientClosed):
            await call
    with pytest.raises(ClientClosed):
        bus.subscribe("a")
    assert isinstance([event async for event in bus.events()], list)


# --- handlers


async def test_a_handler_that_raises_is_reported_and_goes_on(bus: Client, dialer: ScriptedDialer) -> None:
    seen: list[bytes] = []
    done = asyncio.Event()
    events = bus.events()

    @bus.on("orders/+", concurrency=2)
    async def handle(message: quicbus.Message) -> None:
        seen.append(message.payload)
        if message.payload == b"bad":
            raise ValueError("bad order")
        done.set()

    await bus.wait_handlers()
    dialer.broker.deliver(1, "orders/1", [b"bad", b"good"])
    await asyncio.wait_for(done.wait(), 5)
    assert sorted(seen) == [b"bad", b"good"]
    event = await anext(events)
    assert isinstance(event, quicbus.HandlerFailed)
    assert (event.topic, str(event.error)) == ("orders/1", "bad order")


async def test_closing_lets_a_running_handler_end(dialer: ScriptedDialer) -> None:
    bus = await start(dialer)
    began, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @bus.on("a")
    async def handle(message: quicbus.Message) -> None:
        began.set()
        await may_end.wait()
        ended.set()

    await bus.wait_handlers()
    dialer.broker.deliver(1, "a", [b"x"])
    await began.wait()
    closing = asyncio.create_task(bus.close())
    await settle()
    may_end.set()
    await closing
    assert ended.is_set()


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("max_subscriptions", 2), ("max_filters_size", 4), ("max_pending", 9), ("max_pending_size", 9)],
)
async def test_a_subscription_over_a_limit_of_the_broker_is_refused_before_it_is_sent(limit: str, wanted: int) -> None:
    dialer = ScriptedDialer({"limits_": {limit: wanted - 1}})
    async with await start(dialer) as bus, bus.subscribe("one", max_pending=5, max_pending_bytes=5):
        with pytest.raises(quicbus.LimitExceeded) as caught:
            await bus.subscribe("f", max_pending=9, max_pending_bytes=9)
        assert (caught.value.limit, caught.value.current, caught.value.allowed) == (limit, wanted, wanted - 1)
        assert len(dialer.broker.of(frames.Subscribe)) == 1
    assert bus._link._filters_size == 0


async def test_log_lines_name_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "quicbus.client"):
        async with await start(ScriptedDialer()):
            pass
    assert {record.__dict__["peer"] for record in caplog.records} == {f"{NODE.hex()}@127.0.0.1:4433"}


async def test_a_subscription_at_a_single_broker_is_spread_once_it_is_confirmed() -> None:
    dialer = ScriptedDialer({"auto": False})
    connecting = asyncio.create_task(start(dialer))
    await until(lambda: dialer.brokers)
    dialer.broker.accept()
    async with await connecting as bus:
        messages = bus.subscribe("a")
        with pytest.raises(WaitTimeout):
            await messages.wait_spread(0.01)
        dialer.broker.send(frames.Subscribed(id=1))
        dialer.broker.auto = True
        await messages.wait_spread(5)
