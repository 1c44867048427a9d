"""Whom a client trusts, and what it does with a broker that is revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from quicbus.client.session import Session
from quicbus.client.trust import ClientTrust
from quicbus.identity import Authority, pem
from quicbus.identity.trust import Revocation, TrustList, seal_trust
from quicbus.testing.pipe import Pipe
from quicbus.wire import frames
from quicbus.wire.close_codes import CloseCode
from tests.client.scripted_broker import NODE, ScriptedBroker
from tests.client.test_session import Owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.client.message import Replier
    from quicbus.identity import Credential


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def listed(
    authority: Authority, version: int, revoked: Sequence[Credential] = (), further: Sequence[Authority] = ()
) -> bytes:
    content = TrustList(
        mesh=authority.mesh,
        version=version,
        made_at=1,
        authorities=tuple(pem.to_der(one.authorities[0]) for one in (authority, *further)),
        revoked=tuple(Revocation(one.node_id, str(one.role), one.name, 1_700_000_000, 1 << 33) for one in revoked),
    )
    return seal_trust(content, [authority, *further])


def trust_of(credential: Credential) -> ClientTrust:
    trust = ClientTrust()
    trust.follow(credential)
    return trust


def authorities_in(text: bytes) -> int:
    return text.count(b"BEGIN CERTIFICATE")


def test_a_client_trusts_the_authority_of_its_credential_until_it_is_told_more(authority: Authority) -> None:
    credential = authority.issue_client("alice")
    assert trust_of(credential).authority_pem == credential.authority_pem


def test_authorities_in_the_list_are_trusted_beside_that_of_the_credential(authority: Authority) -> None:
    following = Authority.create(mesh=authority.mesh)
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 1, further=[following]))
    assert authorities_in(trust.authority_pem) == 2
    assert following.certificate_pem in trust.authority_pem


def test_a_node_in_the_list_is_refused_by_name_and_others_are_not(authority: Authority) -> None:
    rogue, good = authority.issue_node("rogue"), authority.issue_node("good")
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 1, [rogue]))
    assert trust.refusal(good.node_id) == ""
    assert trust.refusal(rogue.node_id) == (
        f"node rogue ({rogue.node_id.hex()}) was revoked on 2023-11-14 22:13 UTC; use another"
    )


def test_an_earlier_list_changes_nothing(authority: Authority) -> None:
    rogue = authority.issue_node("rogue")
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 2, [rogue]))
    trust.learned(listed(authority, 1))
    assert trust.refusal(rogue.node_id)


def test_a_list_of_an_authority_that_is_not_trusted_is_told_of_and_ignored(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    rogue = authority.issue_node("rogue")
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(Authority.create(mesh=authority.mesh), 9, [rogue]))
    assert not trust.refusal(rogue.node_id)
    assert "not to be believed" in caplog.text


def test_what_was_told_outlives_a_renewed_credential(authority: Authority) -> None:
    rogue, following = authority.issue_node("rogue"), Authority.create(mesh=authority.mesh)
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 1, [rogue], [following]))
    trust.follow(following.issue_client("alice"))
    assert trust.refusal(rogue.node_id)
    assert authorities_in(trust.authority_pem) == 2


class Refusing:
    """A `SessionTrust` that refuses a node once it was told a list."""

    def __init__(self, *, knows: bool = False) -> None:
        self.told: list[bytes] = []
        self._knows = knows

    def learned(self, signed: bytes) -> None:
        self.told.append(signed)

    def refusal(self, node: bytes) -> str:
        return "node rogue was revoked" if node == NODE and (self._knows or self.told) else ""


def joined(trust: Refusing) -> tuple[Pipe, ScriptedBroker, Owner]:
    pipe, owner = Pipe(), Owner()
    pipe.dialer.listener_node = NODE
    session = Session(pipe.dialer, cast("Any", owner), bus=cast("Replier", None), clock=lambda: 0.0, trust=trust)
    broker = ScriptedBroker(pipe.listener)
    pipe.start(session, broker)
    pipe.pump()
    return pipe, broker, owner


def test_a_broker_that_is_known_to_be_revoked_gets_no_proof() -> None:
    _, broker, owner = joined(Refusing(knows=True))
    assert broker.of(frames.Hello) == []
    assert owner.termination is not None
    assert (owner.termination.code, owner.termination.reason) == (
        CloseCode.CREDENTIAL_REVOKED,
        "node rogue was revoked",
    )


def test_a_broker_that_tells_of_its_own_revocation_is_left() -> None:
    trust = Refusing()
    pipe, broker, owner = joined(trust)
    assert owner.calls == ["welcomed", "accepted"]
    broker.send(frames.Trust(signed=b"a list"))
    pipe.pump()
    assert trust.told == [b"a list"]
    assert owner.termination is not None
    assert owner.termination.code == CloseCode.CREDENTIAL_REVOKED
