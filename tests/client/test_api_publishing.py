"""Publishing and flushing against a scripted broker: batches, credit, refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.client.events import MessagesRefused
from quicbus.exceptions import (
    InvalidTopic,
    LimitExceeded,
    MessageTooLarge,
    NotPermitted,
    PublishRefused,
    WaitTimeout,
    WouldBlock,
)
from quicbus.wire import frames
from quicbus.wire.batch import FLAG_HEADERS, encode_headers, message_with_headers
from tests.client.scripted_broker import ScriptedDialer, settle, start

if TYPE_CHECKING:
    from quicbus.client.api import Client


# --- publishing


async def test_messages_of_one_turn_and_topic_leave_as_one_batch(bus: Client, dialer: ScriptedDialer) -> None:
    for number in range(3):
        await bus.publish("a", b"%d" % number)
    await bus.publish("b", "text")
    await settle()
    assert [(body.topic, body.count) for body in dialer.broker.bodies] == [(b"a", 3), (b"b", 1)]
    assert dialer.broker.payloads() == [b"0", b"1", b"2", b"text"]


async def publish_one_a_turn(bus: Client, dialer: ScriptedDialer, turns: int) -> None:
    for _ in range(turns):
        await bus.publish("a", b"alone")
        await settle()
    assert [body.count for body in dialer.broker.bodies[-turns:]] == [1] * turns


async def test_a_message_leaves_at_once_where_the_turns_before_had_one_message_each(
    bus: Client, dialer: ScriptedDialer
) -> None:
    await publish_one_a_turn(bus, dialer, limits.LONE_TURNS - 1)
    await bus.publish("a", b"the last that waits for the end of its turn")
    assert len(dialer.broker.bodies) == limits.LONE_TURNS - 1
    await settle()

    await bus.publish("a", b"short way")
    assert dialer.broker.payloads()[-1] == b"short way"
    await settle()
    await bus.publish("a", b"long way", headers={"unit": "C"})
    assert len(dialer.broker.bodies) == limits.LONE_TURNS + 2
    await settle()
    bus.publish_nowait("b", b"another topic")
    assert dialer.broker.payloads()[-1] == b"another topic"
    await bus.flush()
    assert bus.statistics().accepted == limits.LONE_TURNS + 3


async def test_messages_of_one_turn_go_together_again_after_one_that_left_alone(
    bus: Client, dialer: ScriptedDialer
) -> None:
    await publish_one_a_turn(bus, dialer, limits.LONE_TURNS)
    for turn in range(3):
        for number in range(4):
            await bus.publish("a", b"%d %d" % (turn, number))
        await settle()

    assert [body.count for body in dialer.broker.bodies[limits.LONE_TURNS :]] == [1, 3, 4, 4]
    payloads = [b"%d %d" % (turn, number) for turn in range(3) for number in range(4)]
    assert dialer.broker.payloads()[limits.LONE_TURNS :] == payloads


async def test_two_messages_a_turn_never_leave_one_by_one(bus: Client, dialer: ScriptedDialer) -> None:
    for _ in range(2 * limits.LONE_TURNS):
        await bus.publish("a", b"1")
        await bus.publish("a", b"2")
        await settle()
    assert {body.count for body in dialer.broker.bodies} == {2}


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


@pytest.mark.interpreted
@pytest.mark.parametrize(("turn_s", "batches"), [(0.0, 3), (3600.0, 1)])
async def test_a_publisher_that_never_waits_gives_the_loop_turns(
    bus: Client, dialer: ScriptedDialer, monkeypatch: pytest.MonkeyPatch, turn_s: float, batches: int
) -> None:
    monkeypatch.setattr(limits, "PUBLISH_TURN_S", turn_s)
    await bus.publish("a", b"x")
    await settle()
    dialer.broker.bodies.clear()
    for _ in range(4 * limits.YIELD_AFTER_MESSAGES):
        await bus.publish("a", b"x")
    assert len(dialer.broker.bodies) == batches


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


async def test_what_is_refused_for_its_rate_tells_event_and_flush_when_to_try_again(
    bus: Client, dialer: ScriptedDialer
) -> None:
    dialer.broker.auto = False
    async with bus.events() as events:
        await bus.publish("a", b"x")
        await settle()
        dialer.broker.send(
            frames.Refused(
                number=1, messages=1, reason="rate", retry_after_s=1.5, limit="max_publish_rate", current=9, allowed=8
            )
        )
        dialer.broker.send(frames.Taken(accepted=0, refused=1, credit=1 << 20))
        event = await asyncio.wait_for(anext(events), 5)
    assert event == MessagesRefused("a", 1, "rate", "", 1.5)
    with pytest.raises(
        LimitExceeded, match=r"max_publish_rate: 9 is over the limit of 8; try again in 1\.5 s"
    ) as raised:
        await bus.flush()
    assert raised.value.retry_after_s == 1.5
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
