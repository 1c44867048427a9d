"""While one authority follows another: both engines' own TLS takes certificates of either.

Both authorities have the same name, and only their keys tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority
from tests.identity.certificates import impostor_of
from tests.identity.handshakes import ENGINES, PAIRINGS, handshake

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authorities() -> list[Authority]:
    first = Authority.create()
    return [first, Authority.create(mesh=first.mesh)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["oldest first", "newest first"])
@pytest.mark.parametrize("issuer", [0, 1])
@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
def test_a_node_of_each_trusted_authority_is_taken(
    dialer: str, listener: str, issuer: int, order: tuple[int, ...], authorities: list[Authority], tmp_path: Path
) -> None:
    node = authorities[issuer].issue_node("tokyo")
    trusted = b"".join(authorities[each].certificate_pem for each in order)
    result = handshake(dialer, listener, node, tmp_path, authority_pem=trusted)
    assert result.is_complete, result.refusal
    assert result.dialer_binding == result.listener_binding is not None


@pytest.mark.parametrize("dialer", ENGINES)
def test_a_node_of_an_authority_that_has_left_is_refused(
    dialer: str, authorities: list[Authority], tmp_path: Path
) -> None:
    node = authorities[0].issue_node("tokyo")
    result = handshake(dialer, "aioquic", node, tmp_path, authority_pem=authorities[1].certificate_pem)
    assert not result.is_complete
    assert result.refusal


@pytest.mark.parametrize("dialer", ENGINES)
def test_an_authority_of_the_same_name_that_nobody_listed_is_refused(
    dialer: str, authorities: list[Authority], tmp_path: Path
) -> None:
    node = impostor_of(authorities[0]).issue_node("tokyo")
    trusted = b"".join(one.certificate_pem for one in authorities)
    result = handshake(dialer, "aioquic", node, tmp_path, authority_pem=trusted)
    assert not result.is_complete
    assert result.refusal
