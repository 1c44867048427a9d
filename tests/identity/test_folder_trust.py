"""The data folder of a node that is open: renewed certificates, newer trust lists, and files replaced on disk."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import Authority, Changes, Credential, DataFolder, Revocation, prepare_node_folder
from quicbus.identity.folder_trust import add_revocations, read_trust
from quicbus.identity.rotation import start_rotation
from quicbus.identity.trust import TrustList, TrustStore, seal_trust
from tests.identity.certificates import DAY, NOW, impostor_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAMP = int(NOW.timestamp())


class Mesh:
    """The folder with the authority, and that of one further node, both open."""

    def __init__(self, folder: Path, resources: contextlib.ExitStack) -> None:
        self.home = resources.enter_context(
            DataFolder.open(folder / "home", may_create_authority=True, node_name="tokyo", now=NOW)
        )
        self.authority = self.home.authority
        assert self.authority is not None
        prepare_node_folder(self.authority, "osaka", folder / "away", now=NOW)
        self.away = resources.enter_context(DataFolder.open(folder / "away", may_create_authority=False, now=NOW))
        self.now = NOW + DAY

    def revoke(self, number: int = 1) -> bytes:
        """Return the list in which this many keys are revoked."""
        entries = [Revocation(n.to_bytes(16, "big"), "client", f"c{n}", STAMP, STAMP + 2**31) for n in range(number)]
        return add_revocations(self.home.path, entries, self.now).raw

    def renewed(self) -> Credential:
        assert self.authority is not None
        return self.authority.issue_node("osaka", key=self.away.node.private_key, now=self.now + DAY / 2)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with contextlib.ExitStack() as resources:
        yield Mesh(tmp_path, resources)


class TestTakeTrust:
    def test_a_newer_list_is_kept_over_a_restart(self, mesh: Mesh) -> None:
        raw = mesh.revoke()
        assert mesh.away.take_trust(raw, mesh.now)
        assert not mesh.away.take_trust(raw, mesh.now)
        mesh.away.close()
        with DataFolder.open(mesh.away.path, may_create_authority=False, now=NOW) as again:
            assert again.trust.raw == raw
            assert again.trust.revocation(bytes(16)) is not None

    def test_a_forged_list_changes_nothing(self, mesh: Mesh) -> None:
        assert mesh.authority is not None
        impostor = impostor_of(mesh.authority)
        content = TrustList(mesh=impostor.mesh, version=9, made_at=STAMP, authorities=impostor.authorities_der)
        with pytest.raises(CredentialError, match="not signed by an authority"):
            mesh.away.take_trust(seal_trust(content, [impostor]), mesh.now)
        assert not (mesh.away.path / "trust.bin").exists()

    def test_new_authorities_reach_the_node_and_its_local_applications(self, mesh: Mesh) -> None:
        start_rotation(mesh.home.path, mesh.now)
        assert mesh.home.reload(mesh.now) == Changes(trust=True, authorities=True)
        for folder in (mesh.home, mesh.away):
            if folder is mesh.away:
                folder.take_trust(mesh.home.trust.raw, mesh.now)
            assert len(folder.trust.authorities) == 2
            local = Credential.load(folder.credential_path, now=NOW)
            assert folder.node.authority_pem == local.authority_pem == folder.trust.authorities_pem
        assert mesh.home.authority is not None
        assert len(mesh.home.authority.issue_client("alice", now=NOW).authority_pem) == len(
            mesh.home.trust.authorities_pem
        )

    def test_a_list_that_the_folder_has_in_a_later_version_is_not_written(self, mesh: Mesh) -> None:
        first, second = mesh.revoke(), mesh.revoke(2)
        (mesh.away.path / "trust.bin").write_bytes(second)
        mesh.away.take_trust(first, mesh.now)
        assert (mesh.away.path / "trust.bin").read_bytes() == second
        assert mesh.away.reload(mesh.now).trust
        assert mesh.away.trust.raw == second


class TestInstall:
    def test_a_renewed_certificate_is_kept(self, mesh: Mesh) -> None:
        new = mesh.renewed()
        mesh.away.install_node(new.chain_der, now=mesh.now + DAY)
        assert mesh.away.node.not_after == new.not_after
        assert (mesh.away.path / "node.pem").read_bytes() == new.chain_pem
        assert not mesh.away.reload(mesh.now + DAY)

    def test_one_of_a_new_authority_comes_with_the_list_that_proves_it(self, mesh: Mesh) -> None:
        start_rotation(mesh.home.path, mesh.now, overlap_days=0)
        mesh.home.reload(mesh.now)
        following = mesh.home.authority
        assert following is not None
        new = following.issue_node("osaka", key=mesh.away.node.private_key, now=mesh.now)
        with pytest.raises(DataFolderError, match="not signed by the authority"):
            mesh.away.install_node(new.chain_der, following.authorities_der, now=mesh.now)
        mesh.away.install_node(new.chain_der, following.authorities_der, mesh.home.trust.raw, now=mesh.now)
        assert mesh.away.node.authority_pem == mesh.home.trust.authorities_pem

    def test_what_is_not_for_this_node_is_refused(self, mesh: Mesh) -> None:
        assert mesh.authority is not None
        key = mesh.away.node.private_key
        before = mesh.away.node
        wrong = {
            "does not fit": mesh.authority.issue_node("osaka", now=mesh.now),
            "a node credential is wanted": mesh.authority.issue_client("osaka", key=key, now=mesh.now),
            "not signed by the authority": impostor_of(mesh.authority).issue_node("osaka", key=key, now=mesh.now),
            "expired on": mesh.authority.issue_node("osaka", key=key, days=1, now=mesh.now - 3 * DAY),
        }
        for why, credential in wrong.items():
            with pytest.raises(DataFolderError, match=why):
                mesh.away.install_node(credential.chain_der, now=mesh.now)
        with pytest.raises(DataFolderError, match="unreadable"):
            mesh.away.install_node([b"junk"], now=mesh.now)
        assert mesh.away.node is before
        assert (mesh.away.path / "node.pem").read_bytes() == before.chain_pem

    def test_the_local_credential_is_replaced_by_one_of_a_client_of_the_mesh(self, mesh: Mesh) -> None:
        assert mesh.authority is not None
        alice = mesh.authority.issue_client("alice", now=NOW)
        mesh.away.install_credential(alice, NOW)
        assert Credential.load(mesh.away.credential_path, now=NOW).name == "alice"
        with pytest.raises(DataFolderError, match="a client credential is wanted"):
            mesh.away.install_credential(mesh.authority.issue_node("alice", now=NOW), NOW)
        with pytest.raises(DataFolderError, match="would be of mesh"):
            mesh.away.install_credential(Authority.create(now=NOW).issue_client("alice", now=NOW), NOW)
        assert Credential.load(mesh.away.credential_path, now=NOW).node_id == alice.node_id


class TestReload:
    def test_nothing_replaced_is_nothing_changed(self, mesh: Mesh) -> None:
        for folder in (mesh.home, mesh.away):
            assert folder.reload(mesh.now) == Changes()
            assert not folder.reload(mesh.now)

    def test_a_certificate_that_was_replaced_is_taken(self, mesh: Mesh) -> None:
        new = mesh.renewed()
        (mesh.away.path / "node.pem").write_bytes(new.chain_pem)
        assert mesh.away.reload(mesh.now + DAY) == Changes(node=True)
        assert mesh.away.node.chain_pem == new.chain_pem

    def test_a_list_that_a_command_wrote_is_taken_and_the_trust_object_stays(self, mesh: Mesh) -> None:
        trust = mesh.home.trust
        mesh.revoke()
        assert mesh.home.reload(mesh.now) == Changes(trust=True)
        assert mesh.home.trust is trust
        assert trust.revocation(bytes(16)) is not None

    @pytest.mark.parametrize("name", ["node.pem", "authority.pem", "trust.bin", "node-key.pem"])
    def test_a_broken_file_is_told_once_and_what_was_in_use_stays(self, name: str, mesh: Mesh) -> None:
        mesh.away.take_trust(mesh.revoke(), mesh.now)
        assert not mesh.away.reload(mesh.now)
        before = (mesh.away.node.chain_pem, mesh.away.trust.raw)
        whole = (mesh.away.path / name).read_bytes()
        (mesh.away.path / name).write_bytes(b"broken")
        with pytest.raises(DataFolderError):
            mesh.away.reload(mesh.now)
        assert not mesh.away.reload(mesh.now)
        assert (mesh.away.node.chain_pem, mesh.away.trust.raw) == before
        (mesh.away.path / name).write_bytes(whole)
        assert not mesh.away.reload(mesh.now)

    def test_another_nodes_files_are_not_taken_while_it_runs(self, mesh: Mesh) -> None:
        assert mesh.authority is not None
        other = mesh.authority.issue_node("kyoto", now=NOW)
        (mesh.away.path / "node-key.pem").write_bytes(other.private_key_pem)
        (mesh.away.path / "node.pem").write_bytes(other.chain_pem)
        with pytest.raises(DataFolderError, match="start the broker anew"):
            mesh.away.reload(mesh.now)
        assert mesh.away.node.name == "osaka"

    def test_an_authority_put_in_place_by_hand_is_trusted(self, mesh: Mesh) -> None:
        assert mesh.authority is not None
        following = Authority.create(mesh=mesh.authority.mesh)
        (mesh.away.path / "authority.pem").write_bytes(mesh.authority.certificate_pem + following.certificate_pem)
        assert mesh.away.reload(mesh.now) == Changes(authorities=True)
        assert len(mesh.away.trust.authorities) == 2

    def test_a_list_that_was_lost_is_written_again(self, mesh: Mesh) -> None:
        raw = mesh.revoke()
        assert mesh.home.reload(mesh.now).trust
        (mesh.home.path / "trust.bin").unlink()
        assert not mesh.home.reload(mesh.now)
        assert (mesh.home.path / "trust.bin").read_bytes() == raw

    def test_a_list_that_was_half_written_down_is_finished_at_the_start(self, mesh: Mesh) -> None:
        start_rotation(mesh.home.path, mesh.now)
        raw = (mesh.home.path / "trust.bin").read_bytes()
        mesh.away.close()
        (mesh.away.path / "trust.bin").write_bytes(raw)  # and then the power went
        with DataFolder.open(mesh.away.path, may_create_authority=False, now=NOW) as again:
            assert len(again.trust.authorities) == 2
            assert (again.path / "authority.pem").read_bytes() == again.trust.authorities_pem
            assert again.node.authority_pem == Credential.load(again.credential_path, now=NOW).authority_pem


class TestMakingLists:
    def test_versions_grow_also_when_the_clock_steps_back(self, mesh: Mesh) -> None:
        versions = [
            add_revocations(mesh.home.path, [], moment).version for moment in (NOW + DAY, NOW, NOW, NOW + 2 * DAY)
        ]
        assert versions == sorted(set(versions))
        assert versions[-1] == int((NOW + 2 * DAY).timestamp() * 1000)

    def test_revocations_add_up_and_are_forgotten_when_they_are_over(self, mesh: Mesh) -> None:
        brief = Revocation(b"b" * 16, "client", "bob", STAMP, STAMP + 3600)
        add_revocations(mesh.home.path, [brief], NOW)
        mesh.now = NOW
        assert {one.name for one in TrustStore(*trust_args(mesh), mesh.revoke()).revoked} == {"bob", "c0"}
        mesh.now = NOW + DAY
        assert {one.name for one in TrustStore(*trust_args(mesh), mesh.revoke(2)).revoked} == {"c0", "c1"}

    def test_only_the_folder_of_the_authority_makes_lists(self, mesh: Mesh) -> None:
        with pytest.raises(DataFolderError, match="no authority's key"):
            add_revocations(mesh.away.path, [], NOW)

    def test_a_new_nodes_folder_comes_with_the_list(self, mesh: Mesh, tmp_path: Path) -> None:
        raw = mesh.revoke()
        assert mesh.authority is not None
        prepare_node_folder(mesh.authority, "kyoto", tmp_path / "kyoto", issued_by=mesh.home.path)
        assert (tmp_path / "kyoto" / "trust.bin").read_bytes() == raw
        assert read_trust(tmp_path / "kyoto", *trust_args(mesh)).raw == raw


def trust_args(mesh: Mesh) -> tuple[str, bytes]:
    return mesh.home.mesh, mesh.home.trust.authorities_pem
