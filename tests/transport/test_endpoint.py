"""The endpoint over real UDP on loopback: exchange, closing, what sessions are told."""

from __future__ import annotations

import pytest

from quicbus.transport.datagram_socket import AsyncioNetwork
from quicbus.transport.udp_socket import UdpNetwork
from quicbus.wire.close_codes import CloseCode
from tests.transport.pump import encrypted_pairing
from tests.transport.recorder import Recorders, dial, opened

BULK = bytes(range(256)) * 4096


@encrypted_pairing
@pytest.mark.parametrize(
    "network", [UdpNetwork(), UdpNetwork(offload=False), AsyncioNetwork()], ids=["offload", "plain", "asyncio"]
)
async def test_bytes_go_both_ways(dialer: str, listener: str, network: UdpNetwork | AsyncioNetwork) -> None:
    sessions = Recorders(echo=True)
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        stream = session.connection.open_stream()
        session.connection.send(stream, BULK, end=True)
        await session.wait(lambda me: len(me.all_received) == len(BULK))
        assert session.all_received == BULK
        accepted = await sessions.first()
        assert accepted.binding == session.binding
        assert accepted.calls == session.calls == ["negotiated", "connected"]
        assert here.statistics().retries_sent == 1
        session.connection.close(CloseCode.GOODBYE, "that is all")
        termination = await accepted.wait_closed()
        assert (termination.code, termination.reason) == (CloseCode.GOODBYE, "that is all")
        assert termination.is_application
        assert not termination.is_local
        mine = await session.wait_closed()
        assert (mine.code, mine.reason, mine.is_local) == (CloseCode.GOODBYE, "that is all", True)
