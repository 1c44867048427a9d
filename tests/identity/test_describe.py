"""What `quicbus cert show` has to say."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes

from quicbus.exceptions import CredentialError
from quicbus.identity import Authority, describe_certificate
from tests.identity.certificates import DAY, NOW, certificate_of


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now=NOW)


def fingerprint(pem: bytes) -> str:
    return certificate_of(pem).fingerprint(hashes.SHA256()).hex()


def test_a_credential_is_described_by_its_own_certificate(authority: Authority) -> None:
    alice = authority.issue_client("alice", days=30, now=NOW)
    told = describe_certificate(alice.to_pem(), now=NOW + DAY)
    assert (told.role, told.name, told.mesh, told.id) == ("client", "alice", authority.mesh, alice.node_id.hex())
    assert (told.valid_from, told.valid_to) == (alice.not_before, alice.not_after)
    assert (told.days_left, told.is_valid_now, told.has_private_key) == (29, True, True)
    assert told.fingerprint == fingerprint(alice.chain_pem)
    assert told.issuer_fingerprint == fingerprint(authority.certificate_pem)


def test_a_bare_certificate_has_neither_key_nor_issuer(authority: Authority) -> None:
    told = describe_certificate(authority.issue_node("tokyo", now=NOW).chain_pem, now=NOW)
    assert (told.role, told.name, told.has_private_key, told.issuer_fingerprint) == ("node", "tokyo", False, "")


def test_an_authority_is_its_own_issuer(authority: Authority) -> None:
    told = describe_certificate(authority.certificate_pem, now=NOW)
    assert (told.role, told.name, told.mesh) == ("authority", "", authority.mesh)
    assert told.id == authority.mesh
    assert told.issuer_fingerprint == told.fingerprint


def test_an_expired_certificate_is_described_all_the_same(authority: Authority) -> None:
    alice = authority.issue_client("alice", days=30, now=NOW)
    told = describe_certificate(alice.chain_pem, now=NOW + 32 * DAY)
    assert (told.days_left, told.is_valid_now) == (-2, False)


def test_the_description_goes_through_json(authority: Authority) -> None:
    told = describe_certificate(authority.issue_client("alice", days=30, now=NOW).to_pem(), now=NOW).as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["role"] == "client"
    assert told["valid_to"] == "2026-03-31T12:00:00+00:00"


@pytest.mark.parametrize("data", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(CredentialError, match=r"^alice\.pem: "):
        describe_certificate(data, source="alice.pem")
