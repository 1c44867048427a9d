"""Silent brokers, dialing beside, fail-over: against scripted brokers, with short time-outs."""

from __future__ import annotations

import asyncio

import pytest

import quicbus
from quicbus.wire import frames
from quicbus.wire.close_codes import CloseCode
from tests.client.scripted_broker import ScriptedDialer, settle, silence, start
from tests.waiting import eventually

STALL_S = 0.4


async def test_a_silent_broker_is_lost_in_time_and_the_next_one_takes_over() -> None:
    dialer = ScriptedDialer({}, {"boot": 2})
    bus = await start(dialer, stall_timeout_s=STALL_S)
    async with bus.subscribe("a") as messages:
        dialer.pipe.silent = True
        await eventually(lambda: len(dialer.brokers) == 2 and dialer.broker.of(frames.Subscribe))
        dialer.broker.deliver(1, "a", [b"after"])
        assert (await messages.next(5)).payload == b"after"
    await bus.close()


async def test_a_silent_broker_is_given_up_though_nobody_else_answers() -> None:
    dialer = ScriptedDialer({}, "nobody there")
    bus = await start(dialer, stall_timeout_s=STALL_S)
    events = bus.events()
    dialer.pipe.silent = True
    event = await asyncio.wait_for(_next(events, quicbus.Disconnected), 10)
    assert isinstance(event, quicbus.Disconnected)
    assert (event.reason, event.code) == (f"no sign of life for {STALL_S:g} s", None)
    assert bus.status is quicbus.Status.RECONNECTING
    await bus.close()


async def test_an_old_connection_that_answers_again_is_kept() -> None:
    dialer = ScriptedDialer({}, {"silent": True})
    bus = await start(dialer, stall_timeout_s=2.0)
    first = dialer.pipe
    first.silent = True
    await eventually(lambda: len(dialer.pipes) == 2)
    first.silent = False
    first.dialer.dirty = True
    await eventually(lambda: dialer.pipes[1].dialer.is_closed)
    assert not first.dialer.is_closed
    assert bus.statistics().reconnects == 0
    await bus.close()


async def test_a_client_that_closes_while_it_dials_beside_leaves_no_dialing_behind() -> None:
    dialer = ScriptedDialer({}, {"silent": True})
    bus = await start(dialer, stall_timeout_s=2.0)
    dialer.pipe.silent = True
    await eventually(lambda: len(dialer.pipes) == 2)
    await bus.close(timeout=0)
    assert dialer.pipes[1].dialer.is_closed
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("quicbus-")]


async def test_a_welcome_with_another_boot_ends_the_old_connection() -> None:
    dialer = ScriptedDialer({}, {"boot": 2, "auto": False})
    bus = await start(dialer, stall_timeout_s=2.0)
    first = dialer.pipe
    first.silent = True
    await eventually(lambda: len(dialer.pipes) == 2 and first.dialer.is_closed)
    assert bus.status is quicbus.Status.RECONNECTING
    dialer.broker.accept()
    await eventually(lambda: bus.status is quicbus.Status.CONNECTED)
    await bus.close(timeout=0)


async def test_a_dead_broker_is_left_for_one_that_it_named() -> None:
    dialer = ScriptedDialer({"brokers": ["quic://other:5", "nonsense"]}, "gone", {})
    bus = await start(dialer)
    dialer.pipe.break_off()
    await eventually(lambda: bus.status is quicbus.Status.CONNECTED and len(dialer.brokers) == 2)
    assert dialer.dialed == [("scripted", 4433), ("scripted", 4433), ("other", 5)]
    await bus.close()


async def test_a_session_whose_credential_is_refused_is_not_made_again() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    dialer.broker.connection.close(CloseCode.CREDENTIAL_INVALID, "no longer a credential of this mesh; get a new one")
    await eventually(lambda: bus.status is quicbus.Status.REFUSED)
    for call in (bus.flush(), bus.publish("a", b""), bus.request("a"), bus.ping()):
        with pytest.raises(quicbus.CredentialRefused, match="get a new one"):
            await call
    assert len(dialer.brokers) == 1
    await bus.close()


async def test_a_session_whose_certificate_ended_is_made_once_more_and_then_given_up() -> None:
    refusal = (int(CloseCode.CREDENTIAL_EXPIRED), "the certificate ended; get a new one")
    dialer = ScriptedDialer({}, {"refuse": refusal})
    bus = await start(dialer)
    dialer.broker.connection.close(*refusal)
    await eventually(lambda: bus.status is quicbus.Status.REFUSED)
    with pytest.raises(quicbus.CredentialRefused, match="get a new one"):
        await bus.publish("a", b"")
    assert len(dialer.brokers) == 2
    await bus.close()


async def test_a_listener_that_the_transport_refuses_is_told_at_once_when_there_is_no_other() -> None:
    dialer = ScriptedDialer({"auto": False})
    connecting = asyncio.create_task(start(dialer, connect_timeout_s=30.0))
    await eventually(lambda: dialer.pipes)
    dialer.pipe.dialer.close(CloseCode.CREDENTIAL_OTHER_MESH, "the listener is of another mesh")
    with pytest.raises(quicbus.ConnectFailed, match="the listener is of another mesh"):
        await asyncio.wait_for(connecting, 5)
    assert len(dialer.pipes) == 1


async def test_a_broker_that_went_away_without_closing_is_left_after_its_deadline() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    first = dialer.broker
    first.send(frames.GoAway(reason="stopping", deadline_s=-0.9))
    await eventually(lambda: len(dialer.brokers) == 2 and first.termination)
    await bus.publish("a", b"x")
    await bus.flush()
    assert dialer.broker.payloads() == [b"x"]
    await bus.close()


async def test_a_subscription_that_is_left_while_the_connection_is_lost_is_not_made_again() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    messages = await bus.subscribe("a")
    dialer.broker.auto = False
    closing = asyncio.create_task(messages.close())
    await settle()
    dialer.pipe.break_off()
    await asyncio.wait_for(closing, 5)
    await eventually(lambda: len(dialer.brokers) == 2 and bus.status is quicbus.Status.CONNECTED)
    await bus.ping(5)
    assert dialer.broker.of(frames.Subscribe) == []
    await bus.close()


async def test_of_two_accepted_sessions_one_is_left() -> None:
    dialer = ScriptedDialer({"silent": True}, {})
    dialer.addresses["scripted"] = [("::1", 1), ("127.0.0.1", 1)]
    connecting = asyncio.create_task(start(dialer))
    await eventually(lambda: len(dialer.pipes) == 2)
    bus = await connecting
    await settle()
    assert [pipe.dialer.is_closed for pipe in dialer.pipes] == [True, False]
    await bus.close()


async def test_a_connection_that_was_quiet_long_before_the_watch_began_is_not_lost_at_once() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer, stall_timeout_s=30.0)
    silence(dialer.pipe.dialer)
    await asyncio.wait((asyncio.create_task(bus.ping(5)),))
    assert bus.status is quicbus.Status.CONNECTED
    await bus.close()


async def _next(events: object, kind: type[quicbus.Event]) -> quicbus.Event:
    async for event in events:  # type: ignore[attr-defined]
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} came")
