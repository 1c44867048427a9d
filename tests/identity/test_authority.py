"""The authority: what it writes into certificates, and what it refuses."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from quicbus.exceptions import CredentialError, InvalidSetting
from quicbus.identity import Authority, Role, mesh_id_of, node_id_of, server_name_of
from quicbus.identity.credential import CLOCK_SKEW
from quicbus.identity.keys import generate_key
from tests.identity.certificates import DAY, NOW, certificate_of


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now=NOW)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def test_the_mesh_is_a_hash_of_the_authoritys_key(authority: Authority) -> None:
    public_key = certificate_of(authority.certificate_pem).public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert authority.mesh == mesh_id_of(public_key)


def test_an_authority_made_again_for_the_same_key_is_of_the_same_mesh() -> None:
    key = generate_key()
    assert Authority.create(key=key).mesh == Authority.create(key=key).mesh


def test_an_authority_is_a_critical_ca_that_makes_no_further_ones(authority: Authority) -> None:
    certificate = certificate_of(authority.certificate_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)


def test_a_node_certificate_carries_uri_dns_name_and_both_usages(authority: Authority) -> None:
    node = authority.issue_node("tokyo", now=NOW)
    certificate = certificate_of(node.chain_pem)
    assert names(certificate) == [
        x509.UniformResourceIdentifier(f"quicbus://{authority.mesh}/node/tokyo"),
        x509.DNSName(f"node.{authority.mesh}.quicbus.internal"),
    ]
    assert usages(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (node.role, node.name, node.mesh) == (Role.NODE, "tokyo", authority.mesh)
    assert node.server_name == server_name_of(authority.mesh)


def test_a_client_certificate_carries_the_uri_and_client_usage_only(authority: Authority) -> None:
    client = authority.issue_client("alice", now=NOW)
    certificate = certificate_of(client.chain_pem)
    assert names(certificate) == [x509.UniformResourceIdentifier(f"quicbus://{authority.mesh}/client/alice")]
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (client.role, client.name, client.mesh) == (Role.CLIENT, "alice", authority.mesh)


def test_both_kinds_carry_key_identifiers_and_usage_and_are_no_ca(authority: Authority) -> None:
    issuer = certificate_of(authority.certificate_pem).extensions
    for credential in (authority.issue_node("tokyo"), authority.issue_client("alice")):
        extensions = certificate_of(credential.chain_pem).extensions
        own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        assert own == x509.SubjectKeyIdentifier.from_public_key(credential.private_key.public_key())
        signer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert signer == issuer.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert not constraints.value.ca
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.digital_signature, usage.key_cert_sign) == (True, False)


def test_no_common_name_can_be_taken_for_a_host(authority: Authority) -> None:
    client = authority.issue_client(server_name_of(authority.mesh))
    subject = certificate_of(client.chain_pem).subject
    assert [one.value for one in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)] == ["quicbus client"]
    assert [one.value for one in subject.get_attributes_for_oid(x509.NameOID.USER_ID)] == [client.name]


def test_a_certificate_begins_a_little_early_and_ends_on_its_day(authority: Authority) -> None:
    client = authority.issue_client("alice", days=30, now=NOW)
    assert (client.not_before, client.not_after) == (NOW - CLOCK_SKEW, NOW + 30 * DAY)


def test_a_certificate_does_not_outlive_its_authority() -> None:
    authority = Authority.create(days=10, now=NOW)
    assert authority.issue_client("alice", days=30, now=NOW).not_after == authority.not_after


def test_an_expired_authority_issues_no_more() -> None:
    authority = Authority.create(days=10, now=NOW)
    with pytest.raises(CredentialError, match="the authority of this mesh expired on 2026-03-11"):
        authority.issue_client("alice", now=NOW + 11 * DAY)


def test_a_node_that_keeps_its_key_keeps_its_id(authority: Authority) -> None:
    key = generate_key()
    first, second = authority.issue_node("tokyo", key=key), authority.issue_node("osaka", key=key)
    assert first.node_id == second.node_id == node_id_of(key.public_key())
    assert authority.issue_node("tokyo").node_id != first.node_id


@pytest.mark.parametrize("name", ["", "a/b", "a" * 65])
def test_a_name_that_is_not_allowed_gets_no_certificate(name: str, authority: Authority) -> None:
    with pytest.raises(InvalidSetting):
        authority.issue_node(name)
    with pytest.raises(InvalidSetting):
        authority.issue_client(name)


@pytest.mark.parametrize("days", [0, -1, 3651, float("nan"), float("inf")])
def test_a_lifetime_that_is_not_allowed_gets_no_certificate(days: float, authority: Authority) -> None:
    with pytest.raises(InvalidSetting) as caught:
        authority.issue_client("alice", days=days)
    assert caught.value.name == "days"


def test_an_authority_is_read_back_in_any_order(authority: Authority) -> None:
    for data in (
        authority.private_key_pem + authority.certificate_pem,
        authority.certificate_pem + b"notes\n" + authority.private_key_pem,
    ):
        again = Authority.load(data)
        assert (again.mesh, again.certificate_pem) == (authority.mesh, authority.certificate_pem)
        assert again.issue_client("alice").authority_pem == authority.certificate_pem


def test_what_is_no_authority_is_refused(authority: Authority) -> None:
    other, client = Authority.create(), authority.issue_client("alice")
    cases = {
        b"": "expected one private key and the certificate",
        authority.certificate_pem: "expected one private key and the certificate",
        authority.private_key_pem: "expected one private key and the certificate",
        other.private_key_pem + authority.certificate_pem: "does not fit its certificate",
        client.private_key_pem + client.chain_pem: "not that of a quicbus authority",
    }
    for data, why in cases.items():
        with pytest.raises(CredentialError, match=why):
            Authority.load(data)


def test_the_library_verifies_a_node_for_its_dns_name_and_a_client_for_none(authority: Authority) -> None:
    store = Store([certificate_of(authority.certificate_pem)])
    builder = PolicyBuilder().store(store).time(NOW)
    node = certificate_of(authority.issue_node("tokyo", now=NOW).chain_pem)
    client = certificate_of(authority.issue_client("alice", now=NOW).chain_pem)
    as_listener = builder.build_server_verifier(x509.DNSName(server_name_of(authority.mesh)))
    as_listener.verify(node, [])
    with pytest.raises(VerificationError):
        as_listener.verify(client, [])
    for one in (node, client):
        builder.build_client_verifier().verify(one, [])
