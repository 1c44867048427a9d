"""What strangers can do to a listener over real UDP: little, counted, and never more bytes out than three times in."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Literal

import pytest

from quicbus.transport._packets import PacketType, parse_header
from quicbus.transport.endpoint import Endpoint, EndpointSettings
from quicbus.transport.engines import engine_named
from quicbus.wire.close_codes import CloseCode
from tests.transport.pump import dialing, encrypted_pairing
from tests.transport.recorder import Recorders, dial, opened
from tests.transport.relay import RawSocket, Relay
from tests.transport.test_admission import initial, read_retry
from tests.waiting import eventually


def has_heard(endpoint: Endpoint, datagrams: int) -> bool:
    return endpoint.statistics().datagrams_received >= datagrams


both_engines = pytest.mark.parametrize("engine", ["aioquic", "qh3"])


@encrypted_pairing
@pytest.mark.parametrize("retry", ["always", "never", "auto"])
async def test_every_pairing_connects_with_and_without_retry(
    dialer: str, listener: str, retry: Literal["always", "never", "auto"]
) -> None:
    sessions = Recorders()
    async with opened(listener, sessions, settings=EndpointSettings(retry=retry)) as here, opened(dialer) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        assert here.statistics().retries_sent == (1 if retry == "always" else 0)
        assert here.statistics().half_open in {0, 1}
        await (await sessions.first()).wait_connected()
        assert here.statistics().half_open == 0


@both_engines
async def test_retry_auto_asks_once_many_handshakes_are_half_open(engine: str) -> None:
    sessions = Recorders()
    settings = EndpointSettings(retry="auto", retry_auto_half_open=3)
    async with opened(engine, sessions, settings=settings) as here, opened(engine) as there:
        with RawSocket.opened() as stranger:
            for number in range(1, 11):
                first = engine_named(engine).dial(dialing())
                first.connect(0.0)
                stranger.send(first.datagrams_to_send(0.0)[0], here.address)
                await eventually(partial(has_heard, here, number))
            assert here.statistics().half_open == 3
            assert here.statistics().retries_sent == 7
            session = dial(there, here.address)
            await session.wait_connected()
            assert here.statistics().retries_sent == 8
            assert stranger.received_size <= 3 * stranger.sent_size


async def test_a_replayed_first_flight_is_dropped_and_counted() -> None:
    sessions = Recorders()
    async with opened("qh3", sessions) as here, opened("qh3") as there:
        with Relay.to(here.address) as relay, RawSocket.opened() as stranger:
            session = dial(there, relay.address)
            await session.wait_connected()
            with_token = next(
                datagram for datagram in relay.seen if (header := parse_header(datagram)) is not None and header.token
            )
            session.connection.close(CloseCode.GOODBYE, "")
            await (await sessions.first()).wait_closed()
            await eventually(lambda: here.statistics().connections == 0)
            for _ in range(5):
                stranger.send(with_token, here.address)
            await eventually(lambda: here.statistics().dropped.get("token_other_address") == 5)
            assert here.statistics().accepted == 1
            assert stranger.received_size == 0


@both_engines
async def test_an_initial_that_is_repeated_goes_to_its_connection(engine: str) -> None:
    sessions = Recorders()
    async with opened(engine, sessions, settings=EndpointSettings(retry="never")) as here:
        with RawSocket.opened() as stranger:
            first = engine_named(engine).dial(dialing())
            first.connect(0.0)
            datagram = first.datagrams_to_send(0.0)[0]
            for _ in range(3):
                stranger.send(datagram, here.address)
            await eventually(lambda: here.statistics().datagrams_received == 3)
            assert here.statistics().accepted == 1
            assert here.statistics().half_open == 1


@both_engines
async def test_an_unvalidated_dialer_gets_at_most_three_times_its_bytes(engine: str) -> None:
    sessions = Recorders()
    settings = EndpointSettings(retry="never", handshake_timeout_s=1.0, max_datagram_size=1200)
    async with opened(engine, sessions, settings=settings) as here:
        with RawSocket.opened() as stranger:
            first = engine_named(engine).dial(dialing())
            first.connect(0.0)
            stranger.send(first.datagrams_to_send(0.0)[0], here.address)
            accepted = await sessions.first()
            termination = await accepted.wait_closed()
            assert termination.code == CloseCode.HANDSHAKE_TIMEOUT
            assert termination.is_local
            await eventually(lambda: here.statistics().half_open == 0)
            assert here.statistics().bytes_sent <= 3 * stranger.sent_size
            assert here.statistics().closed == {"handshake_timeout": 1}


async def test_an_unknown_version_is_answered_with_the_known_one() -> None:
    async with opened("qh3", Recorders()) as here:
        with RawSocket.opened() as stranger:
            stranger.send(initial(version=0x1A2A3A4A), here.address)
            header = parse_header(await stranger.receive())
            assert header is not None
            assert header.type is PacketType.VERSION_NEGOTIATION
            assert here.statistics().version_negotiations_sent == 1


async def test_forged_tokens_are_dropped_and_counted() -> None:
    async with opened("qh3", Recorders()) as here:
        with RawSocket.opened() as stranger:
            stranger.send(initial(), here.address)
            source, token = read_retry(await stranger.receive())
            stranger.send(initial(token[:-1] + bytes((token[-1] ^ 1,)), destination=source), here.address)
            await eventually(lambda: here.statistics().dropped.get("token_forged") == 1)
            assert here.statistics().accepted == 0


@both_engines
async def test_a_flood_of_garbage_leaves_nothing_behind(engine: str) -> None:
    rng = random.Random(7)
    sessions = Recorders(echo=True)
    async with opened(engine, sessions) as here, opened(engine) as there:
        with RawSocket.opened() as stranger:
            for number in range(2000):
                datagram = rng.randbytes(rng.randrange(1, 1500))
                if number % 3 == 0:
                    datagram = initial(rng.randbytes(40), destination=rng.randbytes(8))
                stranger.send(datagram, here.address)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            session = dial(there, here.address)
            await session.wait_connected()
            statistics = here.statistics()
            assert statistics.accepted == statistics.connections == 1
            assert sum(statistics.dropped.values()) > 1000
            assert stranger.received_size <= 3 * stranger.sent_size


@both_engines
async def test_garbage_that_names_a_connection_does_it_no_harm(engine: str) -> None:
    rng = random.Random(11)
    sessions = Recorders(echo=True)
    async with opened(engine, sessions) as here, opened(engine) as there:
        with Relay.to(here.address) as relay, RawSocket.opened() as stranger:
            session = dial(there, relay.address)
            await session.wait_connected()
            stream = session.connection.open_stream()
            session.connection.send(stream, b"a")  # It may share a datagram with the end of the handshake.
            await session.wait(lambda me: me.all_received == b"a")
            session.connection.send(stream, b"a")
            await session.wait(lambda me: me.all_received == b"aa")
            identifier = next(datagram[1:9] for datagram in relay.seen if not datagram[0] & 0x80)
            for _ in range(300):
                stranger.send(b"\x40" + identifier + rng.randbytes(rng.randrange(0, 100)), here.address)
            session.connection.send(stream, b"b")
            await session.wait(lambda me: me.all_received == b"aab")
            assert stranger.received_size <= 3 * stranger.sent_size


@both_engines
async def test_whoever_copied_a_connection_id_cannot_have_the_connection_closed(engine: str) -> None:
    rng = random.Random(13)
    sessions = Recorders(echo=True)
    async with opened(engine, sessions) as here, opened(engine) as there:
        with Relay.to(here.address) as relay, RawSocket.opened() as stranger:
            session = dial(there, relay.address)
            await session.wait_connected()
            stream = session.connection.open_stream()
            session.connection.send(stream, b"a")  # It may share a datagram with the end of the handshake.
            await session.wait(lambda me: me.all_received == b"a")
            session.connection.send(stream, b"a")
            await session.wait(lambda me: me.all_received == b"aa")
            (accepted,) = sessions.sessions
            accepted.connection.allow_undelivered(100_000)
            copied = [datagram for datagram in relay.seen if not datagram[0] & 0x80]
            heard = here.statistics().datagrams_received
            for number in range(1, 401):
                forged = b"\x40" + copied[0][1:9] + rng.randbytes(1100)
                stranger.send(copied[number % len(copied)] if number % 4 == 0 else forged, here.address)
                if number % 20 == 0:
                    await eventually(partial(has_heard, here, heard + number))
            await eventually(lambda: here.statistics().dropped.get("not_authenticated", 0) >= 400)
            session.connection.send(stream, b"b")
            await session.wait(lambda me: me.all_received == b"aab")
            assert accepted.termination is None


async def test_a_socket_that_only_dials_takes_no_strangers() -> None:
    async with opened("qh3") as here:
        with RawSocket.opened() as stranger:
            stranger.send(initial(), ("127.0.0.1", here.address[1]))
            await eventually(lambda: here.statistics().dropped.get("not_listening") == 1)
            assert here.statistics().bytes_sent == 0


TOO_MANY = {
    "max_connections": EndpointSettings(max_connections=1),
    "max_connections_per_address": EndpointSettings(max_connections_per_address=1),
}


@encrypted_pairing
@pytest.mark.parametrize("limit", TOO_MANY)
async def test_a_connection_too_many_is_told_the_limit(dialer: str, listener: str, limit: str) -> None:
    sessions = Recorders()
    settings = TOO_MANY[limit]
    async with opened(listener, sessions, settings=settings) as here, opened(dialer) as there:
        first = dial(there, here.address)
        await first.wait_connected()
        second = dial(there, here.address)
        termination = await second.wait_closed()
        assert termination.code == CloseCode.TOO_MANY_CONNECTIONS
        assert f"{limit}: 2 is over the limit of 1" in termination.reason
        assert here.statistics().limits[limit] == 1
        assert len(sessions.sessions) == 1
        first.connection.close(CloseCode.GOODBYE, "")
        await eventually(lambda: here.statistics().connections == 0)
        third = dial(there, here.address)
        await third.wait_connected()


async def test_an_endpoint_that_stops_accepting_says_so_and_keeps_what_it_has() -> None:
    sessions = Recorders(echo=True)
    async with opened("qh3", sessions) as here, opened("qh3") as there:
        first = dial(there, here.address)
        await first.wait_connected()
        here.stop_accepting()
        second = dial(there, here.address)
        assert (await second.wait_closed()).code == CloseCode.GOING_AWAY
        first.connection.send(first.connection.open_stream(), b"still here")
        await first.wait(lambda me: me.all_received == b"still here")
