"""The verifier over time: authorities that follow each other, revoked keys, certificates that may only be renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.identity import Authority, Credential, ProofRefused, Revocation, Verifier, sign_proof
from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode
from tests.identity.certificates import DAY, NOW, impostor_of

if TYPE_CHECKING:
    import datetime as dt

FIRST = Authority.create(now=NOW)
SECOND = Authority.create(now=NOW, mesh=FIRST.mesh)
BINDING = b"b" * 32
STAMP = int(NOW.timestamp())


def prove(verifier: Verifier, credential: Credential, now: dt.datetime = NOW) -> str:
    proof = sign_proof(credential, BINDING, credential.role)
    return verifier.verify(credential.chain_der, proof, BINDING, credential.role, now).name


def code_of(verifier: Verifier, credential: Credential, now: dt.datetime = NOW) -> CloseCode:
    with pytest.raises(ProofRefused) as caught:
        prove(verifier, credential, now)
    return caught.value.code


def renewal_code(verifier: Verifier, credential: Credential, now: dt.datetime) -> CloseCode:
    with pytest.raises(ProofRefused) as caught:
        verifier.verify_renewal(credential.chain_der, now)
    return caught.value.code


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
@pytest.mark.parametrize("issuer", [FIRST, SECOND])
def test_certificates_of_all_trusted_authorities_are_taken(issuer: Authority, order: tuple[Authority, ...]) -> None:
    verifier = Verifier(b"".join(one.certificate_pem for one in order), FIRST.mesh)
    assert prove(verifier, issuer.issue_client("alice", now=NOW)) == "alice"
    assert prove(verifier, issuer.issue_node("tokyo", now=NOW)) == "tokyo"
    assert code_of(verifier, impostor_of(issuer).issue_client("alice", now=NOW)) is CloseCode.CREDENTIAL_INVALID


def test_a_living_verifier_follows_the_authorities() -> None:
    verifier = Verifier(FIRST.certificate_pem, FIRST.mesh)
    old, new = FIRST.issue_client("old", now=NOW), SECOND.issue_client("new", now=NOW)
    assert code_of(verifier, new) is CloseCode.CREDENTIAL_INVALID
    verifier.trust(FIRST.certificate_pem + SECOND.certificate_pem)
    assert [prove(verifier, one) for one in (old, new)] == ["old", "new"]
    verifier.trust(SECOND.certificate_pem)
    assert prove(verifier, new) == "new"
    assert code_of(verifier, old) is CloseCode.CREDENTIAL_INVALID


class TestRevoked:
    revoked: dict[bytes, Revocation]

    @pytest.fixture
    def verifier(self) -> Verifier:
        self.revoked = {}
        return Verifier(FIRST.certificate_pem, FIRST.mesh, self.revoked.get)

    def revoke(self, credential: Credential) -> None:
        key_id = credential.node_id
        self.revoked[key_id] = Revocation(key_id, credential.role, credential.name, STAMP, STAMP + 1)

    def test_a_revoked_key_is_refused_from_then_on(self, verifier: Verifier) -> None:
        alice = FIRST.issue_client("alice", now=NOW)
        assert prove(verifier, alice) == "alice"
        self.revoke(alice)
        assert code_of(verifier, alice) is CloseCode.CREDENTIAL_REVOKED
        assert CloseCode.CREDENTIAL_REVOKED in CREDENTIAL_CODES

    def test_so_are_other_certificates_for_the_key_and_no_others_of_the_name(self, verifier: Verifier) -> None:
        alice = FIRST.issue_client("alice", now=NOW)
        self.revoke(alice)
        renewed = FIRST.issue_client("alice", key=alice.private_key, now=NOW + DAY)
        renamed = FIRST.issue_node("tokyo", key=alice.private_key, now=NOW)
        for one in (renewed, renamed):
            assert code_of(verifier, one, NOW + 2 * DAY) is CloseCode.CREDENTIAL_REVOKED
        assert prove(verifier, FIRST.issue_client("alice", now=NOW)) == "alice"

    def test_chains_and_renewals_are_refused_too(self, verifier: Verifier) -> None:
        tokyo = FIRST.issue_node("tokyo", now=NOW)
        self.revoke(tokyo)
        with pytest.raises(ProofRefused, match=r"node tokyo was revoked on 2026-03-01 12:00 UTC") as caught:
            verifier.verify_chain(tokyo.chain_der, NOW)
        assert "quicbus cert issue --node" in caught.value.why
        assert renewal_code(verifier, tokyo, NOW + 40 * DAY) is CloseCode.CREDENTIAL_REVOKED

    def test_who_forges_a_revoked_certificate_learns_nothing(self, verifier: Verifier) -> None:
        alice = FIRST.issue_client("alice", now=NOW)
        self.revoke(alice)
        forged = impostor_of(FIRST).issue_client("alice", key=alice.private_key, now=NOW)
        assert code_of(verifier, forged) is CloseCode.CREDENTIAL_INVALID


class TestRenewal:
    verifier = Verifier(FIRST.certificate_pem, FIRST.mesh)
    alice = FIRST.issue_client("alice", days=10, now=NOW)

    @pytest.mark.parametrize("days", [0, 9, 10, 11, 40])
    def test_a_certificate_may_be_renewed_in_its_life_and_thirty_days_more(self, days: int) -> None:
        peer, key = self.verifier.verify_renewal(self.alice.chain_der, NOW + days * DAY)
        assert (peer.name, peer.node_id) == ("alice", self.alice.node_id)
        assert key == self.alice.private_key.public_key()

    def test_then_it_says_how_to_come_back(self) -> None:
        with pytest.raises(ProofRefused, match="join again with a token") as caught:
            self.verifier.verify_renewal(self.alice.chain_der, NOW + 40 * DAY + DAY / 24)
        assert caught.value.code is CloseCode.CREDENTIAL_EXPIRED
        assert len(caught.value.why.encode()) <= limits.MAX_CLOSE_REASON_SIZE

    def test_an_expired_one_is_good_for_nothing_else(self) -> None:
        assert code_of(self.verifier, self.alice, NOW + 11 * DAY) is CloseCode.CREDENTIAL_EXPIRED

    def test_one_that_is_not_valid_yet_is_not_renewed(self) -> None:
        assert renewal_code(self.verifier, self.alice, NOW - DAY) is CloseCode.CREDENTIAL_EXPIRED

    def test_an_authority_that_ended_with_the_certificate_still_vouches_for_it(self) -> None:
        short = Authority.create(days=5, now=NOW)
        following = Authority.create(mesh=short.mesh, now=NOW)
        verifier = Verifier(short.certificate_pem + following.certificate_pem, short.mesh)
        old = short.issue_client("alice", now=NOW)
        assert verifier.verify_renewal(old.chain_der, NOW + 20 * DAY)[0].name == "alice"

    def test_forged_foreign_and_unreadable_chains_are_refused(self) -> None:
        later = NOW + 11 * DAY
        forged = impostor_of(FIRST).issue_client("alice", now=NOW)
        assert renewal_code(self.verifier, forged, later) is CloseCode.CREDENTIAL_INVALID
        foreign = Authority.create(now=NOW).issue_client("alice", now=NOW)
        assert renewal_code(self.verifier, foreign, later) is CloseCode.CREDENTIAL_OTHER_MESH
        for chain in ([], [b"junk"], self.alice.chain_der * 5):
            with pytest.raises(ProofRefused) as caught:
                self.verifier.verify_renewal(chain, later)
            assert caught.value.code is CloseCode.CREDENTIAL_INVALID
