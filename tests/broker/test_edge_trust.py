"""The trust list at the edge: who is told, and whose sessions end."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from quicbus.identity import Authority, Credential, Verifier, sign_proof
from quicbus.identity.trust import Revocation, TrustList, TrustStore, seal_trust
from quicbus.testing.pipe import CHANNEL_BINDING
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Accepted, Hello, Trust
from quicbus_broker.edge import trust as edge_trust
from tests.broker.fakes import FakeBroker, FakeClient

if TYPE_CHECKING:
    import pytest

NOW = dt.datetime.now(dt.UTC)


class Trusting:
    """An edge with proofs, and the authority of its mesh."""

    def __init__(self) -> None:
        self.authority = Authority.create()
        self.store = TrustStore(self.authority.mesh, self.authority.certificate_pem)
        self.broker = FakeBroker()
        self.verifier = Verifier(self.authority.certificate_pem, self.authority.mesh, self.store.revocation)
        self.admission = self.broker.edge.admission(self.verifier)

    def connect(self, credential: Credential) -> FakeClient:
        client = self.broker.connect(admission=self.admission)
        client.frames()
        signature = sign_proof(credential, CHANNEL_BINDING, "client")
        client.write(
            Hello(version=1, kind="client", agent="test", chain=list(credential.chain_der), signature=signature)
        )
        return client

    def revoke(self, *credentials: Credential, padding: int = 0) -> bytes:
        revoked = [
            Revocation(one.node_id, str(one.role), one.name, int(NOW.timestamp()), 1 << 33) for one in credentials
        ]
        revoked += [
            Revocation(bytes(8) + index.to_bytes(8), "client", "x" * 64, 0, 1 << 33) for index in range(padding)
        ]
        content = TrustList(
            mesh=self.authority.mesh,
            version=self.store.version + 1,
            made_at=1,
            authorities=self.authority.authorities_der,
            revoked=tuple(revoked),
        )
        assert self.store.take(seal_trust(content, [self.authority]), NOW)
        self.broker.edge.trusted(self.store)
        return self.store.raw


def test_a_client_that_comes_in_is_told_the_list_after_accepted() -> None:
    edge = Trusting()
    signed = edge.revoke()
    accepted, trust = edge.connect(edge.authority.issue_client("alice")).frames()
    assert isinstance(accepted, Accepted)
    assert trust == Trust(signed=signed)


def test_without_a_list_there_is_nothing_to_tell() -> None:
    edge = Trusting()
    (accepted,) = edge.connect(edge.authority.issue_client("alice")).frames()
    assert isinstance(accepted, Accepted)


def test_clients_are_told_of_a_later_list_and_sessions_of_revoked_keys_end() -> None:
    edge = Trusting()
    credential = edge.authority.issue_client("alice")
    alice, bob = edge.connect(credential), edge.connect(edge.authority.issue_client("bob"))
    alice.frames(), bob.frames()
    signed = edge.revoke(credential)
    edge.broker.edge.tick()
    edge.broker.turn()
    assert alice.connection.close_code == CloseCode.CREDENTIAL_REVOKED
    assert "the key of client alice was revoked" in alice.connection.close_reason
    assert bob.connection.close_code is None
    assert bob.frames() == [Trust(signed=signed)]
    assert edge.broker.edge.statistics().refused == {"credential_revoked": 1}


def test_the_proof_of_a_revoked_key_is_not_taken() -> None:
    edge = Trusting()
    credential = edge.authority.issue_client("alice")
    edge.revoke(credential)
    assert edge.connect(credential).connection.close_code == CloseCode.CREDENTIAL_REVOKED


def test_a_renewed_certificate_for_a_revoked_key_is_refused_too() -> None:
    edge = Trusting()
    credential = edge.authority.issue_client("alice")
    edge.revoke(credential)
    renewed = edge.authority.issue_client("alice", key=credential.private_key)
    assert edge.connect(renewed).connection.close_code == CloseCode.CREDENTIAL_REVOKED


def test_the_client_inside_the_process_is_told_nothing() -> None:
    edge = Trusting()
    local = edge.broker.client()
    local.frames()
    edge.revoke()
    edge.broker.edge.tick()
    edge.broker.turn()
    assert local.frames() == []


def test_many_clients_are_told_of_a_large_list_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Trusting()
    clients = [edge.connect(edge.authority.issue_client(f"client-{number}")) for number in range(5)]
    for client in clients:
        client.frames()
    signed = edge.revoke(padding=200)
    monkeypatch.setattr(edge_trust, "TOLD_SIZE_PER_TICK", 2 * len(signed))
    told = []
    for _ in range(4):
        edge.broker.edge.tick()
        edge.broker.turn()
        told.append(sum(bool(client.frames()) for client in clients))
    assert told == [2, 2, 1, 0]
