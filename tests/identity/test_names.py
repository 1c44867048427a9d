"""Names, and what is read out of a certificate."""

from __future__ import annotations

import pytest
from cryptography import x509

from quicbus.exceptions import InvalidSetting
from quicbus.identity import Authority, Role, mesh_of, server_name_of
from quicbus.identity.names import Identity, check_name, identity_of, is_mesh_id
from tests.identity.certificates import certificate_of, with_names

MESH = "0123456789abcdef" * 2


def test_a_server_name_tells_its_mesh() -> None:
    assert mesh_of(server_name_of(MESH)) == MESH


@pytest.mark.parametrize(
    "name", ["", "localhost", MESH, f"node.{MESH}", server_name_of(MESH[1:]), f"x{server_name_of(MESH)}"]
)
def test_other_server_names_are_of_no_mesh(name: str) -> None:
    with pytest.raises(InvalidSetting, match="server_name"):
        mesh_of(name)


@pytest.mark.parametrize("name", ["a", "tokyo", "Alice-2", "a.b_c", "alice@example.org", "9" * 64])
def test_ordinary_names_are_allowed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "a/b", "a b", ".hidden", "-x", "ü", "a\n", "a\x00b", "*", "a:b", "#", "+", "a%2Fb"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        check_name(name)
    assert caught.value.name == "name"
    assert "1 to 64" in str(caught.value)


def test_a_mesh_id_is_32_lower_case_hex_digits() -> None:
    assert is_mesh_id(MESH)
    for wrong in ("", MESH[:-1], MESH + "0", MESH.upper(), MESH[:-1] + "g", MESH + "\n"):
        assert not is_mesh_id(wrong)


def test_the_identity_of_issued_certificates_is_read_back() -> None:
    authority = Authority.create()
    node = identity_of(certificate_of(authority.issue_node("tokyo").chain_pem))
    client = identity_of(certificate_of(authority.issue_client("alice").chain_pem))
    assert node == Identity(authority.mesh, Role.NODE, "tokyo")
    assert client == Identity(authority.mesh, Role.CLIENT, "alice")
    assert node.uri == f"quicbus://{authority.mesh}/node/tokyo"


def test_an_authority_is_neither_node_nor_client() -> None:
    assert identity_of(certificate_of(Authority.create().certificate_pem)) is None


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([x509.DNSName(server_name_of(MESH))], id="no URI"),
        pytest.param([x509.UniformResourceIdentifier("https://example.org/")], id="another URI"),
        pytest.param([x509.UniformResourceIdentifier(f"quicbus://{MESH}/admin/alice")], id="an unknown role"),
        pytest.param([x509.UniformResourceIdentifier(f"quicbus://{MESH}/client/a/b")], id="a name with a slash"),
        pytest.param([x509.UniformResourceIdentifier(f"quicbus://{MESH}/client/alice?x")], id="a query"),
        pytest.param([x509.UniformResourceIdentifier(f"quicbus://{MESH[:-2]}/client/alice")], id="a short mesh id"),
        pytest.param([x509.UniformResourceIdentifier(f"quicbus://{MESH}/client/{n}") for n in "ab"], id="two names"),
        pytest.param([x509.UniformResourceIdentifier(f"quicbus://{MESH}/node/tokyo")], id="a node without DNS name"),
        pytest.param(
            [
                x509.UniformResourceIdentifier(f"quicbus://{MESH}/client/alice"),
                x509.DNSName(server_name_of(MESH)),
            ],
            id="a client with the nodes' DNS name",
        ),
        pytest.param(
            [
                x509.UniformResourceIdentifier(f"quicbus://{MESH}/node/tokyo"),
                x509.DNSName(server_name_of("f" * 32)),
            ],
            id="a node with the DNS name of another mesh",
        ),
        pytest.param(
            [x509.UniformResourceIdentifier(f"quicbus://{MESH}/client/alice"), x509.RFC822Name("a@example.org")],
            id="a further name",
        ),
    ],
)
def test_other_alternative_names_are_no_identity(names: list[x509.GeneralName]) -> None:
    authority = Authority.create()
    (der,) = with_names(authority, authority.issue_client("alice"), names)
    assert identity_of(x509.load_der_x509_certificate(der)) is None
