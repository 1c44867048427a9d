"""Verified chains are kept as long as nothing that they rest on has changed."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus.identity import Authority, Credential, ProofRefused, Revocation, Verifier, sign_proof
from quicbus.wire.close_codes import CloseCode
from tests.identity.certificates import DAY, NOW
from tests.performance.builtin_calls import count_builtin_calls

FIRST = Authority.create(now=NOW)
SECOND = Authority.create(now=NOW, mesh=FIRST.mesh)
ALICE = FIRST.issue_client("alice", now=NOW)
BINDING = b"b" * 32


def new_verifier() -> Verifier:
    return Verifier(FIRST.certificate_pem, FIRST.mesh)


def test_a_known_chain_costs_one_signature_and_no_certificate() -> None:
    verifier = new_verifier()
    proof = sign_proof(ALICE, BINDING, "client")
    verifier.verify(ALICE.chain_der, proof, BINDING, "client", NOW)
    with count_builtin_calls() as calls:
        peer = verifier.verify(ALICE.chain_der, proof, BINDING, "client", NOW + DAY)
    assert peer.name == "alice"
    assert calls["verify"] == 1, "that of the proof"
    assert calls["load_der_x509_certificate"] == 0


def test_the_proof_of_a_known_chain_is_verified_all_the_same() -> None:
    verifier = new_verifier()
    verifier.verify(ALICE.chain_der, sign_proof(ALICE, BINDING, "client"), BINDING, "client", NOW)
    with pytest.raises(ProofRefused) as caught:
        verifier.verify(ALICE.chain_der, sign_proof(ALICE, b"o" * 32, "client"), BINDING, "client", NOW)
    assert caught.value.code is CloseCode.PROOF_INVALID
    with pytest.raises(ProofRefused) as caught:
        verifier.verify(ALICE.chain_der, sign_proof(ALICE, BINDING, "node"), BINDING, "node", NOW)
    assert caught.value.code is CloseCode.CREDENTIAL_WRONG_ROLE


def test_a_known_chain_is_refused_from_its_revocation_on() -> None:
    revoked: dict[bytes, Revocation] = {}
    verifier = Verifier(FIRST.certificate_pem, FIRST.mesh, revoked.get)
    verifier.verify_chain(ALICE.chain_der, NOW)
    stamp = int(NOW.timestamp())
    revoked[ALICE.node_id] = Revocation(ALICE.node_id, "client", "alice", stamp, stamp)
    with pytest.raises(ProofRefused) as caught:
        verifier.verify_chain(ALICE.chain_der, NOW)
    assert caught.value.code is CloseCode.CREDENTIAL_REVOKED


@pytest.mark.parametrize("days", [-1, 31])
def test_a_known_chain_is_refused_outside_of_its_period(days: int) -> None:
    verifier = new_verifier()
    verifier.verify_chain(ALICE.chain_der, NOW)
    with pytest.raises(ProofRefused) as caught:
        verifier.verify_chain(ALICE.chain_der, NOW + days * DAY)
    assert caught.value.code is CloseCode.CREDENTIAL_EXPIRED


def test_a_known_chain_is_verified_again_when_an_authority_beside_its_own_ends() -> None:
    short = Authority.create(now=NOW, mesh=FIRST.mesh, days=10)
    verifier = Verifier(FIRST.certificate_pem + short.certificate_pem, FIRST.mesh)
    verifier.verify_chain(ALICE.chain_der, NOW)
    with count_builtin_calls() as calls:
        verifier.verify_chain(ALICE.chain_der, NOW + 11 * DAY)
        verifier.verify_chain(ALICE.chain_der, NOW + 12 * DAY)
    assert calls["load_der_x509_certificate"] == 1


def test_a_chain_of_an_authority_that_is_trusted_no_more_is_forgotten() -> None:
    verifier = new_verifier()
    verifier.verify_chain(ALICE.chain_der, NOW)
    verifier.trust(SECOND.certificate_pem)
    with pytest.raises(ProofRefused) as caught:
        verifier.verify_chain(ALICE.chain_der, NOW)
    assert caught.value.code is CloseCode.CREDENTIAL_INVALID


def test_what_was_refused_is_not_kept() -> None:
    verifier = new_verifier()
    stranger = SECOND.issue_client("alice", now=NOW)
    for _ in range(2):
        with pytest.raises(ProofRefused):
            verifier.verify_chain(stranger.chain_der, NOW)
    assert len(verifier.verified) == 0


def test_only_so_many_are_kept_and_the_one_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEPT_CHAINS", 2)
    verifier = new_verifier()
    bob, carol = (FIRST.issue_client(name, now=NOW) for name in ("bob", "carol"))
    for each in (ALICE, bob, ALICE, carol):
        verifier.verify_chain(each.chain_der, NOW)
    with count_builtin_calls() as calls:
        verifier.verify_chain(ALICE.chain_der, NOW)
        verifier.verify_chain(carol.chain_der, NOW)
    assert calls["load_der_x509_certificate"] == 0
    assert len(verifier.verified) == 2


def test_a_long_chain_is_taken_but_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEPT_CHAIN_SIZE", len(ALICE.chain_der[0]) - 1)
    verifier = new_verifier()
    verifier.verify_chain(ALICE.chain_der, NOW)
    assert len(verifier.verified) == 0


def test_a_credential_is_parsed_once_while_it_is_in_use() -> None:
    data = FIRST.issue_client("dora", now=NOW).to_pem()
    kept = Credential.from_pem(data, now=NOW)
    with count_builtin_calls() as calls:
        assert Credential.from_pem(data, now=NOW) is kept
    assert (calls["load_pem_x509_certificate"], calls["load_pem_private_key"]) == (0, 0)
    del kept
    with count_builtin_calls() as calls:
        Credential.from_pem(data, now=NOW)
    assert calls["load_pem_private_key"] == 1, "no key is kept that nobody uses"
