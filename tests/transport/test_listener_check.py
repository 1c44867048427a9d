"""What an endpoint looks at after TLS: that the listener's certificate is a node's of the mesh that was dialed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quicbus.exceptions import InvalidSetting
from quicbus.identity import server_name_of
from quicbus.identity.peer import peer_of
from quicbus.transport.endpoint import Endpoint, Listener
from quicbus.transport.engines import engine_named
from quicbus.transport.memory_network import MemoryNetwork
from quicbus.wire.close_codes import CloseCode
from tests.identity.certificates import certificate_of, with_names
from tests.transport.pump import authority, dialing, encrypted_pairing, every_pairing, listening
from tests.transport.recorder import LOCALHOST, Recorder, Recorders, dial, opened

MESH = authority().mesh


@every_pairing
async def test_a_session_is_told_which_node_answers(dialer: str, listener: str) -> None:
    network, sessions = MemoryNetwork(), Recorders()
    async with opened(listener, sessions, network=network) as here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        await session.wait_connected()
        own = peer_of(certificate_of(listening().certificate_chain)).node_id
        assert session.connection.listener_node == (b"" if dialer == "memory" else own)
        assert (await sessions.first()).connection.listener_node == b""


@encrypted_pairing
@pytest.mark.parametrize(
    "uri",
    [f"quicbus://{MESH}/client/alice", f"quicbus://{'f' * 32}/node/tokyo", "https://example.org/"],
    ids=["a client", "a node of another mesh", "a stranger"],
)
async def test_what_tls_takes_and_is_no_node_of_the_mesh_is_left(dialer: str, listener: str, uri: str) -> None:
    names = [x509.UniformResourceIdentifier(uri), x509.DNSName(server_name_of(MESH))]
    node = authority().issue_node("tokyo")
    (der,) = with_names(authority(), node, names)
    chain = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    configuration = replace(listening(), certificate_chain=chain, private_key=node.private_key_pem)
    network = MemoryNetwork()
    here = await Endpoint.open(
        bind=LOCALHOST,
        engine=engine_named(listener),
        listener=Listener(configuration, Recorders()),
        network=network,
    )
    async with here, opened(dialer, network=network) as there:
        session = dial(there, here.address)
        termination = await session.wait_closed()
        assert (termination.code, termination.is_local) == (CloseCode.CREDENTIAL_INVALID, True)
        assert "names no quicbus node" in termination.reason
        assert "connected" not in session.calls
        assert there.statistics().closed == {"listener_refused": 1}


async def test_a_name_that_is_no_mesh_is_refused_before_anything_is_sent() -> None:
    async with opened("aioquic", network=MemoryNetwork()) as there:
        with pytest.raises(InvalidSetting, match="localhost"):
            there.dial(LOCALHOST, replace(dialing(), server_name="localhost"), Recorder)
        assert there.statistics().dialed == 0
