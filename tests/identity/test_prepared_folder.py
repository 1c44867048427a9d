"""A data folder on its way into a mesh: the key is kept, and only what the token vouches for is installed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import DataFolderError
from quicbus.identity import (
    Authority,
    Credential,
    DataFolder,
    Issued,
    PreparedFolder,
    Revocation,
    Role,
    node_id_of,
    request_key,
)
from quicbus.identity.requests import request_from_pem
from quicbus.identity.trust import TrustList, seal_trust
from tests.identity.certificates import DAY, NOW, impostor_of

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = Authority.create(now=NOW)
STAMP = int(NOW.timestamp())


def issued(
    prepared: PreparedFolder, authority: Authority = AUTHORITY, role: Role = Role.NODE, trust: bytes = b""
) -> Issued:
    leaf = authority.certify(role, "osaka", request_key(prepared.request), now=NOW)
    local = authority.certify(Role.CLIENT, "osaka", request_key(prepared.local_request), now=NOW)
    return Issued(chain=(leaf,), authorities=authority.authorities_der, local_chain=(local,), trust=trust)


def test_it_becomes_the_folder_of_a_node(tmp_path: Path) -> None:
    with PreparedFolder.open(tmp_path / "data") as prepared:
        node_id = node_id_of(request_key(prepared.request))
        node = prepared.install(issued(prepared), AUTHORITY.authorities_der, NOW)
    assert (node.name, node.node_id) == ("osaka", node_id)
    with DataFolder.open(tmp_path / "data", may_create_authority=False, now=NOW) as folder:
        assert (folder.node.name, folder.node_id, folder.mesh) == ("osaka", node_id, AUTHORITY.mesh)
        local = Credential.load(folder.credential_path, role=Role.CLIENT, now=NOW)
        assert (local.name, local.mesh) == ("osaka", AUTHORITY.mesh)
        assert folder.authority is None


def test_the_key_stays_from_one_attempt_to_the_next(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        with PreparedFolder.open(tmp_path / "data") as prepared:
            ids.add(node_id_of(request_key(prepared.request)))
    assert len(ids) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_what_is_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    with PreparedFolder.open(tmp_path / "data") as prepared:
        prepared.install(issued(prepared), AUTHORITY.authorities_der, NOW)
    modes = {
        name: stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) for name in ("node-key.pem", "credential.pem")
    }
    assert modes == {"node-key.pem": 0o600, "credential.pem": 0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_it_is_locked_meanwhile(tmp_path: Path) -> None:
    with PreparedFolder.open(tmp_path / "data"), pytest.raises(DataFolderError, match="in use by process"):
        PreparedFolder.open(tmp_path / "data")
    PreparedFolder.open(tmp_path / "data").close()


def test_a_folder_of_a_mesh_is_refused_and_left(tmp_path: Path) -> None:
    DataFolder.open(tmp_path / "data", may_create_authority=True, now=NOW).close()
    with pytest.raises(DataFolderError, match="start the broker without a token"):
        PreparedFolder.open(tmp_path / "data")
    (tmp_path / "data" / "node.pem").unlink()
    with pytest.raises(DataFolderError, match="it has an authority already"):
        PreparedFolder.open(tmp_path / "data")


def test_what_another_authority_issued_is_not_installed_whatever_comes_with_it(tmp_path: Path) -> None:
    impostor = impostor_of(AUTHORITY)
    with PreparedFolder.open(tmp_path / "data") as prepared:
        with pytest.raises(DataFolderError, match="not signed by the authority"):
            prepared.install(issued(prepared, impostor), AUTHORITY.authorities_der, NOW)
        content = TrustList(mesh=AUTHORITY.mesh, version=1, made_at=STAMP, authorities=impostor.authorities_der)
        forged = seal_trust(content, [impostor])
        with pytest.raises(DataFolderError, match="not signed by an authority"):
            prepared.install(issued(prepared, impostor, trust=forged), AUTHORITY.authorities_der, NOW)
    assert sorted(os.listdir(tmp_path / "data")) == ["lock", "node-key.pem"]


def test_a_newer_authority_is_taken_from_the_list_that_the_tokens_has_signed(tmp_path: Path) -> None:
    following = Authority.create(mesh=AUTHORITY.mesh, now=NOW)
    revoked = (Revocation(bytes(16), "client", "mallory", STAMP, STAMP + 9),)
    content = TrustList(
        mesh=AUTHORITY.mesh,
        version=3,
        made_at=STAMP,
        authorities=following.authorities_der + AUTHORITY.authorities_der,
        revoked=revoked,
    )
    raw = seal_trust(content, [following, AUTHORITY])
    with PreparedFolder.open(tmp_path / "data") as prepared:
        prepared.install(issued(prepared, following, trust=raw), AUTHORITY.authorities_der, NOW)
    with DataFolder.open(tmp_path / "data", may_create_authority=False, now=NOW) as folder:
        assert folder.trust.raw == raw
        assert folder.trust.revoked == revoked
        assert len(folder.trust.authorities) == 2


def test_the_certificate_of_a_client_makes_no_node(tmp_path: Path) -> None:
    with PreparedFolder.open(tmp_path / "data") as prepared:
        with pytest.raises(DataFolderError, match="a node credential is wanted"):
            prepared.install(issued(prepared, role=Role.CLIENT), AUTHORITY.authorities_der, NOW)
        with pytest.raises(DataFolderError, match="expired on"):
            prepared.install(issued(prepared), AUTHORITY.authorities_der, NOW + 31 * DAY)
    assert not (tmp_path / "data" / "node.pem").exists()


def test_its_request_is_written_for_an_authority_elsewhere(tmp_path: Path) -> None:
    with PreparedFolder.open(tmp_path / "data") as prepared:
        path = prepared.write_request()
        assert request_from_pem(path.read_bytes(), path.name) == prepared.request
    assert sorted(os.listdir(tmp_path / "data")) == ["lock", "node-key.pem", "node-request.pem"]


def test_what_an_attempt_in_vain_has_made_goes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with PreparedFolder.open(folder) as prepared:
        prepared.undo()
    assert not folder.exists()
    folder.mkdir()
    (folder / "notes").write_text("mine")
    with PreparedFolder.open(folder) as prepared:
        prepared.undo()
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_a_key_of_an_earlier_attempt_stays_when_a_later_one_is_undone(tmp_path: Path) -> None:
    PreparedFolder.open(tmp_path / "data").close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    with PreparedFolder.open(tmp_path / "data") as prepared:
        prepared.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before


def test_a_node_whose_certificate_is_of_no_use_any_more_gets_another_one_for_its_key(tmp_path: Path) -> None:
    with PreparedFolder.open(tmp_path / "data") as prepared:
        node = prepared.install(issued(prepared), AUTHORITY.authorities_der, NOW)
    later = NOW + 90 * DAY
    with PreparedFolder.open(tmp_path / "data", again=True) as prepared:
        leaf = AUTHORITY.certify(Role.NODE, "osaka", request_key(prepared.request), now=later)
        local = AUTHORITY.certify(Role.CLIENT, "osaka", request_key(prepared.local_request), now=later)
        answer = Issued(chain=(leaf,), authorities=AUTHORITY.authorities_der, local_chain=(local,))
        renewed = prepared.install(answer, AUTHORITY.authorities_der, later)
    assert renewed.node_id == node.node_id
    with DataFolder.open(tmp_path / "data", may_create_authority=False, now=later) as folder:
        assert folder.node.not_after > later
