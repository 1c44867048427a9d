"""Requests and certificates that are carried by hand between an offline authority and nodes and clients."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import CredentialError, DataFolderError, InvalidSetting
from quicbus.identity import Authority, Credential, DataFolder, IssuedLog, Revocation, Role, load_authority
from quicbus.identity.by_hand import (
    install_credential,
    install_node,
    prepare_authority_folder,
    request_credential,
    request_node,
    sign_request,
)
from quicbus.identity.folder_trust import add_revocations
from quicbus.identity.rotation import start_rotation
from quicbus.identity.signed_file import SignedFile, read_signed
from tests.identity.certificates import DAY, NOW, impostor_of

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path


@pytest.fixture
def office(tmp_path: Path) -> Path:
    prepare_authority_folder(tmp_path / "office", now=NOW)
    return tmp_path / "office"


def sign(office: Path, request: Path, role: Role, name: str, now: dt.datetime = NOW) -> SignedFile:
    signed = sign_request(office, load_authority(office), request.read_bytes(), request.name, role, name, now=now)
    return read_signed(signed.to_pem(), "signed.pem")


def test_an_offline_authority_is_a_folder_with_two_files(office: Path) -> None:
    assert sorted(os.listdir(office)) == ["authority-key.pem", "authority.pem"]
    if os.name == "posix":
        assert stat.S_IMODE(office.stat().st_mode) == 0o700
        assert stat.S_IMODE((office / "authority-key.pem").stat().st_mode) == 0o600
    with pytest.raises(DataFolderError, match="is not empty"):
        prepare_authority_folder(office)


def test_a_node_starts_with_what_was_signed_elsewhere(office: Path, tmp_path: Path) -> None:
    request = request_node(tmp_path / "node")
    node = install_node(tmp_path / "node", sign(office, request, Role.NODE, "osaka"), NOW)
    assert not request.exists()
    with DataFolder.open(tmp_path / "node", may_create_authority=False, now=NOW) as folder:
        assert (folder.node.name, folder.node_id) == ("osaka", node.node_id)
        assert folder.mesh == load_authority(office).mesh
        assert folder.authority is None


def test_the_file_may_as_well_be_put_in_place_as_it_is(office: Path, tmp_path: Path) -> None:
    signed = sign(office, request_node(tmp_path / "node"), Role.NODE, "osaka")
    (tmp_path / "node" / "node.pem").write_bytes(signed.to_pem())
    with DataFolder.open(tmp_path / "node", may_create_authority=False, now=NOW) as folder:
        assert folder.node.name == "osaka"
        assert (tmp_path / "node" / "authority.pem").read_bytes() == (office / "authority.pem").read_bytes()


def test_name_and_role_are_given_by_who_signs_and_logged(office: Path, tmp_path: Path) -> None:
    request = request_node(tmp_path / "node")
    sign(office, request, Role.CLIENT, "alice")
    assert [(one.role, one.name) for one in IssuedLog(office).entries()] == [(Role.CLIENT, "alice")]
    with pytest.raises(InvalidSetting):
        sign(office, request, Role.NODE, "a/b")


def test_a_client_gets_a_credential_and_renews_it_with_the_same_key(office: Path, tmp_path: Path) -> None:
    path = tmp_path / "alice.pem"
    request = request_credential(path)
    assert request == tmp_path / "alice.request.pem"
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "alice.key.pem").stat().st_mode) == 0o600
    first = install_credential(path, sign(office, request, Role.CLIENT, "alice"), NOW)
    assert not (tmp_path / "alice.key.pem").exists()
    assert Credential.load(path, now=NOW).node_id == first.node_id
    later = NOW + 40 * DAY
    second = install_credential(path, sign(office, request_credential(path), Role.CLIENT, "alice", later), later)
    assert second.node_id == first.node_id
    assert Credential.load(path, now=later).not_after == later + 30 * DAY


def test_a_second_request_is_for_the_key_that_waits(office: Path, tmp_path: Path) -> None:
    path = tmp_path / "alice.pem"
    first = request_credential(path)
    signed = sign(office, first, Role.CLIENT, "alice")
    request_credential(path)
    assert install_credential(path, signed, NOW).name == "alice"


def test_a_running_node_is_renewed_and_told_of_new_authorities(office: Path, tmp_path: Path) -> None:
    path = tmp_path / "node"
    install_node(path, sign(office, request_node(path), Role.NODE, "osaka"), NOW)
    with DataFolder.open(path, may_create_authority=False, now=NOW) as folder:
        later = NOW + 25 * DAY
        start_rotation(office, later, overlap_days=0)
        install_node(path, sign(office, request_node(path), Role.NODE, "osaka", later), later)
        changes = folder.reload(later)
        assert changes.node
        assert changes.trust
        assert changes.authorities
        assert folder.node.not_after == later + 30 * DAY
        assert len(folder.trust.authorities) == 2


def test_what_is_for_another_key_is_refused(office: Path, tmp_path: Path) -> None:
    signed = sign(office, request_node(tmp_path / "node"), Role.NODE, "osaka")
    request_node(tmp_path / "other")
    with pytest.raises(DataFolderError, match="does not fit the certificate"):
        install_node(tmp_path / "other", signed, NOW)
    with pytest.raises(DataFolderError, match=r"no node-key\.pem in it"):
        install_node(tmp_path, signed, NOW)
    request_credential(tmp_path / "alice.pem")
    with pytest.raises(CredentialError, match="does not fit the certificate"):
        install_credential(tmp_path / "alice.pem", signed, NOW)
    with pytest.raises(CredentialError, match="name the file that the request was made for"):
        install_credential(tmp_path / "bob.pem", signed, NOW)


def test_who_is_in_a_mesh_takes_no_other_authority_from_a_file(office: Path, tmp_path: Path) -> None:
    path, file = tmp_path / "node", tmp_path / "alice.pem"
    install_node(path, sign(office, request_node(path), Role.NODE, "osaka"), NOW)
    install_credential(file, sign(office, request_credential(file), Role.CLIENT, "alice"), NOW)
    before = {one.name: one.read_bytes() for one in path.iterdir()}
    impostor = impostor_of(load_authority(office))
    for role, request in ((Role.NODE, request_node(path)), (Role.CLIENT, request_credential(file))):
        forged = sign_request(tmp_path, impostor, request.read_bytes(), "x", role, "osaka", now=NOW)
        with pytest.raises((DataFolderError, CredentialError), match="not signed by the authority"):
            install_node(path, forged, NOW) if role is Role.NODE else install_credential(file, forged, NOW)
    after = {one.name: one.read_bytes() for one in path.iterdir() if one.name != "node-request.pem"}
    assert after == before


def test_a_revoked_key_is_not_signed(office: Path, tmp_path: Path) -> None:
    path = tmp_path / "alice.pem"
    request = request_credential(path)
    alice = install_credential(path, sign(office, request, Role.CLIENT, "alice"), NOW)
    stamp = int(NOW.timestamp())
    add_revocations(office, [Revocation(alice.node_id, "client", "alice", stamp, stamp + 9)], NOW)
    with pytest.raises(CredentialError, match="make a request with a new key"):
        sign(office, request, Role.CLIENT, "alice")


def test_a_signed_file_is_read_back_with_its_list(office: Path, tmp_path: Path) -> None:
    add_revocations(office, [], NOW)
    signed = sign(office, request_node(tmp_path / "node"), Role.NODE, "osaka")
    assert signed.trust == (office / "trust.bin").read_bytes()
    assert [len(signed.chain), len(signed.authorities)] == [1, 1]


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"-----BEGIN QUICBUS TRUST LIST-----\n!!\n-----END QUICBUS TRUST LIST-----\n"],
)
def test_a_file_of_something_else_is_refused(data: bytes, office: Path, tmp_path: Path) -> None:
    request_node(tmp_path / "node")
    with pytest.raises((CredentialError, DataFolderError)):
        install_node(tmp_path / "node", read_signed(data, "node.pem"), NOW)


def test_a_key_file_with_several_keys_is_left_alone(office: Path, tmp_path: Path) -> None:
    path = tmp_path / "alice.pem"
    path.write_bytes(Authority.create().private_key_pem * 2)
    with pytest.raises(CredentialError, match="2 private keys in it where one belongs"):
        request_credential(path)
