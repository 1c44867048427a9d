"""What is taken of an answer that passed through nodes which may lie, and which node is asked next."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus.client.enrolment import CertificateOffice, joined_credential, renewed_credential
from quicbus.client.urls import BrokerUrl
from quicbus.exceptions import (
    AuthorityUnavailable,
    ConnectFailed,
    ConnectionFailed,
    CredentialError,
    CredentialRefused,
)
from quicbus.identity import Authority, Credential, Issued, JoinToken, Role, TrustList
from quicbus.identity.keys import generate_key
from quicbus.identity.trust import seal_trust
from quicbus.transport.engines import engine_named
from quicbus.wire.join_frames import Joined

if TYPE_CHECKING:
    from quicbus.transport.engine import EngineConfiguration

NOW = dt.datetime.now(dt.UTC)
AUTHORITY = Authority.create()
NEXT = Authority.create(mesh=AUTHORITY.mesh)
OLD = AUTHORITY.issue_client("alice", days=30)


def issued(
    authority: Authority = AUTHORITY,
    *,
    credential: Credential = OLD,
    role: Role = Role.CLIENT,
    name: str = "alice",
    trust: bytes = b"",
) -> Issued:
    leaf = authority.certify(role, name, credential.private_key.public_key(), days=30, now=NOW)
    return Issued(chain=(leaf,), authorities=(*AUTHORITY.authorities_der, *authority.authorities_der), trust=trust)


def trust_list(*signers: Authority) -> bytes:
    authorities = (*AUTHORITY.authorities_der, *NEXT.authorities_der)
    content = TrustList(mesh=AUTHORITY.mesh, version=1, made_at=int(NOW.timestamp()), authorities=authorities)
    return seal_trust(content, signers)


def test_a_renewed_certificate_is_taken_with_the_old_key_and_authority() -> None:
    new = renewed_credential(OLD, issued(), NOW)
    assert (new.node_id, new.authority_pem) == (OLD.node_id, OLD.authority_pem)


def test_an_authority_that_only_stands_beside_the_answer_is_not_trusted() -> None:
    assert renewed_credential(OLD, issued(), NOW).authority_pem == OLD.authority_pem
    with pytest.raises(CredentialError, match="not signed by the authority"):
        renewed_credential(OLD, issued(NEXT), NOW)


def test_an_authority_that_the_old_one_vouches_for_is_trusted() -> None:
    new = renewed_credential(OLD, issued(NEXT, trust=trust_list(AUTHORITY)), NOW)
    assert new.authority_pem == AUTHORITY.certificate_pem + NEXT.certificate_pem


def test_an_authority_that_vouches_for_itself_is_not() -> None:
    with pytest.raises(CredentialError, match="not signed by an authority"):
        renewed_credential(OLD, issued(NEXT, trust=trust_list(NEXT)), NOW)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (issued(credential=AUTHORITY.issue_client("alice")), "private key does not fit"),
        (issued(role=Role.NODE), "this is the credential of node alice"),
        (issued(name="bob"), "is for bob"),
        (Issued(chain=(b"\x30\x00",), authorities=(b"",)), "unreadable"),
    ],
    ids=["another key", "another role", "another name", "garbage"],
)
def test_what_was_not_asked_for_is_not_taken(answer: Issued, why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        renewed_credential(OLD, answer, NOW)


def test_a_token_for_a_client_makes_no_node_and_names_whom_it_says() -> None:
    key = generate_key()
    expires_at = NOW + dt.timedelta(hours=1)
    token = JoinToken.make(AUTHORITY.mesh, ["a:1"], AUTHORITY.authorities_der, Role.CLIENT, "alice", expires_at)
    for role in Role:
        leaf = AUTHORITY.certify(role, "alice", key.public_key())
        answer = Issued(chain=(leaf,), authorities=AUTHORITY.authorities_der)
        if role is Role.CLIENT:
            assert joined_credential(token, key, answer).name == "alice"
        else:
            with pytest.raises(CredentialError, match="a client credential is wanted"):
                joined_credential(token, key, answer)


class Scripted(CertificateOffice):
    """Nodes that answer as they are told to, by host."""

    def __init__(self, answers: dict[str, Joined | Exception]) -> None:
        super().__init__(engine_named("memory"))
        self.answers = answers
        self.asked: list[str] = []

    async def _ask_url(self, url: BrokerUrl, configuration: EngineConfiguration, frame: bytes) -> Joined:
        self.asked.append(url.host)
        answer = self.answers[url.host]
        if isinstance(answer, Exception):
            raise answer
        return answer


GOOD = Joined(issued=issued().encode())


@pytest.mark.parametrize(
    "first",
    [ConnectionFailed("no answer"), AuthorityUnavailable("nobody has the key"), Joined(issued=b"\xc1")],
    ids=["silent", "without the authority", "garbage"],
)
async def test_where_one_node_has_no_answer_the_next_is_asked(first: Joined | Exception) -> None:
    office = Scripted({"one": first, "two": GOOD})
    assert (await office.renew(OLD, [BrokerUrl("one", 1), BrokerUrl("two", 2)])).name == "alice"
    assert office.asked == ["one", "two"]


async def test_a_refusal_is_final() -> None:
    office = Scripted({"one": CredentialRefused(0x107, "used up"), "two": GOOD})
    with pytest.raises(CredentialRefused, match="used up"):
        await office.renew(OLD, [BrokerUrl("one", 1), BrokerUrl("two", 2)])
    assert office.asked == ["one"]


async def test_why_nobody_answered_is_told_and_that_it_may_work_later_goes_first() -> None:
    urls = [BrokerUrl("one", 1), BrokerUrl("two", 2)]
    nobody = Scripted({"one": ConnectionFailed("no answer"), "two": ConnectionFailed("no route")})
    with pytest.raises(ConnectFailed, match=r"quic://one:1: no answer; quic://two:2: no route"):
        await nobody.renew(OLD, urls)
    later = Scripted({"one": AuthorityUnavailable("try again"), "two": ConnectionFailed("no route")})
    with pytest.raises(AuthorityUnavailable, match="try again"):
        await later.renew(OLD, urls)
