"""Proofs of possession: who is taken, and every way in which one is refused."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from quicbus import limits
from quicbus.identity import Authority, Credential, Peer, ProofRefused, Role, Verifier, server_name_of, sign_proof
from quicbus.identity.peer import MAX_CERTIFICATE_SIZE, MAX_CHAIN_LENGTH
from quicbus.identity.proof import _signed_bytes
from quicbus.wire.close_codes import CloseCode
from tests.identity.certificates import DAY, NOW, impostor_of, issued_by_a_client, with_names
from tests.identity.handshakes import PAIRINGS, handshake

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

BINDING = b"b" * 32
ISSUE_CLIENT = "quicbus cert issue --client NAME --out FILE"
ISSUE_NODE = "quicbus cert issue --node NAME --out DIR"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now=NOW)


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Credential:
    return authority.issue_client("alice", now=NOW)


@pytest.fixture(scope="module")
def tokyo(authority: Authority) -> Credential:
    return authority.issue_node("tokyo", now=NOW)


@pytest.fixture(scope="module")
def verifier(authority: Authority) -> Verifier:
    return Verifier(authority.certificate_pem, authority.mesh)


def refusal(
    verifier: Verifier,
    chain: Sequence[bytes],
    signature: bytes,
    binding: bytes = BINDING,
    kind: str = "client",
    now: dt.datetime = NOW,
) -> ProofRefused:
    with pytest.raises(ProofRefused) as caught:
        verifier.verify(chain, signature, binding, kind, now)
    assert len(caught.value.why.encode()) <= limits.MAX_CLOSE_REASON_SIZE
    assert "\n" not in caught.value.why
    return caught.value


def refused_credential(verifier: Verifier, credential: Credential, kind: str = "client") -> ProofRefused:
    return refusal(verifier, credential.chain_der, sign_proof(credential, BINDING, kind), kind=kind)


def test_a_client_is_taken_for_a_client_session(verifier: Verifier, alice: Credential) -> None:
    peer = verifier.verify(alice.chain_der, sign_proof(alice, BINDING, "client"), BINDING, "client", NOW)
    assert peer == Peer(Role.CLIENT, "alice", alice.mesh, alice.node_id, alice.not_after)


def test_a_node_is_taken_for_a_node_session(verifier: Verifier, tokyo: Credential) -> None:
    peer = verifier.verify(tokyo.chain_der, sign_proof(tokyo, BINDING, "node"), BINDING, "node", NOW)
    assert peer == Peer(Role.NODE, "tokyo", tokyo.mesh, tokyo.node_id, tokyo.not_after)


def test_a_missing_credential_is_told_how_to_get_one(verifier: Verifier, alice: Credential) -> None:
    signature = sign_proof(alice, BINDING, "client")
    for chain, signed in (([], b""), ([], signature), (alice.chain_der, b"")):
        refused = refusal(verifier, chain, signed)
        assert refused.code is CloseCode.CREDENTIAL_MISSING
        assert ISSUE_CLIENT in refused.why
    assert ISSUE_NODE in refusal(verifier, [], b"", kind="node").why


@pytest.mark.parametrize("junk", [b"\x00", b"garbage", b"\x30\x03\x02\x01\x00", b"\x30\x82\xff\xff" + b"x" * 100])
def test_garbage_for_a_certificate_is_refused(junk: bytes, verifier: Verifier, alice: Credential) -> None:
    signature = sign_proof(alice, BINDING, "client")
    for chain in ([junk], [*alice.chain_der, junk]):
        refused = refusal(verifier, chain, signature)
        assert refused.code is CloseCode.CREDENTIAL_INVALID
        assert ISSUE_CLIENT in refused.why


def test_a_certificate_with_any_signed_byte_changed_is_refused(verifier: Verifier, alice: Credential) -> None:
    signature = sign_proof(alice, BINDING, "client")
    (genuine,) = alice.chain_der
    signed = x509.load_der_x509_certificate(genuine).tbs_certificate_bytes
    start = genuine.index(signed)
    for position in range(start, start + len(signed)):
        changed = genuine[:position] + bytes([genuine[position] ^ 0x01]) + genuine[position + 1 :]
        assert refusal(verifier, [changed], signature).code in {
            CloseCode.CREDENTIAL_INVALID,
            CloseCode.CREDENTIAL_OTHER_MESH,
            CloseCode.CREDENTIAL_EXPIRED,
        }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mutilated_certificates_end_in_a_refusal_or_in_the_genuine_name(
    seed: int, verifier: Verifier, alice: Credential
) -> None:
    chance = random.Random(seed)
    (genuine,) = alice.chain_der
    signature = sign_proof(alice, BINDING, "client")
    for _ in range(1000):
        changed = bytearray(genuine)
        for _ in range(chance.choice((1, 2, 5))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        if chance.random() < 0.2:
            del changed[chance.randrange(len(changed)) :]
        chain = [bytes(changed)] if chance.random() < 0.7 else [genuine, bytes(changed)]
        try:
            peer = verifier.verify(chain, signature, BINDING, "client", NOW)
        except ProofRefused:
            continue
        # A few bits around the authority's signature are not signed, and a certificate beside the chain is not used.
        assert (peer.name, peer.node_id) == ("alice", alice.node_id)


def test_too_long_a_chain_too_large_a_certificate_or_signature_are_refused_unread(
    verifier: Verifier, alice: Credential
) -> None:
    signature = sign_proof(alice, BINDING, "client")
    for chain, signed in (
        ([b"x"] * (MAX_CHAIN_LENGTH + 1), signature),
        ([b"x" * (MAX_CERTIFICATE_SIZE + 1)], signature),
        (alice.chain_der, b"x" * 81),
    ):
        assert refusal(verifier, chain, signed).code is CloseCode.CREDENTIAL_INVALID


def test_a_certificate_with_an_expensive_key_is_refused(verifier: Verifier, alice: Credential) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .sign(key, hashes.SHA256())
    )
    refused = refusal(verifier, [*alice.chain_der, der_of(certificate)], sign_proof(alice, BINDING, "client"))
    assert refused.code is CloseCode.CREDENTIAL_INVALID
    assert "P-256" in refused.why


def test_another_mesh_with_the_same_names_is_refused_by_both_ids(verifier: Verifier) -> None:
    other = Authority.create(now=NOW)
    for credential, kind in ((other.issue_client("alice", now=NOW), "client"), (other.issue_node("tokyo"), "node")):
        refused = refused_credential(verifier, credential, kind)
        assert refused.code is CloseCode.CREDENTIAL_OTHER_MESH
        assert other.mesh in refused.why
        assert verifier.mesh in refused.why
        assert "quicbus cert issue" in refused.why


def test_an_authority_with_the_right_names_and_another_key_is_refused(verifier: Verifier, authority: Authority) -> None:
    refused = refused_credential(verifier, impostor_of(authority).issue_client("alice", now=NOW))
    assert refused.code is CloseCode.CREDENTIAL_INVALID
    assert "not signed by the authority of this mesh" in refused.why
    assert ISSUE_CLIENT in refused.why


def test_an_impostors_authority_in_the_chain_changes_nothing(verifier: Verifier, authority: Authority) -> None:
    impostor = impostor_of(authority)
    mallory = impostor.issue_client("alice", now=NOW)
    root = der_of(x509.load_pem_x509_certificate(impostor.certificate_pem))
    refused = refusal(verifier, [*mallory.chain_der, root], sign_proof(mallory, BINDING, "client"))
    assert refused.code is CloseCode.CREDENTIAL_INVALID


def test_the_genuine_authority_in_the_chain_does_no_harm(
    verifier: Verifier, authority: Authority, alice: Credential
) -> None:
    root = der_of(x509.load_pem_x509_certificate(authority.certificate_pem))
    chain = [*alice.chain_der, root]
    assert verifier.verify(chain, sign_proof(alice, BINDING, "client"), BINDING, "client", NOW).name == "alice"


def test_neither_a_client_nor_a_node_can_issue_certificates(
    verifier: Verifier, authority: Authority, alice: Credential, tokyo: Credential
) -> None:
    for issuer in (alice, tokyo):
        forged = issued_by_a_client(authority.issue_node("osaka", now=NOW), issuer)
        assert refused_credential(verifier, forged, "node").code is CloseCode.CREDENTIAL_INVALID


def test_the_authoritys_own_certificate_is_no_credential(verifier: Verifier, authority: Authority) -> None:
    root = der_of(x509.load_pem_x509_certificate(authority.certificate_pem))
    refused = refusal(verifier, [root], b"signature")
    assert refused.code is CloseCode.CREDENTIAL_INVALID


def test_a_client_certificate_with_the_nodes_dns_name_is_refused(
    verifier: Verifier, authority: Authority, alice: Credential
) -> None:
    names = [
        x509.UniformResourceIdentifier(f"quicbus://{authority.mesh}/client/alice"),
        x509.DNSName(server_name_of(authority.mesh)),
    ]
    chain = with_names(authority, alice, names)
    assert refusal(verifier, chain, sign_proof(alice, BINDING, "client")).code is CloseCode.CREDENTIAL_INVALID


def test_an_expired_certificate_is_refused_with_its_date(verifier: Verifier, authority: Authority) -> None:
    alice = authority.issue_client("alice", days=1, now=NOW)
    signature = sign_proof(alice, BINDING, "client")
    assert verifier.verify(alice.chain_der, signature, BINDING, "client", alice.not_after).name == "alice"
    refused = refusal(verifier, alice.chain_der, signature, now=NOW + 2 * DAY)
    assert refused.code is CloseCode.CREDENTIAL_EXPIRED
    assert "client alice expired on 2026-03-02 12:00 UTC" in refused.why
    assert ISSUE_CLIENT in refused.why


def test_a_certificate_that_is_not_valid_yet_points_at_the_clocks(verifier: Verifier, alice: Credential) -> None:
    refused = refusal(verifier, alice.chain_der, sign_proof(alice, BINDING, "client"), now=NOW - DAY)
    assert refused.code is CloseCode.CREDENTIAL_EXPIRED
    assert "set the clocks" in refused.why


def test_an_expired_authority_is_named_as_the_cause() -> None:
    authority = Authority.create(days=1, now=NOW)
    longer = Authority(
        authority._key,
        x509.load_pem_x509_certificate(Authority.create(days=10, key=authority._key, now=NOW).certificate_pem),
        authority.mesh,
    )
    alice = longer.issue_client("alice", days=5, now=NOW)
    verifier = Verifier(authority.certificate_pem, authority.mesh)
    refused = refusal(verifier, alice.chain_der, sign_proof(alice, BINDING, "client"), now=NOW + 2 * DAY)
    assert refused.code is CloseCode.CREDENTIAL_EXPIRED
    assert "the authority of this mesh expired" in refused.why


def test_a_client_can_not_open_a_node_session(verifier: Verifier, alice: Credential) -> None:
    refused = refused_credential(verifier, alice, "node")
    assert refused.code is CloseCode.CREDENTIAL_WRONG_ROLE
    assert ISSUE_NODE in refused.why


def test_a_node_can_not_open_a_client_session(verifier: Verifier, tokyo: Credential) -> None:
    refused = refused_credential(verifier, tokyo)
    assert refused.code is CloseCode.CREDENTIAL_WRONG_ROLE
    assert ISSUE_CLIENT in refused.why


@pytest.mark.parametrize("kind", ["", "admin", "NODE", "x" * 5000])
def test_an_unknown_kind_of_session_is_refused(kind: str, verifier: Verifier, alice: Credential) -> None:
    assert refused_credential(verifier, alice, kind).code is CloseCode.CREDENTIAL_WRONG_ROLE


def test_a_signature_by_another_key_is_refused(verifier: Verifier, authority: Authority, alice: Credential) -> None:
    mallory = authority.issue_client("mallory", now=NOW)
    refused = refusal(verifier, alice.chain_der, sign_proof(mallory, BINDING, "client"))
    assert refused.code is CloseCode.PROOF_INVALID
    assert "connect straight to the broker" in refused.why


@pytest.mark.parametrize("signature", [b"x", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"\x00" * 72])
def test_a_signature_that_is_none_is_refused(signature: bytes, verifier: Verifier, alice: Credential) -> None:
    assert refusal(verifier, alice.chain_der, signature).code is CloseCode.PROOF_INVALID


def test_each_signed_part_counts(verifier: Verifier, alice: Credential, tokyo: Credential) -> None:
    genuine = (alice.mesh, BINDING, alice.node_id, "client")
    others = ("0" * 32, b"c" * 32, tokyo.node_id, "node")
    for index, other in enumerate(others):
        parts = [*genuine]
        parts[index] = other
        signed = _signed_bytes(*parts)  # type: ignore[arg-type]
        signature = alice.private_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        assert refusal(verifier, alice.chain_der, signature).code is CloseCode.PROOF_INVALID


def test_no_two_sets_of_parts_sign_the_same_bytes() -> None:
    texts, blobs = ("", "a", "aa"), (b"", b"a", b"aa")
    encoded = [_signed_bytes(*parts) for parts in itertools.product(texts, blobs, blobs, texts)]
    assert len(set(encoded)) == len(encoded)


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
def test_a_proof_of_one_session_is_refused_in_another(
    dialer: str, listener: str, authority: Authority, verifier: Verifier, alice: Credential, tmp_path: Path
) -> None:
    node = authority.issue_node("tokyo")
    first, second = (handshake(dialer, listener, node, tmp_path) for _ in range(2))
    assert first.dialer_binding is not None
    assert second.listener_binding is not None
    assert first.listener_binding == first.dialer_binding
    signature = sign_proof(alice, first.dialer_binding, "client")
    assert verifier.verify(alice.chain_der, signature, first.dialer_binding, "client", NOW).name == "alice"
    refused = refusal(verifier, alice.chain_der, signature, second.listener_binding)
    assert refused.code is CloseCode.PROOF_INVALID


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
def test_a_node_can_not_relay_a_clients_proof_to_another_node(
    dialer: str, listener: str, authority: Authority, verifier: Verifier, alice: Credential, tmp_path: Path
) -> None:
    # Alice dials osaka, a genuine node gone bad, which passes on all that she sends to tokyo.
    to_osaka = handshake(dialer, listener, authority.issue_node("osaka"), tmp_path)
    to_tokyo = handshake(listener, dialer, authority.issue_node("tokyo"), tmp_path)
    assert to_osaka.dialer_binding is not None
    assert to_tokyo.listener_binding is not None
    relayed = sign_proof(alice, to_osaka.dialer_binding, "client")
    refused = refusal(verifier, alice.chain_der, relayed, to_tokyo.listener_binding)
    assert refused.code is CloseCode.PROOF_INVALID


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
