"""Peers that change address: the endpoint follows each change, and nobody else can divert a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from quicbus.transport.memory_network import MemoryNetwork
from quicbus.transport.network import source_address
from tests.transport.pump import encrypted_pairing, every_pairing
from tests.transport.recorder import Recorders, dial, opened
from tests.transport.relay import RawSocket, Relay
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Address
    from tests.transport.recorder import Recorder

CHANGES = 20


async def exchange(session: Recorder, stream: int, number: int) -> None:
    """Send a few bytes and wait for their echo."""
    session.connection.send(stream, number.to_bytes(4, "big"))
    await session.wait(lambda me: len(me.all_received) >= 4 * (number + 1) or me.termination)
    assert session.termination is None
    assert session.all_received[-4:] == number.to_bytes(4, "big")


def seen_at(address: Address) -> Callable[[Recorder], bool]:
    return lambda session: session.connection.peer_address == address


def has_moved(times: int) -> Callable[[Recorder], bool]:
    return lambda session: session.connection.statistics().address_changes == times


def has_received(size: int) -> Callable[[Recorder], bool]:
    return lambda session: len(session.all_received) == size


@encrypted_pairing
async def test_a_listener_follows_twenty_changes_of_address(dialer: str, listener: str) -> None:
    sessions = Recorders(echo=True)
    async with opened(listener, sessions) as here, opened(dialer) as there:
        with Relay.to(here.address) as relay:
            session = dial(there, relay.address)
            await session.wait_connected()
            stream = session.connection.open_stream()
            await exchange(session, stream, 0)
            accepted = await sessions.first()
            for number in range(1, CHANGES + 1):
                address = relay.move()
                await exchange(session, stream, number)
                await accepted.wait_for(seen_at(address))
            assert accepted.connection.statistics().address_changes == CHANGES
            assert here.statistics().address_changes == CHANGES


@every_pairing
async def test_a_listener_follows_when_only_the_listener_writes(dialer: str, listener: str) -> None:
    # The dialer has nothing to say but acknowledgements, and its PINGs when it hears nothing.
    network = MemoryNetwork(latency_s=0.002)
    sessions = Recorders()
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        accepted = await sessions.first()
        await accepted.wait_connected()
        stream = accepted.connection.open_stream()
        for number in range(1, 6):
            network.move(accepted.connection.peer_address)
            session.connection.ping()
            await accepted.wait_for(has_moved(number))
            accepted.connection.send(stream, bytes(100_000))
            await session.wait(has_received(number * 100_000))


@pytest.mark.parametrize("listener", ["aioquic", "qh3"])
async def test_a_copied_datagram_does_not_divert_a_connection(listener: str) -> None:
    sessions = Recorders(echo=True)
    async with opened(listener, sessions) as here, opened("qh3") as there:
        with Relay.to(here.address) as relay, RawSocket.opened() as stranger:
            session = dial(there, relay.address)
            await session.wait_connected()
            stream = session.connection.open_stream()
            await exchange(session, stream, 0)
            accepted = await sessions.first()
            address = accepted.connection.peer_address
            copied = [datagram for datagram in relay.seen if not datagram[0] & 0x80][-1]
            for number in range(1, 20):
                stranger.send(copied, here.address)
                stranger.send(copied[:9] + bytes(30), here.address)
                await exchange(session, stream, number)
            assert accepted.connection.peer_address == address
            assert accepted.connection.statistics().address_changes == 0
            assert stranger.received_size <= 3 * stranger.sent_size


async def test_a_dialer_ignores_what_comes_from_another_address_than_it_dialed() -> None:
    sessions = Recorders(echo=True)
    async with opened("qh3", sessions) as here, opened("qh3") as there:
        with Relay.to(here.address) as relay, RawSocket.opened() as stranger:
            session = dial(there, relay.address)
            await session.wait_connected()
            stream = session.connection.open_stream()
            await exchange(session, stream, 0)
            accepted = await sessions.first()
            first = b"\x40" + session.connection.engine.encode() * 20
            stranger.send(first, ("127.0.0.1", there.address[1]))
            await eventually(lambda: there.statistics().dropped.get("unknown_connection"))
            assert session.connection.peer_address == relay.address
            assert accepted.termination is None


@encrypted_pairing
async def test_a_ping_that_presses_brings_a_bulk_stream_to_the_new_address(dialer: str, listener: str) -> None:
    # All that is under way is lost. A few bytes from the new address would not pay for one full datagram to it.
    sessions = Recorders()
    async with opened(listener, sessions) as here, opened(dialer) as there:
        with Relay.to(here.address) as relay:
            session = dial(there, relay.address)
            await session.wait_connected()
            accepted = await sessions.first()
            await accepted.wait_connected()
            accepted.connection.send(accepted.connection.open_stream(), bytes(4_000_000))
            await session.wait(lambda me: len(me.all_received) > 500_000)
            relay.move()
            loop = asyncio.get_running_loop()
            await eventually(lambda: loop.time() > session.connection.last_heard + 1)
            session.connection.ping(is_pressing=True)
            await session.wait(has_received(4_000_000))
            assert accepted.connection.statistics().address_changes == 1


@encrypted_pairing
async def test_a_listener_whose_window_is_full_goes_on_at_the_new_address_when_pressed(
    dialer: str, listener: str
) -> None:
    network = MemoryNetwork(latency_s=0.005, is_near=False)
    sessions = Recorders()
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        accepted = await sessions.first()
        await accepted.wait_connected()
        assert not session.connection.has_moved()
        stream = accepted.connection.open_stream()
        accepted.connection.send(stream, b"first")
        await session.wait(has_received(5))
        network.move(there.address, to_host="10.0.0.9")
        accepted.connection.send(stream, bytes(100_000))  # All that the window takes is lost.
        await accepted.wait_for(lambda one: one.connection.unsent_size > 0)
        assert session.connection.has_moved()
        assert not session.connection.has_moved(), "that was told"
        session.connection.ping(is_pressing=True)
        await session.wait(has_received(100_005))
        assert accepted.connection.peer_address[0] == "10.0.0.9"


@pytest.mark.interpreted
async def test_an_address_that_is_gone_for_a_while_and_comes_back_is_no_move(monkeypatch: pytest.MonkeyPatch) -> None:
    network = MemoryNetwork()
    async with opened("memory", Recorders(), network=network) as here, opened("memory", network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        sources = iter(["10.0.0.1", "10.0.0.1", "", "10.0.0.1", "", "10.0.0.2", "10.0.0.2"])
        monkeypatch.setattr(there, "source_towards", lambda path: next(sources))
        told = [session.connection.has_moved() for _ in range(7)]
        assert told == [False, False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("towards", "source"),
    [
        (("127.0.0.1", 9), "127.0.0.1"),
        (("::ffff:127.0.0.2", 9, 0, 0), "127.0.0.1"),
        (("255.255.255.255", 9), ""),
    ],
)
def test_the_system_tells_where_datagrams_would_leave_from(towards: tuple[Any, ...], source: str) -> None:
    assert source_address(towards) == source
