"""What a client must prove, at first and when its certificate ends."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import sign_proof
from quicbus.testing.pipe import CHANNEL_BINDING
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Accepted, Hello, Proof, ProofWanted
from quicbus_broker.edge import EdgeLimits
from tests.broker.fakes import FakeBroker, FakeClient
from tests.broker.offences import AUTHORITY, OTHER, VERIFIER, closed_with, hello

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_valid_proof_is_accepted_under_the_name_in_the_certificate() -> None:
    client = FakeBroker().connect(VERIFIER)
    (welcome,) = client.frames()

    client.write(hello())

    (accepted,) = client.frames()
    assert isinstance(accepted, Accepted)
    assert accepted.name == "alice"
    assert accepted.expires_in_s is not None
    assert accepted.expires_in_s > 3600
    assert welcome.TYPE == 1


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Hello(version=1, kind="client", agent="t"), CloseCode.CREDENTIAL_MISSING),
        (lambda: hello(OTHER), CloseCode.CREDENTIAL_OTHER_MESH),
        (lambda: hello(role="node"), CloseCode.CREDENTIAL_WRONG_ROLE),
        (lambda: hello(role="node", kind="node"), CloseCode.CREDENTIAL_WRONG_ROLE),
        (lambda: hello(binding=bytes(32)), CloseCode.PROOF_INVALID),
        (lambda: Hello(version=9, kind="client", agent="t"), CloseCode.UNSUPPORTED_VERSION),
    ],
)
def test_a_bad_proof_closes_with_a_code_of_its_own_and_the_remedy(make: Callable[[], Hello], code: CloseCode) -> None:
    broker = FakeBroker()
    client = broker.connect(VERIFIER)

    client.write(make())

    assert closed_with(client) is code
    assert broker.edge.statistics().refused == {code.name.lower(): 1}
    assert client.session.publisher is None


def test_a_session_ends_with_its_certificate() -> None:
    broker = FakeBroker()
    client = broker.connect(VERIFIER)
    client.write(hello())
    broker.turn()

    broker.pass_time(3600.0)
    assert not client.connection.is_closed
    broker.pass_time(dt.timedelta(days=4000).total_seconds())

    assert closed_with(client) is CloseCode.CREDENTIAL_EXPIRED
    assert "quicbus cert issue --client alice" in client.connection.close_reason


def proof(name: str = "alice", *, days: float = 3, binding: bytes = CHANNEL_BINDING) -> Proof:
    credential = AUTHORITY.issue_client(name, days=days)
    return Proof(chain=credential.chain_der, signature=sign_proof(credential, binding, "client"))


def asked_again() -> tuple[FakeBroker, FakeClient]:
    """A client whose certificate ends in less than a minute."""
    broker = FakeBroker()
    client = broker.connect(VERIFIER)
    ending = proof(days=1)
    client.write(Hello(version=1, kind="client", agent="t", chain=ending.chain, signature=ending.signature))
    client.frames()
    broker.pass_time(86_400 - 59)
    (wanted,) = client.frames()
    assert isinstance(wanted, ProofWanted)
    assert 57 <= wanted.deadline_s <= 60
    return broker, client


def test_a_session_whose_certificate_was_renewed_goes_on_until_that_one_ends() -> None:
    broker, client = asked_again()
    client.write(proof(days=3))

    broker.pass_time(2 * 86_400)
    assert not client.connection.is_closed
    broker.pass_time(86_400)

    assert closed_with(client) is CloseCode.CREDENTIAL_EXPIRED


@pytest.mark.parametrize(
    # Made when the test runs: the shorter one lives for 26 s.
    "answer",
    [None, lambda: proof(days=0.0003), lambda: proof("bob")],
    ids=["none", "a shorter one", "another name"],
)
def test_a_session_whose_certificate_was_not_renewed_ends_with_it(answer: Callable[[], Proof] | None) -> None:
    broker, client = asked_again()
    if answer is not None:
        client.write(answer())

    broker.pass_time(50)
    assert not client.connection.is_closed
    assert client.frames() == []
    broker.pass_time(10)

    assert closed_with(client) is CloseCode.CREDENTIAL_EXPIRED


def test_a_bad_answer_to_a_wanted_proof_closes_as_at_the_beginning() -> None:
    _, client = asked_again()

    client.write(proof(binding=bytes(32)))

    assert closed_with(client) is CloseCode.PROOF_INVALID


@pytest.mark.parametrize("times", [0, 1])
def test_a_proof_that_nobody_asked_for_is_a_violation(times: int) -> None:
    client = asked_again()[1] if times else FakeBroker().client()
    client.write(*[proof()] * (times + 1))

    assert closed_with(client) is CloseCode.PROTOCOL_VIOLATION
    assert client.connection.close_reason == "Proof is not for a broker"


def test_without_a_proof_in_time_the_connection_is_closed() -> None:
    broker = FakeBroker(EdgeLimits(handshake_timeout_s=3.0))
    client, proven = broker.connect(VERIFIER), broker.client()

    broker.pass_time(2.9)
    assert not client.connection.is_closed
    broker.pass_time(0.2)

    assert closed_with(client) is CloseCode.HANDSHAKE_TIMEOUT
    assert not proven.connection.is_closed
