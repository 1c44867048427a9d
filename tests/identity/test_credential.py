"""Credential files: what is read back, and each way in which one can be wrong."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import CredentialError
from quicbus.identity import Authority, Credential, Role
from tests.identity.certificates import DAY, NOW, issued_by_a_client

if TYPE_CHECKING:
    from pathlib import Path

ISSUE_CLIENT = "quicbus cert issue --client NAME --out FILE"
ISSUE_NODE = "quicbus cert issue --node NAME --out DIR"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now=NOW)


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Credential:
    return authority.issue_client("alice", now=NOW)


def refusal(data: bytes, *, role: Role | None = None, days_later: int = 0) -> str:
    with pytest.raises(CredentialError) as caught:
        Credential.from_pem(data, source="credential alice.pem", role=role, now=NOW + days_later * DAY)
    assert str(caught.value).startswith("credential alice.pem: ")
    assert "PRIVATE KEY" not in str(caught.value)
    return str(caught.value)


def test_a_saved_credential_is_read_back_whole(alice: Credential, tmp_path: Path) -> None:
    alice.save(tmp_path / "alice.pem")
    again = Credential.load(tmp_path / "alice.pem", role=Role.CLIENT, now=NOW)
    assert again.to_pem() == alice.to_pem()
    assert (again.role, again.name, again.mesh, again.node_id) == (Role.CLIENT, "alice", alice.mesh, alice.node_id)
    assert (again.chain_der, again.authority_pem) == (alice.chain_der, alice.authority_pem)
    assert (again.not_before, again.not_after) == (alice.not_before, alice.not_after)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_saved_credential_is_for_its_owner_only_also_over_an_open_one(alice: Credential, tmp_path: Path) -> None:
    path = tmp_path / "alice.pem"
    path.write_bytes(b"old")
    path.chmod(0o644)
    alice.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["alice.pem"]


def test_the_order_of_the_parts_and_text_between_them_do_not_matter(alice: Credential) -> None:
    data = b"Alice's\n" + alice.authority_pem + b"\r\n# key\n" + alice.chain_pem + alice.private_key_pem
    assert Credential.from_pem(data, now=NOW).to_pem() == alice.to_pem()


def test_a_credential_does_not_show_its_key(alice: Credential) -> None:
    assert "KEY" not in repr(alice)
    assert "alice" in repr(alice)


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CredentialError) as caught:
        Credential.load(tmp_path / "alice.pem")
    assert f"credential {tmp_path / 'alice.pem'}: no such file" in str(caught.value)
    assert ISSUE_CLIENT in str(caught.value)


def test_a_folder_in_place_of_the_file_is_said_to_be_unreadable(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="can't be read"):
        Credential.load(tmp_path)


def test_a_place_that_can_not_be_written_is_named(alice: Credential, tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="can't be written"):
        alice.save(tmp_path / "missing" / "alice.pem")


def test_garbage_is_refused(alice: Credential) -> None:
    for data in (b"", b"\x00\xff" * 100, b"{}", alice.to_pem()[:40]):
        assert "neither a key nor a certificate" in refusal(data)
        assert ISSUE_CLIENT in refusal(data)
    assert "too many" in refusal(b"x" * (1 << 20))


def test_a_broken_certificate_is_refused(alice: Credential) -> None:
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert "a certificate in it is unreadable" in refusal(alice.private_key_pem + broken)


def test_a_credential_without_a_key_is_refused(alice: Credential) -> None:
    why = refusal(alice.chain_pem + alice.authority_pem)
    assert "no private key in it" in why
    assert ISSUE_CLIENT in why


def test_a_credential_with_two_keys_is_refused(alice: Credential) -> None:
    assert "2 private keys" in refusal(alice.to_pem() + alice.private_key_pem)


def test_a_credential_without_a_certificate_is_refused(alice: Credential) -> None:
    assert "no certificate in it" in refusal(alice.private_key_pem)
    assert "no certificate in it" in refusal(alice.private_key_pem + alice.authority_pem)


def test_a_credential_without_the_authority_is_refused(alice: Credential) -> None:
    assert "the authority's certificate is missing" in refusal(alice.private_key_pem + alice.chain_pem)


def test_a_key_that_does_not_fit_is_refused(alice: Credential, authority: Authority) -> None:
    other = authority.issue_client("bob").private_key_pem
    assert "does not fit the certificate" in refusal(other + alice.chain_pem + alice.authority_pem)


def test_a_certificate_of_another_authority_is_refused(alice: Credential) -> None:
    other = Authority.create().certificate_pem
    assert "not signed by the authority beside it" in refusal(alice.private_key_pem + alice.chain_pem + other)


def test_an_expired_credential_is_refused_with_its_date(alice: Credential) -> None:
    why = refusal(alice.to_pem(), days_later=31)
    assert "client alice expired on 2026-03-31 12:00 UTC" in why
    assert ISSUE_CLIENT in why
    assert Credential.from_pem(alice.to_pem(), now=NOW + 31 * DAY, allow_expired=True).name == "alice"


def test_a_credential_that_is_not_valid_yet_points_at_the_clock(alice: Credential) -> None:
    assert "set this machine's clock" in refusal(alice.to_pem(), days_later=-1)


def test_a_credential_of_another_role_is_refused_when_asked(alice: Credential, authority: Authority) -> None:
    why = refusal(alice.to_pem(), role=Role.NODE)
    assert "of client alice, a node credential is wanted" in why
    assert ISSUE_NODE in why
    assert ISSUE_CLIENT in refusal(authority.issue_node("tokyo").to_pem(), role=Role.CLIENT)


def test_a_chain_over_an_intermediate_is_put_in_order(alice: Credential, authority: Authority) -> None:
    # No verifier takes this chain, since a client is no authority; but it fits together.
    credential = issued_by_a_client(authority.issue_client("bob", now=NOW), alice)
    shuffled = credential.authority_pem + alice.chain_pem + credential.chain_pem.removesuffix(alice.chain_pem)
    again = Credential.from_pem(shuffled + credential.private_key_pem, now=NOW)
    assert again.chain_der == credential.chain_der


class TestFromFiles:
    def write(self, folder: Path, credential: Credential) -> tuple[Path, Path, Path]:
        paths = (folder / "own.pem", folder / "key.pem", folder / "authority.pem")
        for path, data in zip(
            paths, (credential.chain_pem, credential.private_key_pem, credential.authority_pem), strict=True
        ):
            path.write_bytes(data)
        return paths

    def test_three_files_make_a_credential(self, alice: Credential, tmp_path: Path) -> None:
        assert Credential.from_files(*self.write(tmp_path, alice), now=NOW).to_pem() == alice.to_pem()

    def test_a_certificate_file_that_holds_the_authority_too_is_fine(self, alice: Credential, tmp_path: Path) -> None:
        own, key, authority = self.write(tmp_path, alice)
        own.write_bytes(alice.chain_pem + alice.authority_pem)
        assert Credential.from_files(own, key, authority, now=NOW).to_pem() == alice.to_pem()

    @pytest.mark.parametrize("setting", ["certificate", "private_key", "authority"])
    def test_a_missing_file_is_named_by_its_setting(self, setting: str, alice: Credential, tmp_path: Path) -> None:
        paths = self.write(tmp_path, alice)
        wrong = paths[["certificate", "private_key", "authority"].index(setting)]
        wrong.unlink()
        with pytest.raises(CredentialError, match=f"^{setting} .*no such file"):
            Credential.from_files(*paths, now=NOW)

    @pytest.mark.parametrize("setting", ["certificate", "private_key", "authority"])
    def test_a_file_without_its_part_is_named_by_its_setting(
        self, setting: str, alice: Credential, tmp_path: Path
    ) -> None:
        paths = self.write(tmp_path, alice)
        paths[["certificate", "private_key", "authority"].index(setting)].write_bytes(b"nothing")
        with pytest.raises(CredentialError, match=f"^{setting} .*: no {setting.replace('_', ' ')} in this file"):
            Credential.from_files(*paths, now=NOW)

    def test_expiry_and_role_are_checked(self, alice: Credential, tmp_path: Path) -> None:
        paths = self.write(tmp_path, alice)
        with pytest.raises(CredentialError, match="expired on"):
            Credential.from_files(*paths, now=NOW + 400 * DAY)
        with pytest.raises(CredentialError, match="a node credential is wanted"):
            Credential.from_files(*paths, role=Role.NODE, now=NOW)
