"""The client's connection against a scripted broker: no network, no time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.exceptions import ClientClosed, ConnectFailed, ConnectionLost, CredentialRefused, WouldBlock
from quicbus.wire import frames
from quicbus.wire.close_codes import CloseCode
from tests.client.scripted_broker import NODE, ScriptedDialer, settle, start
from tests.waiting import eventually

if TYPE_CHECKING:
    from quicbus.client.api import Client


# --- reconnecting


async def test_a_lost_connection_is_made_again_with_its_subscriptions_and_a_gap(
    bus: Client, dialer: ScriptedDialer
) -> None:
    events = bus.events()
    async with bus.subscribe("a") as messages:
        dialer.broker.deliver(1, "a", [b"before"])
        await settle()
        dialer.pipe.break_off("gone")
        await eventually(lambda: len(dialer.brokers) == 2 and dialer.broker.of(frames.Subscribe))
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
    expired_at = time.monotonic() + 2e-3
    await eventually(lambda: time.monotonic() > expired_at)
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
    await eventually(lambda: broken.termination and len(dialer.brokers) == 2)
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


async def test_log_lines_name_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "quicbus.client"):
        async with await start(ScriptedDialer()):
            pass
    assert {record.__dict__["peer"] for record in caplog.records} == {f"{NODE.hex()}@127.0.0.1:4433"}
