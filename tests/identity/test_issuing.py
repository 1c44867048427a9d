"""Issuing: a token or a certificate that ends goes in, a certificate for the same key comes out."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from quicbus import limits
from quicbus.exceptions import DataFolderError, ProtocolViolation
from quicbus.identity import (
    Authority,
    Credential,
    DataFolder,
    Issued,
    IssuedLog,
    Issuer,
    IssueRequest,
    ProofRefused,
    Revocation,
    Role,
    TokenStore,
    TrustStore,
    make_request,
)
from quicbus.identity.folder_trust import add_revocations
from quicbus.identity.issuing import MAX_ISSUED_SIZE
from quicbus.identity.keys import generate_key
from quicbus.wire.close_codes import CloseCode
from tests.identity.certificates import DAY, NOW, impostor_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity import JoinToken


@dataclasses.dataclass
class Office:
    folder: DataFolder

    @property
    def authority(self) -> Authority:
        assert self.folder.authority is not None
        return self.folder.authority

    def token(self, role: Role = Role.NODE, name: str = "osaka", uses: int = 1, days: float = 30) -> JoinToken:
        return TokenStore(self.folder.path).create(
            mesh=self.folder.mesh,
            seeds=["a.example:4433"],
            authorities=self.folder.trust.authorities_der,
            role=role,
            name=name,
            uses=uses,
            days=days,
            now=NOW,
        )

    def answer(self, request: IssueRequest, now: dt.datetime = NOW) -> Issued:
        request = IssueRequest.decode(request.encode())
        return Issued.decode(Issuer(self.folder.path, self.authority).answer(request, now).encode())

    def credential(self, key: ec.EllipticCurvePrivateKey, issued: Issued) -> Credential:
        return Credential.from_issued(key, issued.chain, self.folder.trust.authorities)

    def refusal(self, request: IssueRequest, now: dt.datetime = NOW) -> tuple[CloseCode, str]:
        logged = len(IssuedLog(self.folder.path).entries())
        with pytest.raises(ProofRefused) as caught:
            self.answer(request, now)
        assert len(IssuedLog(self.folder.path).entries()) == logged
        assert len(caught.value.why.encode()) <= limits.MAX_CLOSE_REASON_SIZE
        return caught.value.code, caught.value.why


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with DataFolder.open(tmp_path / "data", may_create_authority=True, node_name="tokyo", now=NOW) as folder:
        yield Office(folder)


def joining(
    token: JoinToken, key: ec.EllipticCurvePrivateKey, local: ec.EllipticCurvePrivateKey | None = None
) -> IssueRequest:
    csr, local_csr = make_request(key), make_request(local) if local else b""
    return IssueRequest(csr=csr, token_id=token.id, signature=token.sign(csr, local_csr), local_csr=local_csr)


def renewing(credential: Credential) -> IssueRequest:
    return IssueRequest(csr=make_request(credential.private_key), chain=tuple(credential.chain_der))


class TestJoining:
    def test_role_name_and_life_are_those_of_the_token(self, office: Office) -> None:
        key = generate_key()
        node = office.credential(key, office.answer(joining(office.token(days=7), key)))
        assert (node.role, node.name, node.not_after) == (Role.NODE, "osaka", NOW + 7 * DAY)

    def test_a_node_gets_a_credential_of_its_name_for_its_local_applications(self, office: Office) -> None:
        key, local_key = generate_key(), generate_key()
        issued = office.answer(joining(office.token(), key, local_key))
        local = Credential.from_issued(local_key, issued.local_chain, office.folder.trust.authorities)
        assert (local.role, local.name) == (Role.CLIENT, "osaka")

    def test_a_client_gets_no_second_certificate(self, office: Office) -> None:
        issued = office.answer(joining(office.token(Role.CLIENT), generate_key(), generate_key()))
        assert issued.local_chain == ()

    def test_what_was_issued_is_in_the_log(self, office: Office) -> None:
        office.answer(joining(office.token(), generate_key(), generate_key()))
        assert [(one.role, one.name) for one in IssuedLog(office.folder.path).entries()[-2:]] == [
            (Role.NODE, "osaka"),
            (Role.CLIENT, "osaka"),
        ]

    def test_a_repeated_request_is_answered_for_the_same_key_and_name(self, office: Office) -> None:
        key = generate_key()
        request = joining(office.token(), key)
        first, second = (office.credential(key, office.answer(request)) for _ in range(2))
        assert (first.name, first.node_id) == (second.name, second.node_id)

    def test_a_used_token_is_refused_to_another_key(self, office: Office) -> None:
        token = office.token()
        office.answer(joining(token, generate_key()))
        code, why = office.refusal(joining(token, generate_key()))
        assert code is CloseCode.TOKEN_REFUSED
        assert "used up" in why

    @pytest.mark.parametrize("changed", ["csr", "local_csr"])
    def test_who_passes_a_request_on_can_not_put_in_his_own_key(self, changed: str, office: Office) -> None:
        request = joining(office.token(), generate_key(), generate_key())
        forged = msgspec.structs.replace(request, **{changed: make_request(generate_key())})
        assert office.refusal(forged)[0] is CloseCode.TOKEN_REFUSED
        office.answer(request)

    def test_neither_token_nor_certificate_is_refused(self, office: Office) -> None:
        code, why = office.refusal(IssueRequest(csr=make_request(generate_key())))
        assert code is CloseCode.TOKEN_REFUSED
        assert "quicbus token create" in why

    @pytest.mark.parametrize("csr", [b"", b"junk", b"\x30\x80"])
    def test_an_unreadable_request_uses_up_nothing(self, csr: bytes, office: Office) -> None:
        token = office.token()
        request = IssueRequest(csr=csr, token_id=token.id, signature=token.sign(csr))
        assert office.refusal(request)[0] is CloseCode.CREDENTIAL_INVALID
        good = make_request(generate_key())
        request = IssueRequest(csr=good, token_id=token.id, signature=token.sign(good, b"x"), local_csr=b"x")
        assert office.refusal(request)[0] is CloseCode.CREDENTIAL_INVALID
        assert TokenStore(office.folder.path).list()[0].uses_left == 1

    def test_a_revoked_key_does_not_come_back_by_a_token(self, office: Office) -> None:
        key = generate_key()
        token = office.token(uses=2)
        node = office.credential(key, office.answer(joining(token, key)))
        revoke(office, node)
        assert office.refusal(joining(token, key))[0] is CloseCode.CREDENTIAL_REVOKED

    def test_a_damaged_store_is_the_operators_affair(self, office: Office) -> None:
        request = joining(office.token(), generate_key())
        (office.folder.path / "tokens.json").write_bytes(b"junk")
        with pytest.raises(DataFolderError, match=r"tokens\.json is damaged"):
            office.answer(request)


def revoke(office: Office, credential: Credential) -> None:
    until = int((NOW + 100 * DAY).timestamp())
    entry = Revocation(credential.node_id, credential.role, credential.name, int(NOW.timestamp()), until)
    add_revocations(office.folder.path, [entry], NOW)


class TestRenewing:
    def test_key_name_role_and_life_stay(self, office: Office) -> None:
        old = office.authority.issue_client("alice", days=12, now=NOW)
        later = NOW + 9 * DAY
        new = office.credential(old.private_key, office.answer(renewing(old), later))
        assert (new.role, new.name, new.node_id) == (old.role, old.name, old.node_id)
        assert new.not_after == later + 12 * DAY

    def test_an_expired_certificate_is_renewed_for_thirty_days_and_no_longer(self, office: Office) -> None:
        old = office.authority.issue_node("osaka", now=NOW)
        new = office.credential(old.private_key, office.answer(renewing(old), NOW + 60 * DAY))
        assert new.not_after == NOW + 90 * DAY
        code, why = office.refusal(renewing(old), NOW + 60 * DAY + DAY / 24)
        assert code is CloseCode.CREDENTIAL_EXPIRED
        assert "more than 30 days ago" in why

    def test_a_renewal_is_for_the_key_of_the_certificate(self, office: Office) -> None:
        old = office.authority.issue_node("osaka", now=NOW)
        request = IssueRequest(csr=make_request(generate_key()), chain=tuple(old.chain_der))
        code, why = office.refusal(request)
        assert code is CloseCode.CREDENTIAL_INVALID
        assert "another key than the certificate" in why

    def test_a_revoked_key_is_not_renewed(self, office: Office) -> None:
        old = office.authority.issue_node("osaka", now=NOW)
        revoke(office, old)
        assert office.refusal(renewing(old), NOW + 40 * DAY)[0] is CloseCode.CREDENTIAL_REVOKED

    def test_a_certificate_of_another_authority_is_not_renewed(self, office: Office) -> None:
        forged = impostor_of(office.authority).issue_node("osaka", now=NOW)
        assert office.refusal(renewing(forged))[0] is CloseCode.CREDENTIAL_INVALID
        other = Authority.create(now=NOW).issue_node("osaka", now=NOW)
        assert office.refusal(renewing(other))[0] is CloseCode.CREDENTIAL_OTHER_MESH

    def test_the_answer_brings_the_trust_list(self, office: Office) -> None:
        old = office.authority.issue_node("osaka", now=NOW)
        assert office.answer(renewing(old)).trust == b""
        revoke(office, office.authority.issue_client("alice", now=NOW))
        issued = office.answer(renewing(old))
        store = TrustStore(office.folder.mesh, old.authority_pem)
        assert store.take(issued.trust, NOW)
        assert store.authorities_der == issued.authorities


class TestOnTheWire:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xc1",
            b"\x80",
            b"\x90",
            b"\x91" * 3000,
            bytes(40_000),
            msgspec.msgpack.encode({"csr": b"x" * 5000}),
            msgspec.msgpack.encode({"csr": b"", "chain": [b""] * 5}),
            msgspec.msgpack.encode({"csr": b"", "chain": [b"x" * 5000]}),
            msgspec.msgpack.encode({"csr": b"", "token_id": b"x" * 9}),
            msgspec.msgpack.encode({"csr": "text"}),
        ],
    )
    def test_a_request_of_another_form_is_a_violation(self, data: bytes) -> None:
        with pytest.raises(ProtocolViolation, match="signing request"):
            IssueRequest.decode(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x80",
            bytes(MAX_ISSUED_SIZE + 1),
            msgspec.msgpack.encode({"chain": [], "authorities": [b""]}),
            msgspec.msgpack.encode({"chain": [b""], "authorities": []}),
            msgspec.msgpack.encode({"chain": [b""], "authorities": [b""] * 5}),
        ],
    )
    def test_an_answer_of_another_form_is_a_violation(self, data: bytes) -> None:
        with pytest.raises(ProtocolViolation, match="answer to a signing request"):
            Issued.decode(data)

    def test_mutated_requests_are_violations_or_refused(self, office: Office) -> None:
        rng = random.Random(22)
        token, key = office.token(), generate_key()
        samples = [joining(token, key, key).encode(), renewing(office.authority.issue_node("osaka", now=NOW)).encode()]
        issuer, outcomes = Issuer(office.folder.path, office.authority), set()
        for turn in range(150):
            mutated = bytearray(samples[turn % 2])
            mutated[rng.randrange(len(mutated))] ^= rng.randrange(1, 256)
            try:
                issuer.answer(IssueRequest.decode(bytes(mutated)), NOW)
                outcomes.add("issued")
            except (ProtocolViolation, ProofRefused) as error:
                outcomes.add(type(error).__name__)
        assert {"ProtocolViolation", "ProofRefused"} <= outcomes, "seed 22"
