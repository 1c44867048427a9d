"""What both engines' own TLS says to certificates of this authority: who may listen, and who may not."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority, Role, check_listener_certificate, server_name_of
from tests.identity.certificates import DAY, impostor_of, issued_by_a_client
from tests.identity.handshakes import ENGINES, PAIRINGS, handshake

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
def test_a_node_certificate_is_taken_from_the_listener(
    dialer: str, listener: str, authority: Authority, tmp_path: Path
) -> None:
    node = authority.issue_node("tokyo")
    result = handshake(dialer, listener, node, tmp_path)
    assert result.is_complete, result.refusal
    peer = check_listener_certificate(result.listener_certificate, authority.mesh, node.node_id)
    assert (peer.role, peer.name, peer.node_id) == (Role.NODE, "tokyo", node.node_id)


@pytest.mark.parametrize("dialer", ENGINES)
@pytest.mark.parametrize("name", ["a.b_c@d-1", "9" * 64, "127.0.0.1"])
def test_a_node_may_have_any_allowed_name(dialer: str, name: str, authority: Authority, tmp_path: Path) -> None:
    result = handshake(dialer, "aioquic", authority.issue_node(name), tmp_path)
    assert result.is_complete, result.refusal


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
def test_a_client_certificate_can_not_play_the_broker(
    dialer: str, listener: str, authority: Authority, tmp_path: Path
) -> None:
    result = handshake(dialer, listener, authority.issue_client("alice"), tmp_path)
    assert not result.is_complete
    assert result.dialer_binding is None
    assert result.refusal


@pytest.mark.parametrize("dialer", ENGINES)
def test_a_client_named_like_the_nodes_can_not_play_the_broker(
    dialer: str, authority: Authority, tmp_path: Path
) -> None:
    client = authority.issue_client(server_name_of(authority.mesh))
    assert handshake(dialer, "aioquic", client, tmp_path).refusal


@pytest.mark.parametrize("dialer", ENGINES)
def test_a_node_of_another_mesh_is_refused(dialer: str, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.create().issue_node("tokyo")
    result = handshake(
        dialer,
        "aioquic",
        stranger,
        tmp_path,
        authority_pem=authority.certificate_pem,
        server_name=server_name_of(authority.mesh),
    )
    assert result.refusal
    assert not result.is_complete


@pytest.mark.parametrize("dialer", ENGINES)
def test_an_authority_with_the_right_name_and_another_key_is_refused(
    dialer: str, authority: Authority, tmp_path: Path
) -> None:
    node = impostor_of(authority).issue_node("tokyo")
    assert node.server_name == server_name_of(authority.mesh)
    result = handshake(dialer, "aioquic", node, tmp_path, authority_pem=authority.certificate_pem)
    assert result.refusal
    assert not result.is_complete


@pytest.mark.parametrize("dialer", ENGINES)
def test_a_client_can_not_issue_a_node_certificate(dialer: str, authority: Authority, tmp_path: Path) -> None:
    node = issued_by_a_client(authority.issue_node("tokyo"), authority.issue_client("alice"))
    assert node.role is Role.NODE
    result = handshake(dialer, "aioquic", node, tmp_path)
    assert result.refusal
    assert not result.is_complete


@pytest.mark.parametrize("dialer", ENGINES)
def test_an_expired_node_certificate_is_refused(dialer: str, authority: Authority, tmp_path: Path) -> None:
    node = authority.issue_node("tokyo", days=1, now=dt.datetime.now(dt.UTC) - 2 * DAY)
    result = handshake(dialer, "aioquic", node, tmp_path)
    assert result.refusal
    assert not result.is_complete


@pytest.mark.parametrize("dialer", ENGINES)
def test_a_node_whose_clock_is_a_little_ahead_is_taken(dialer: str, authority: Authority, tmp_path: Path) -> None:
    node = authority.issue_node("tokyo", now=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=3))
    result = handshake(dialer, "aioquic", node, tmp_path)
    assert result.is_complete, result.refusal
