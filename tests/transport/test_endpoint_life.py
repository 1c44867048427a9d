"""A connection's life at an endpoint: bounds, keep-alive, key updates, failing sessions, dead ports, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from quicbus import limits
from quicbus.transport.endpoint import Endpoint, EndpointSettings, Listener
from quicbus.transport.engines import engine_named
from quicbus.transport.memory_network import MemoryNetwork
from quicbus.wire.close_codes import CloseCode
from tests.transport.pump import authority, dialing, encrypted_pairing, every_pairing, listening
from tests.transport.recorder import LOCALHOST, Recorder, Recorders, dial, opened
from tests.transport.relay import RawSocket
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.connection import Connection

both_engines = pytest.mark.parametrize("engine", ["aioquic", "qh3"])


def has_received(size: int) -> Callable[[Recorder], bool]:
    return lambda session: len(session.all_received) >= size


@every_pairing
async def test_closing_an_endpoint_tells_all_connections(dialer: str, listener: str) -> None:
    network = MemoryNetwork()
    sessions = Recorders()
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        dialed = [dial(there, here.address) for _ in range(3)]
        for session in dialed:
            await session.wait_connected()
        await eventually(lambda: here.statistics().half_open == 0)
        await here.close("this node is stopping")
        await here.close()
        for session in dialed:
            termination = await session.wait_closed()
            assert (termination.code, termination.reason) == (CloseCode.GOING_AWAY, "this node is stopping")
        assert all(session.termination is not None for session in sessions.sessions)
        assert here.statistics().connections == 0


class HangingUp(Recorder):
    def connected(self, channel_binding: bytes) -> None:
        super().connected(channel_binding)
        self.connection.close(CloseCode.GOODBYE, "wrong number")


@every_pairing
async def test_a_dialer_that_hangs_up_as_soon_as_it_knows_who_is_there_is_heard(dialer: str, listener: str) -> None:
    sessions = Recorders()
    network = MemoryNetwork()
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        there.dial(here.address, dialing(), HangingUp)
        termination = await (await sessions.first()).wait_closed()

        assert (termination.code, termination.reason) == (CloseCode.GOODBYE, "wrong number")
        assert here.statistics().half_open == 0


async def test_closing_releases_everything() -> None:
    before = asyncio.all_tasks()
    sessions = Recorders()
    async with opened("qh3", sessions) as here, opened("qh3") as there:
        await dial(there, here.address).wait_connected()
        address = here.address
    assert asyncio.all_tasks() == before
    gc.collect()
    async with opened("qh3", Recorders(), bind=address) as again:
        assert again.address == address


@both_engines
async def test_a_session_that_raises_loses_its_connection_and_no_other(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Recorder):
        def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
            if data == b"fail":
                raise ValueError("a mistake of the session")
            super().stream_data(stream_id, data, ended)

    made: list[Recorder] = []

    def make(connection: Connection) -> Recorder:
        made.append(Failing(connection, echo=True))
        return made[-1]

    async with opened(engine) as there:
        here = await Endpoint.open(
            bind=LOCALHOST, engine=engine_named(engine), settings=None, listener=Listener(listening(), make)
        )
        async with here:
            good, bad = dial(there, here.address), dial(there, here.address)
            await good.wait_connected()
            await bad.wait_connected()
            bad.connection.send(bad.connection.open_stream(), b"fail")
            termination = await bad.wait_closed()
            assert termination.code == CloseCode.INTERNAL_ERROR
            good.connection.send(good.connection.open_stream(), b"fine")
            await good.wait(lambda me: me.all_received == b"fine")
            assert here.statistics().handler_errors == 1
            assert here.statistics().closed == {"handler_error": 1}
    assert "a mistake of the session" in caplog.text


async def test_a_listener_whose_session_cannot_be_made_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def make(connection: Connection) -> Recorder:
        if not fixed:
            raise RuntimeError("no session")
        return Recorder(connection, echo=True)

    fixed = False
    here = await Endpoint.open(
        bind=LOCALHOST,
        engine=engine_named("qh3"),
        settings=EndpointSettings(retry="never"),
        listener=Listener(listening(), make),
    )
    async with here, opened("qh3") as there:
        session = dial(there, here.address)
        await eventually(lambda: here.statistics().handler_errors)
        assert here.statistics().half_open == here.statistics().connections == 0
        fixed = True
        await session.wait_connected()
    assert "no session" in caplog.text


@both_engines
async def test_a_dead_port_is_reported_to_the_connection_that_dialed_it(engine: str) -> None:
    with RawSocket.opened() as closed_soon:
        dead = closed_soon.address
    sessions = Recorders()
    async with opened(engine, sessions) as here, opened(engine) as there:
        good, bad = dial(there, here.address), dial(there, dead)
        started = asyncio.get_running_loop().time()
        termination = await bad.wait_closed()
        assert asyncio.get_running_loop().time() - started < limits.HANDSHAKE_TIMEOUT_S / 2
        assert "connection refused" in termination.reason
        assert str(dead[1]) in termination.reason
        assert (termination.code, termination.is_application, termination.is_local) == (0, False, True)
        await good.wait_connected()
        assert good.termination is None


async def test_a_listener_that_dies_later_is_not_declared_dead_by_the_system() -> None:
    # An ICMP message can be forged: after the handshake only silence counts.
    sessions = Recorders()
    async with opened("qh3") as there:
        async with opened("qh3", sessions) as here:
            session = dial(there, here.address)
            await session.wait_connected()
            here._open_socket().close()
        session.connection.ping()
        await eventually(lambda: session.connection.statistics().datagrams_sent > 8)
        assert session.termination is None


async def test_a_dialer_that_nobody_answers_gives_up_in_time() -> None:
    with RawSocket.opened() as silent:
        settings = EndpointSettings(handshake_timeout_s=0.3)
        async with opened("qh3", settings=settings) as there:
            termination = await dial(there, silent.address).wait_closed()
            assert termination.code == CloseCode.HANDSHAKE_TIMEOUT
            assert termination.is_local
            assert f"{silent.address[1]}" in termination.reason


@encrypted_pairing
async def test_an_idle_connection_is_kept_alive(dialer: str, listener: str) -> None:
    settings = EndpointSettings(idle_timeout_s=0.6, keep_alive_s=0.1)
    sessions = Recorders()
    async with opened(listener, sessions) as here, opened(dialer, settings=settings) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        sent = session.connection.statistics().datagrams_sent
        await eventually(lambda: session.connection.statistics().datagrams_sent >= sent + 12)
        assert session.termination is None
        assert session.connection.statistics().rtt_s is not None


@both_engines
async def test_a_silent_peer_ends_with_the_idle_time_out(engine: str) -> None:
    network = MemoryNetwork()
    settings = EndpointSettings(idle_timeout_s=0.5, keep_alive_s=10)
    sessions = Recorders()
    async with (
        opened(engine, sessions, network=network) as here,
        opened(engine, settings=settings, network=network) as there,
    ):
        session = dial(there, here.address)
        await session.wait_connected()
        heard = session.connection.last_heard
        with network.link(here.address, there.address).dropping():
            termination = await session.wait_closed()
        assert (termination.code, termination.is_application, termination.is_local) == (0, False, True)
        assert session.connection.last_heard >= heard
        assert there.statistics().closed == {"idle": 1}


@encrypted_pairing
async def test_keys_are_updated_under_traffic(dialer: str, listener: str) -> None:
    settings = EndpointSettings(key_update_packets=50, max_datagram_size=1200)
    sessions = Recorders(echo=True)
    async with (
        opened(listener, sessions, settings=settings) as here,
        opened(dialer, settings=settings) as there,
    ):
        session = dial(there, here.address)
        await session.wait_connected()
        stream = session.connection.open_stream()
        for number in range(10):
            session.connection.send(stream, bytes(100_000))
            await session.wait(has_received((number + 1) * 100_000))
        assert session.termination is None
        assert session.connection.statistics().key_updates >= 5
        assert sessions.sessions[0].connection.statistics().key_updates >= 5
        assert here.statistics().key_updates >= 5


def leave_out_byte_0(session: Recorder, stream: int, data: bytes) -> None:
    """Send all of `data` but its first byte, as only a dialer that was made for it does; with aioquic."""
    quic = cast("Any", session.connection)._quic._quic
    session.connection.send(stream, data)
    quic._streams[stream].sender._pending.subtract(0, 1)


@pytest.mark.parametrize("streams", [1, 20])
@pytest.mark.parametrize(
    ("listener", "allowed"),
    [
        ("aioquic", limits.UNDELIVERED_BEFORE_PROOF),
        ("qh3", limits.UNDELIVERED_BEFORE_PROOF),
        ("qh3", limits.UNDELIVERED_SLACK),
    ],
)
async def test_streams_without_their_first_byte_cost_a_bounded_number_of_bytes(
    listener: str, streams: int, allowed: int
) -> None:
    sessions = Recorders()
    async with opened(listener, sessions) as here, opened("aioquic") as there:
        session = dial(there, here.address)
        await session.wait_connected()
        accepted = await sessions.first()
        await accepted.wait_connected()
        accepted.connection.allow_undelivered(allowed)
        for _ in range(streams):
            leave_out_byte_0(session, session.connection.open_stream(), bytes(4_000_000 // streams))
        termination = await accepted.wait_closed()
        assert termination.code == CloseCode.LIMIT_EXCEEDED
        assert accepted.all_received == b""
        assert accepted.connection.statistics().bytes_received < allowed + 2 * 1024 * 1024
        assert here.statistics().closed == {"undelivered": 1}
        assert (await session.wait_closed()).code == CloseCode.LIMIT_EXCEEDED


async def test_aioquic_is_not_sent_more_than_its_window_where_more_would_be_allowed() -> None:
    sessions = Recorders()
    async with opened("aioquic", sessions) as here, opened("aioquic") as there:
        session = dial(there, here.address)
        await session.wait_connected()
        accepted = await sessions.first()
        await accepted.wait_connected()
        accepted.connection.allow_undelivered(limits.UNDELIVERED_SLACK)
        leave_out_byte_0(session, session.connection.open_stream(), bytes(4_000_000))
        await eventually(lambda: accepted.connection.statistics().bytes_received > 60_000)
        other = session.connection.open_stream()
        session.connection.ping()
        await eventually(lambda: session.connection.statistics().rtt_s is not None)
        session.connection.send(other, b"x")
        assert accepted.connection.statistics().bytes_received < 200_000
        assert accepted.termination is None


@encrypted_pairing
async def test_acknowledgements_do_not_count_as_undelivered(dialer: str, listener: str) -> None:
    sessions = Recorders()
    settings = EndpointSettings(max_datagram_size=1200)
    async with (
        opened(listener, sessions, settings=settings) as here,
        opened(dialer, settings=settings) as there,
    ):
        session = dial(there, here.address)
        await session.wait_connected()
        accepted = await sessions.first()
        await accepted.wait_connected()
        accepted.connection.allow_undelivered(limits.UNDELIVERED_BEFORE_PROOF + 1)
        size = 8_000_000
        stream = accepted.connection.open_stream()
        for sent in range(0, size, 500_000):
            accepted.connection.send(stream, bytes(500_000))
            await session.wait(has_received(sent + 500_000))
        assert accepted.termination is None


async def test_a_new_certificate_serves_new_connections() -> None:
    sessions = Recorders()
    async with opened("qh3", sessions) as here, opened("qh3") as there:
        await dial(there, here.address).wait_connected()
        renewed = authority().issue_node("tokyo")
        assert here.listener is not None
        here.listener.configuration = replace(
            here.listener.configuration, certificate_chain=renewed.chain_pem, private_key=renewed.private_key_pem
        )
        await dial(there, here.address).wait_connected()


async def test_a_thousand_idle_connections_wake_the_loop_rarely() -> None:
    network = MemoryNetwork()
    sessions = Recorders()
    settings = EndpointSettings(retry="never", max_half_open=8000, max_handshakes_per_address=1000, handshake_share=1.0)
    async with (
        opened("memory", sessions, settings=settings, network=network) as here,
        opened("memory", settings=settings, network=network) as there,
    ):
        dialed = [dial(there, here.address) for _ in range(1000)]
        for session in dialed:
            await session.wait_connected()
        await eventually(lambda: here.statistics().half_open == 0)
        assert here.statistics().connections == 1000
        assert len(here._wake_ups._known) == 1000
        assert len(here._wake_ups._known._heap) <= 2064
        for session in dialed:
            session.connection.close(CloseCode.GOODBYE, "")
        for accepted in sessions.sessions:
            await accepted.wait_closed()
        await eventually(lambda: here.statistics().connections == 0)
        assert len(here._wake_ups._known) == 0


async def test_nothing_is_logged_above_debug_in_an_ordinary_life(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quicbus")
    sessions = Recorders()
    async with opened("qh3", sessions) as here, opened("qh3") as there:
        await dial(there, here.address).wait_connected()
    assert [record for record in caplog.records if record.name.startswith("quicbus")] == []
