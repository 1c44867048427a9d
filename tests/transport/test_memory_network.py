"""The network in memory: latency, loss, faults as `with` blocks, and what loss on one stream costs the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from quicbus.transport.counters import Counters
from quicbus.transport.memory_network import MemoryNetwork
from tests.transport.pump import every_pairing
from tests.transport.recorder import Recorder, Recorders, dial, opened
from tests.transport.test_udp_socket import Inbox
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.memory_network import MemorySocket


def has_received(size: int) -> Callable[[Recorder], bool]:
    return lambda session: len(session.all_received) >= size


async def pair(network: MemoryNetwork) -> tuple[MemorySocket, Inbox, MemorySocket, Inbox]:
    one, other = Inbox(), Inbox()
    return (
        await network.open(("10.0.0.1", 0), one, Counters()),
        one,
        await network.open(("10.0.0.2", 0), other, Counters()),
        other,
    )


async def settled(network: MemoryNetwork) -> None:
    await eventually(lambda: not network._under_way)


async def test_datagrams_arrive_in_order_and_in_one_turn() -> None:
    network = MemoryNetwork()
    one, _, other, inbox = await pair(network)
    one.send(one.path_to(other.address), [b"a", b"b", b"c"])
    assert inbox.datagrams == [], "never before the sender's turn ends"
    await settled(network)
    assert (inbox.datagrams, inbox.turns) == ([b"a", b"b", b"c"], 1)
    assert {path.address for path in inbox.paths} == {one.address}


async def test_latency_holds_datagrams_back() -> None:
    network = MemoryNetwork(latency_s=0.05)
    one, _, other, inbox = await pair(network)
    loop = asyncio.get_running_loop()
    started = loop.time()
    one.send(one.path_to(other.address), [b"a"])
    await settled(network)
    assert inbox.datagrams == [b"a"]
    assert loop.time() - started >= 0.05


async def test_the_same_seed_loses_the_same_datagrams() -> None:
    kept = []
    for _ in range(2):
        network = MemoryNetwork(seed=3, loss=0.3)
        one, _, other, inbox = await pair(network)
        one.send(one.path_to(other.address), [bytes((number,)) for number in range(100)])
        await settled(network)
        kept.append(inbox.datagrams)
    assert kept[0] == kept[1]
    assert 50 < len(kept[0]) < 90


async def test_jitter_reorders() -> None:
    network = MemoryNetwork(seed=1, jitter_s=0.01)
    one, _, other, inbox = await pair(network)
    sent = [bytes((number,)) for number in range(20)]
    one.send(one.path_to(other.address), sent)
    await settled(network)
    assert inbox.datagrams != sent
    assert sorted(inbox.datagrams) == sent


async def test_faults_last_as_long_as_their_block_and_concern_their_link() -> None:
    network = MemoryNetwork()
    one, heard, other, inbox = await pair(network)
    third = await network.open(("10.0.0.3", 0), Inbox(), Counters())
    with network.one_way(one.address, other.address).dropping():
        one.send(one.path_to(other.address), [b"lost"])
        other.send(other.path_to(one.address), [b"back"])
        third.send(third.path_to(other.address), [b"third"])
        await settled(network)
    one.send(one.path_to(other.address), [b"after"])
    await settled(network)
    assert inbox.datagrams == [b"third", b"after"]
    assert heard.datagrams == [b"back"]
    with network.link(one.address, other.address).dropping():
        one.send(one.path_to(other.address), [b"lost"])
        other.send(other.path_to(one.address), [b"lost"])
        await settled(network)
    assert len(inbox.datagrams) + len(heard.datagrams) == 3
    assert network.dropped == 3


async def test_some_datagrams_can_be_picked() -> None:
    network = MemoryNetwork()
    one, _, other, inbox = await pair(network)
    link = network.link(one.address, other.address)
    with link.dropping(lambda datagram: datagram.startswith(b"x"), count=2):
        one.send(one.path_to(other.address), [b"x1", b"y1", b"x2", b"x3"])
        await settled(network)
    with link.losing(1.0):
        one.send(one.path_to(other.address), [b"z"])
    with link.delayed(0.02):
        one.send(one.path_to(other.address), [b"slow"])
    one.send(one.path_to(other.address), [b"fast"])
    await settled(network)
    assert inbox.datagrams == [b"y1", b"x3", b"fast", b"slow"]


async def test_an_address_that_nobody_has_is_unreachable() -> None:
    network = MemoryNetwork()
    one, heard, other, _ = await pair(network)
    gone = other.address
    other.close()
    other.close()
    one.send(one.path_to(gone), [b"anybody?"])
    await settled(network)
    assert heard.unreachables == [(gone, "connection refused")]
    with pytest.raises(OSError, match="in use"):
        await network.open(one.address, Inbox(), Counters())


async def test_a_socket_that_moved_is_reached_at_its_new_address_only() -> None:
    network = MemoryNetwork()
    one, heard, other, inbox = await pair(network)
    old = one.address
    new = network.move(old)
    one.send(one.path_to(other.address), [b"a"])
    other.send(other.path_to(old), [b"lost"])
    other.send(other.path_to(new), [b"b"])
    await settled(network)
    assert inbox.paths[0].address == new
    assert heard.datagrams == [b"b"]


@every_pairing
async def test_a_lossy_link_loses_nothing_of_a_stream(dialer: str, listener: str) -> None:
    network = MemoryNetwork(seed=5, latency_s=0.001, jitter_s=0.001, loss=0.05, is_near=False)
    sessions = Recorders(echo=True)
    data = bytes(range(256)) * 800
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        session.connection.send(session.connection.open_stream(), data, end=True)
        await session.wait(has_received(len(data)))
        assert session.all_received == data
        assert network.dropped > 0


@every_pairing
async def test_while_one_lane_lost_a_datagram_the_others_go_on(dialer: str, listener: str) -> None:
    network = MemoryNetwork(latency_s=0.1)
    sessions = Recorders()
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        accepted = await sessions.first()
        await accepted.wait_connected()
        lossy, *others = [session.connection.open_stream() for _ in range(4)]
        with network.one_way(there.address, here.address).dropping(lambda datagram: len(datagram) > 200, count=1):
            session.connection.send(lossy, b"1" * 500)
            await eventually(lambda: network.dropped == 1)
        session.connection.send(lossy, b"2" * 500)
        for stream in others:
            session.connection.send(stream, b"3" * 500)
        await accepted.wait(lambda me: all(len(me.received.get(stream, b"")) == 500 for stream in others))
        assert lossy not in accepted.received, "its first bytes are still missing"
        await accepted.wait(lambda me: len(me.received.get(lossy, b"")) == 1000)
        assert bytes(accepted.received[lossy]) == b"1" * 500 + b"2" * 500
