"""`bus.peers()`, `wait_spread()` and the brokers that are named later, against scripted brokers."""

from __future__ import annotations

import asyncio

import pytest

import quicbus
from quicbus.client import queries
from quicbus.wire import frames
from tests.client.scripted_broker import ALONE, NODE, ScriptedDialer, settle, start
from tests.waiting import eventually

OSAKA = frames.PeerEntry(
    node="0b" * 16,
    name="osaka",
    url="quic://osaka:4433",
    state="suspect",
    rtt_ms=1.5,
    linked=True,
    mode="server",
    boot=3,
    addresses=("osaka:4433", "10.0.0.2:4433"),
)


async def test_peers_are_those_that_the_broker_names() -> None:
    bus = await start(ScriptedDialer())
    (alone,) = await bus.peers()
    assert (alone.node, alone.name, alone.state, alone.is_self) == (NODE.hex(), "scripted", "alive", True)
    await bus.close()


async def test_an_answer_in_several_frames_is_one_list() -> None:
    dialer = ScriptedDialer({"auto": False})
    starting = asyncio.create_task(start(dialer))
    await eventually(lambda: dialer.brokers and dialer.broker.of(frames.Hello))
    dialer.broker.accept()
    bus = await starting
    asking = asyncio.create_task(bus.peers())
    await eventually(lambda: dialer.broker.of(frames.PeersWanted))
    (wanted,) = dialer.broker.of(frames.PeersWanted)
    dialer.broker.send(frames.Peers(id=wanted.id, peers=(ALONE,), more=True))
    dialer.broker.send(frames.Peers(id=wanted.id + 1, peers=(ALONE,)))
    dialer.broker.send(frames.Peers(id=wanted.id, peers=(OSAKA,)))
    peers = await asking
    assert [peer.name for peer in peers] == ["scripted", "osaka"]
    assert peers[1] == quicbus.Peer(
        node="0b" * 16,
        name="osaka",
        url="quic://osaka:4433",
        state="suspect",
        rtt_ms=1.5,
        linked=True,
        mode="server",
        boot=3,
        addresses=("osaka:4433", "10.0.0.2:4433"),
        is_self=False,
    )
    await bus.close(0)


async def test_more_peers_than_any_mesh_has_are_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_PEERS", 1)
    dialer = ScriptedDialer()
    bus = await start(dialer)
    first = dialer.broker
    first.auto = False
    asking = asyncio.create_task(bus.peers())
    await eventually(lambda: first.of(frames.PeersWanted))
    first.send(frames.Peers(id=first.of(frames.PeersWanted)[0].id, peers=(ALONE, OSAKA), more=True))
    await asking
    assert first.termination is not None
    assert first.termination.reason == "Peers: more than 1 nodes"
    await bus.close()


async def test_peers_of_a_silent_broker_time_out() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    dialer.broker.auto = False
    with pytest.raises(quicbus.WaitTimeout, match="peers"):
        await bus.peers(0.01)
    dialer.broker.send(frames.Peers(id=dialer.broker.of(frames.PeersWanted)[0].id, peers=(ALONE,)))
    await settle()
    assert bus.status is quicbus.Status.CONNECTED, "an answer that nobody waits for is no violation"
    await bus.close(0)


async def test_peers_asked_of_a_broker_that_is_lost_are_told_by_the_next_one() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    dialer.broker.auto = False
    asking = asyncio.create_task(bus.peers())
    await eventually(lambda: dialer.broker.of(frames.PeersWanted))
    dialer.broker.connection.close(0x01, "stopped")
    assert [peer.name for peer in await asking] == ["scripted"]
    assert len(dialer.brokers) == 2
    await bus.close()


async def test_a_subscription_has_spread_once_the_broker_says_so() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    async with bus.subscribe("a") as subscription:
        dialer.broker.auto = False
        waiting = asyncio.create_task(subscription.wait_spread())
        await eventually(lambda: dialer.broker.of(frames.SpreadWanted))
        (wanted,) = dialer.broker.of(frames.SpreadWanted)
        assert wanted.subscription == dialer.broker.of(frames.Subscribe)[0].id
        await settle()
        assert not waiting.done()
        dialer.broker.send(frames.Spread(id=wanted.id, nodes=2))
        assert await waiting == 2
        dialer.broker.auto = True
    await bus.close()


async def test_spread_is_asked_again_of_the_next_broker() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    async with bus.subscribe("a") as subscription:
        dialer.broker.auto = False
        waiting = asyncio.create_task(subscription.wait_spread())
        await eventually(lambda: dialer.broker.of(frames.SpreadWanted))
        dialer.broker.connection.close(0x01, "stopped")
        assert await waiting == 0
        assert [len(broker.of(frames.SpreadWanted)) for broker in dialer.brokers] == [1, 1]
        assert [type(frame) for frame in dialer.broker.received if not isinstance(frame, frames.Hello)][:2] == [
            frames.Subscribe,
            frames.SpreadWanted,
        ]
    await bus.close()


async def test_waiting_for_spread_times_out_and_ends_with_the_subscription() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    subscription = await bus.subscribe("a")
    dialer.broker.auto = False
    with pytest.raises(quicbus.WaitTimeout, match="spread of the subscription to 'a'"):
        await subscription.wait_spread(0.01)
    waiting = asyncio.create_task(subscription.wait_spread())
    await settle()
    dialer.broker.auto = True
    await subscription.close()
    with pytest.raises(quicbus.ClientClosed):
        await waiting
    await bus.close()


async def test_waiting_for_spread_raises_what_ended_the_subscription() -> None:
    dialer = ScriptedDialer()
    bus = await start(dialer)
    subscription = await bus.subscribe("a", overflow="disconnect")
    dialer.broker.auto = False
    waiting = asyncio.create_task(subscription.wait_spread())
    await eventually(lambda: dialer.broker.of(frames.SpreadWanted))
    dialer.broker.close_subscription(dialer.broker.of(frames.Subscribe)[0].id, "overflow")
    with pytest.raises(quicbus.SubscriptionEnded):
        await waiting
    await bus.close(0)


async def test_brokers_that_are_named_later_are_dialed_when_the_first_one_is_gone() -> None:
    dialer = ScriptedDialer({}, "gone", {})
    bus = await start(dialer, "quic://first:4")
    dialer.broker.send(frames.Brokers(brokers=("nonsense", "quic://other:5")))
    await settle()
    dialer.broker.connection.close(0x01, "stopped")
    await eventually(lambda: len(dialer.brokers) == 2 and bus.status is quicbus.Status.CONNECTED)
    assert dialer.dialed == [("first", 4), ("first", 4), ("other", 5)]
    await bus.close()


async def test_brokers_before_accepted_are_a_violation() -> None:
    dialer = ScriptedDialer({"auto": False})
    starting = asyncio.create_task(start(dialer, connect_timeout_s=1.0))
    await eventually(lambda: dialer.brokers and dialer.broker.of(frames.Hello))
    dialer.broker.send(frames.Brokers(brokers=()))
    await eventually(lambda: dialer.broker.termination)
    starting.cancel()
    await asyncio.wait((starting,))
    assert dialer.broker.termination is not None
    assert dialer.broker.termination.reason.endswith("Brokers before Accepted")
