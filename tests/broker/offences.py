"""How a client was closed, and the credentials that clients prove themselves with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.identity import Authority, Verifier, sign_proof
from quicbus.testing.pipe import CHANNEL_BINDING
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Hello

if TYPE_CHECKING:
    from tests.broker.fakes import FakeClient

AUTHORITY = Authority.create()
OTHER = Authority.create()
VERIFIER = Verifier(AUTHORITY.certificate_pem, AUTHORITY.mesh)


def closed_with(client: FakeClient) -> CloseCode:
    assert client.connection.close_code is not None
    assert len(client.connection.close_reason.encode()) <= limits.MAX_CLOSE_REASON_SIZE
    assert client.connection.close_reason
    return CloseCode(client.connection.close_code)


def hello(
    authority: Authority = AUTHORITY, *, role: str = "client", kind: str = "client", binding: bytes = CHANNEL_BINDING
) -> Hello:
    issue = authority.issue_client if role == "client" else authority.issue_node
    credential = issue("alice")
    signature = sign_proof(credential, binding, kind)
    return Hello(version=1, kind=kind, agent="test", chain=credential.chain_der, signature=signature)
