"""What the dialer checks after TLS, and how refusals are told."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus.identity import Authority, Peer, ProofRefused, Role, check_listener_certificate
from quicbus.wire.close_codes import CloseCode


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def test_a_node_of_the_mesh_is_taken_with_or_without_an_expected_id(authority: Authority) -> None:
    node = authority.issue_node("tokyo")
    expected = Peer(Role.NODE, "tokyo", authority.mesh, node.node_id, node.not_after)
    assert check_listener_certificate(node.chain_der[0], authority.mesh) == expected
    assert check_listener_certificate(node.chain_der[0], authority.mesh, node.node_id) == expected


def test_a_client_is_refused_as_listener(authority: Authority) -> None:
    with pytest.raises(ProofRefused, match="the listener holds a client certificate") as caught:
        check_listener_certificate(authority.issue_client("alice").chain_der[0], authority.mesh)
    assert caught.value.code is CloseCode.CREDENTIAL_WRONG_ROLE


def test_a_node_of_another_mesh_is_refused_as_listener(authority: Authority) -> None:
    other = Authority.create()
    with pytest.raises(ProofRefused, match=f"of mesh {other.mesh}, this credential of mesh {authority.mesh}") as caught:
        check_listener_certificate(other.issue_node("tokyo").chain_der[0], authority.mesh)
    assert caught.value.code is CloseCode.CREDENTIAL_OTHER_MESH


def test_another_node_than_the_expected_is_refused_by_both_ids(authority: Authority) -> None:
    tokyo, osaka = authority.issue_node("tokyo"), authority.issue_node("osaka")
    with pytest.raises(ProofRefused, match=f"{tokyo.node_id.hex()} answers where node {osaka.node_id.hex()}") as caught:
        check_listener_certificate(tokyo.chain_der[0], authority.mesh, osaka.node_id)
    assert caught.value.code is CloseCode.CREDENTIAL_INVALID


@pytest.mark.parametrize("junk", [b"", b"junk", b"x" * 5000])
def test_what_is_no_certificate_is_refused(junk: bytes) -> None:
    with pytest.raises(ProofRefused) as caught:
        check_listener_certificate(junk, "0" * 32)
    assert caught.value.code is CloseCode.CREDENTIAL_INVALID


def test_a_reason_is_cut_to_what_a_close_takes_at_a_whole_character() -> None:
    refused = ProofRefused(CloseCode.CREDENTIAL_INVALID, "é" * 400)
    assert refused.why == "é" * (limits.MAX_CLOSE_REASON_SIZE // 2)
    assert str(refused) == refused.why
