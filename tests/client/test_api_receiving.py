"""Subscriptions, handlers and requests against a scripted broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.exceptions import (
    ClientClosed,
    ConnectionLost,
    NoResponders,
    NotPermitted,
    RequestTimeout,
    SubscriptionEnded,
    WaitTimeout,
)
from quicbus.wire import frames
from quicbus.wire.batch import FLAG_HEADERS, FLAG_REQUEST, encode_headers, message_with_headers
from tests.client.scripted_broker import NODE, SESSION, ScriptedDialer, settle, start
from tests.waiting import eventually

if TYPE_CHECKING:
    from quicbus.client.api import Client


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
    await eventually(lambda: len([body for body in dialer.broker.bodies if body.flags & FLAG_REQUEST]) == count)
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
    await eventually(lambda: dialer.broker.bodies)
    dialer.broker.send(frames.NoResponder(number=1))
    with pytest.raises(NoResponders):
        await asyncio.wait_for(request, 5)


async def test_a_request_without_reply_times_out(bus: Client) -> None:
    with pytest.raises(RequestTimeout) as caught:
        await bus.request("slow", b"", timeout=0.01)
    assert isinstance(caught.value, TimeoutError)


async def test_a_request_fails_when_the_connection_is_lost(bus: Client, dialer: ScriptedDialer) -> None:
    request = asyncio.create_task(bus.request("slow", b""))
    await eventually(lambda: dialer.broker.bodies)
    dialer.pipe.break_off()
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(request, 5)


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


async def test_a_subscription_at_a_single_broker_is_spread_once_it_is_confirmed() -> None:
    dialer = ScriptedDialer({"auto": False})
    connecting = asyncio.create_task(start(dialer))
    await eventually(lambda: dialer.brokers)
    dialer.broker.accept()
    async with await connecting as bus:
        messages = bus.subscribe("a")
        with pytest.raises(WaitTimeout):
            await messages.wait_spread(0.01)
        dialer.broker.send(frames.Subscribed(id=1))
        dialer.broker.auto = True
        await messages.wait_spread(5)
