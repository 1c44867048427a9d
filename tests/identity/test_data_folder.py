"""The data folder: first start, later starts, and all that can be wrong with it."""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import DataFolderError, InvalidSetting
from quicbus.identity import (
    Authority,
    Credential,
    DataFolder,
    Role,
    Verifier,
    load_authority,
    prepare_node_folder,
    sign_proof,
)
from tests.identity.certificates import DAY, NOW

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from pathlib import Path

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
ALL = [
    "authority-key.pem",
    "authority.lock",
    "authority.pem",
    "credential.pem",
    "issued.jsonl",
    "lock",
    "node-key.pem",
    "node.pem",
]
LOCKS = ["authority.lock", "lock"]
SECRET = ["authority-key.pem", "credential.pem", "node-key.pem"]
ISSUE_NODE = "quicbus cert issue --node NAME --out DIR"


def start(path: Path, now: dt.datetime = NOW) -> DataFolder:
    return DataFolder.open(path, may_create_authority=True, node_name="tokyo", now=now)


def join(path: Path, now: dt.datetime = NOW) -> DataFolder:
    return DataFolder.open(path, may_create_authority=False, now=now)


def refusal(opening: Callable[[], object], path: Path) -> str:
    with pytest.raises(DataFolderError) as caught:
        opening()
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in path.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


class TestFirstStart:
    def test_it_makes_authority_node_and_local_credential(self, path: Path) -> None:
        with start(path) as folder:
            assert sorted(os.listdir(path)) == ALL
            assert folder.authority is not None
            assert folder.mesh == folder.authority.mesh == folder.node.mesh
            assert (folder.node.role, folder.node.name) == (Role.NODE, "tokyo")
            assert folder.node_id == folder.node.node_id
            local = Credential.load(folder.credential_path, role=Role.CLIENT, now=NOW)
            verifier = Verifier(folder.node.authority_pem, folder.mesh)
            binding = b"b" * 32
            peer = verifier.verify(local.chain_der, sign_proof(local, binding, "client"), binding, "client", NOW)
            assert peer.node_id == local.node_id

    @posix_only
    def test_the_folder_and_what_is_secret_are_for_their_owner_only(self, path: Path) -> None:
        before = os.umask(0)
        try:
            start(path).close()
        finally:
            os.umask(before)
        assert mode(path) == 0o700
        assert [mode(path / name) for name in SECRET] == [0o600] * 3

    def test_node_and_user_names_come_from_the_machine_and_are_made_to_fit(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "büro 7" + "x" * 80)
        monkeypatch.setattr("getpass.getuser", lambda: "DOMAIN\\alice")
        with DataFolder.open(path, may_create_authority=True, now=NOW) as folder:
            assert folder.node.name == ("b-ro-7" + "x" * 80)[:64]
            assert Credential.load(folder.credential_path, now=NOW).name == "DOMAIN-alice"

    def test_a_user_without_a_name_is_called_local(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody() -> str:
            raise KeyError("uid 12345")

        monkeypatch.setattr("getpass.getuser", nobody)
        with start(path) as folder:
            assert Credential.load(folder.credential_path, now=NOW).name == "local"

    def test_parent_folders_are_made(self, path: Path) -> None:
        start(path / "deep" / "down").close()
        assert sorted(os.listdir(path / "deep" / "down")) == ALL

    def test_a_name_that_is_not_allowed_leaves_nothing(self, path: Path) -> None:
        with pytest.raises(InvalidSetting):
            DataFolder.open(path, may_create_authority=True, node_name="a/b")
        assert not path.exists()


class TestLaterStarts:
    def test_they_change_nothing(self, path: Path) -> None:
        start(path).close()
        before = contents(path)
        for opening in (start, join):
            opening(path, NOW + DAY).close()
            assert contents(path) == before

    def test_a_missing_local_credential_is_made_again(self, path: Path) -> None:
        start(path).close()
        (path / "credential.pem").unlink()
        with start(path) as folder:
            assert Credential.load(folder.credential_path, now=NOW).mesh == folder.mesh

    def test_what_expired_is_issued_anew_with_the_same_keys_and_names(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with start(path) as folder:
            node, local = folder.node, Credential.load(folder.credential_path, now=NOW)
        later = NOW + 400 * DAY
        with caplog.at_level(logging.INFO, "quicbus.identity"), start(path, later) as folder:
            renewed = Credential.load(folder.credential_path, now=later)
            for old, new in ((node, folder.node), (local, renewed)):
                assert (new.name, new.node_id, new.role) == (old.name, old.node_id, old.role)
                assert new.not_after == later + 30 * DAY
        assert "renewed the certificate of node tokyo" in caplog.text
        assert "renewed the local credential" in caplog.text

    def test_a_running_node_renews_in_the_last_third(self, path: Path) -> None:
        with start(path) as folder:
            node = folder.node
            assert not folder.renew(NOW + 19 * DAY)
            assert folder.node is node
            assert folder.renew(NOW + 21 * DAY)
            assert folder.node.not_after == NOW + 51 * DAY
            assert folder.node_id == node.node_id
            assert not folder.renew(NOW + 22 * DAY)

    @posix_only
    def test_secret_files_that_others_may_read_are_closed_again(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        start(path).close()
        path.chmod(0o755)
        (path / "node-key.pem").chmod(0o644)
        start(path).close()
        assert mode(path) == 0o700
        assert mode(path / "node-key.pem") == 0o600
        assert "others could read node-key.pem" in caplog.text

    @posix_only
    def test_a_folder_that_everybody_may_write_to_is_refused(self, path: Path) -> None:
        start(path).close()
        path.chmod(0o777)
        assert "everybody may write to it" in refusal(lambda: start(path), path)

    @posix_only
    def test_an_empty_folder_is_taken_and_closed_to_others(self, path: Path) -> None:
        path.mkdir()
        path.chmod(0o777)
        start(path).close()
        assert mode(path) == 0o700


class TestLock:
    def test_a_second_opener_is_told_the_process(self, path: Path) -> None:
        with start(path):
            why = refusal(lambda: start(path), path)
            assert f"in use by process {os.getpid()}" in why
            assert "--data-dir" in why

    def test_it_holds_against_another_process(self, path: Path) -> None:
        program = (
            "import sys; from quicbus.identity import DataFolder\n"
            "DataFolder.open(sys.argv[1], may_create_authority=True)"
        )
        with start(path):
            run = subprocess.run(
                [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
            )
        assert run.returncode == 1
        assert f"in use by process {os.getpid()}" in run.stderr

    def test_closing_twice_is_fine_and_frees_the_folder(self, path: Path) -> None:
        folder = start(path)
        folder.close()
        folder.close()
        start(path).close()

    def test_a_start_that_fails_frees_the_folder(self, path: Path) -> None:
        start(path).close()
        key = (path / "node-key.pem").read_bytes()
        (path / "node-key.pem").write_bytes(b"junk")
        refusal(lambda: start(path), path)
        (path / "node-key.pem").write_bytes(key)
        start(path).close()

    def test_issuing_needs_no_lock(self, path: Path) -> None:
        with start(path) as folder:
            assert load_authority(path).mesh == folder.mesh


class TestJoining:
    def test_without_a_node_certificate_nothing_is_created(self, path: Path) -> None:
        why = refusal(lambda: join(path), path)
        assert ISSUE_NODE in why
        assert "--join" in why
        assert not path.exists()
        path.mkdir()
        refusal(lambda: join(path), path)
        assert os.listdir(path) == []

    def test_a_prepared_folder_starts_with_and_without_a_seed(self, path: Path, tmp_path: Path) -> None:
        authority = Authority.create(now=NOW)
        node = prepare_node_folder(authority, "osaka", path)
        assert sorted(os.listdir(path)) == ["authority.pem", "credential.pem", "node-key.pem", "node.pem"]
        for opening in (join, start):
            with opening(path, node.not_before) as folder:
                assert (folder.node.name, folder.node_id, folder.mesh) == ("osaka", node.node_id, authority.mesh)
                assert folder.authority is None
                assert not folder.renew(node.not_after)
                local = Credential.load(folder.credential_path, role=Role.CLIENT)
                assert (local.name, local.mesh) == ("osaka", authority.mesh)

    @posix_only
    def test_a_prepared_folder_is_for_its_owner_only(self, path: Path) -> None:
        path.mkdir(mode=0o755)
        prepare_node_folder(Authority.create(), "osaka", path)
        assert mode(path) == 0o700
        assert [mode(path / name) for name in ("credential.pem", "node-key.pem")] == [0o600] * 2

    def test_a_folder_is_not_prepared_over_another(self, path: Path) -> None:
        start(path).close()
        before = contents(path)
        authority = load_authority(path)
        assert "is not empty" in refusal(lambda: prepare_node_folder(authority, "osaka", path), path)
        assert contents(path) == before

    def test_an_expired_node_certificate_without_the_authority_names_the_remedy(self, path: Path) -> None:
        node = prepare_node_folder(Authority.create(), "osaka", path, days=30)
        why = refusal(lambda: join(path, node.not_after + DAY), path)
        assert "node osaka expired on" in why
        assert ISSUE_NODE in why

    def test_a_folder_of_a_further_node_may_lack_a_local_credential(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        node = prepare_node_folder(Authority.create(), "osaka", path)
        (path / "credential.pem").unlink()
        join(path, node.not_before).close()
        assert "local applications need --credentials" in caplog.text

    def test_only_the_folder_with_the_authoritys_key_issues(self, path: Path) -> None:
        prepare_node_folder(Authority.create(), "osaka", path)
        for folder in (path, path / "missing"):
            why = refusal(functools.partial(load_authority, folder), folder)
            assert "no authority in it" in why


class TestHalfMade:
    @pytest.mark.parametrize("kept", range(6))
    def test_a_first_start_that_was_cut_off_goes_on(self, kept: int, path: Path, tmp_path: Path) -> None:
        start(tmp_path / "whole").close()
        order = ["lock", "authority-key.pem", "authority.pem", "node-key.pem", "node.pem", "credential.pem"]
        path.mkdir(mode=0o700)
        for name in order[:kept]:
            (path / name).write_bytes((tmp_path / "whole" / name).read_bytes())
        (path / f".{order[kept]}.0123abcd.part").write_bytes(b"half")
        kept_files = {name: (path / name).read_bytes() for name in order[1:kept]}
        with start(path) as folder:
            assert sorted(os.listdir(path)) == ALL
            assert kept_files.items() <= contents(path).items()
            assert folder.mesh == Credential.load(folder.credential_path, now=NOW).mesh
        start(path).close()

    @pytest.mark.parametrize(
        ("missing", "why"),
        [
            (["node-key.pem"], "node-key.pem is missing beside node.pem"),
            (["authority.pem", "authority-key.pem"], "authority.pem is missing beside node.pem"),
            (["authority-key.pem", "node.pem"], "an authority's certificate but neither its key nor node.pem"),
        ],
    )
    def test_what_can_not_be_a_cut_off_start_is_refused_and_left(
        self, missing: list[str], why: str, path: Path
    ) -> None:
        start(path).close()
        for name in missing:
            (path / name).unlink()
        before = contents(path)
        assert why in refusal(lambda: start(path), path)
        assert contents(path) == before

    @pytest.mark.parametrize("name", [name for name in ALL if name not in (*LOCKS, "issued.jsonl")])
    def test_a_file_of_garbage_is_named_and_left(self, name: str, path: Path) -> None:
        start(path).close()
        (path / name).write_bytes(b"garbage")
        before = contents(path)
        assert name in refusal(lambda: start(path), path)
        assert contents(path) == before

    @pytest.mark.parametrize("name", ["authority-key.pem", "node-key.pem", "node.pem", "credential.pem"])
    def test_a_file_of_another_mesh_is_refused(self, name: str, path: Path, tmp_path: Path) -> None:
        start(path).close()
        start(tmp_path / "other").close()
        (path / name).write_bytes((tmp_path / "other" / name).read_bytes())
        assert refusal(lambda: start(path), path)

    def test_a_mesh_that_was_swapped_under_the_node_is_refused(self, path: Path, tmp_path: Path) -> None:
        start(path).close()
        start(tmp_path / "other").close()
        for name in ("authority.pem", "authority-key.pem"):
            (path / name).write_bytes((tmp_path / "other" / name).read_bytes())
        assert "not signed by the authority" in refusal(lambda: start(path), path)

    def test_a_file_in_place_of_the_folder_is_refused(self, path: Path) -> None:
        path.write_text("x")
        assert "it is a file, not a folder" in refusal(lambda: start(path), path)


class FailingDisk:
    """Fails at the n-th file that is written, in one of the calls that writing one takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, nth: int) -> None:
        self.countdown = nth
        self._real = getattr(os, call)
        monkeypatch.setattr(os, call, self)

    def __call__(self, first: object, *rest: object) -> object:
        if not isinstance(first, int) or stat.S_ISREG(os.fstat(first).st_mode):
            self.countdown -= 1
            if self.countdown < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._real(first, *rest)


class TestFailingDisk:
    @pytest.mark.parametrize("call", ["replace", "fsync"])
    @pytest.mark.parametrize("nth", range(5))
    def test_a_full_disk_on_the_first_start_leaves_nothing(
        self, call: str, nth: int, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            FailingDisk(patch, call, nth)
            why = refusal(lambda: start(path), path)
        assert "No space left on device" in why
        assert "make room there, then the same command works" in why
        assert not path.exists()
        start(path).close()

    @pytest.mark.parametrize("nth", range(5))
    def test_a_full_disk_leaves_a_folder_that_was_there_as_it_was(
        self, nth: int, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
        with monkeypatch.context() as patch:
            FailingDisk(patch, "replace", nth)
            refusal(lambda: start(path), path)
        assert set(os.listdir(path)) <= {"notes.txt", *LOCKS}
        start(path).close()
        assert (path / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("nth", range(2))
    def test_a_full_disk_while_renewing_keeps_the_old_certificates(
        self, nth: int, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with start(path) as folder:
            node, later = folder.node, NOW + 300 * DAY
            with monkeypatch.context() as patch:
                FailingDisk(patch, "replace", nth)
                refusal(lambda: folder.renew(later), path)
            assert folder.node is node
        start(path, later).close()

    def test_a_full_disk_while_preparing_a_node_leaves_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = Authority.create()
        with monkeypatch.context() as patch:
            FailingDisk(patch, "replace", 2)
            refusal(lambda: prepare_node_folder(authority, "osaka", path), path)
        assert not path.exists()

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
    def test_a_folder_that_can_not_be_made_is_named_with_advice(
        self, number: int, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_args: object, **_options: object) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr("pathlib.Path.mkdir", refused)
        why = refusal(lambda: start(path), path)
        assert os.strerror(number) in why
        assert "QUICBUS_DATA_DIR" in why


class TestBoots:
    def test_boots_grow_with_the_clock(self, path: Path) -> None:
        with start(path) as folder:
            first = folder.next_boot(NOW)
            assert first == int(NOW.timestamp() * 1000)
            assert folder.next_boot(NOW + DAY) == first + 86_400_000

    def test_boots_grow_when_the_clock_steps_back_or_stands(self, path: Path) -> None:
        with start(path) as folder:
            first = folder.next_boot(NOW)
        with start(path) as folder:
            assert [folder.next_boot(NOW - 10 * DAY), folder.next_boot(NOW)] == [first + 1, first + 2]

    def test_a_boot_number_that_is_none_is_refused(self, path: Path) -> None:
        with start(path) as folder:
            for junk in ("", "-1", "1e9", "9" * 30, "²"):
                (path / "boot").write_text(junk)
                assert "the file boot holds no number" in refusal(lambda: folder.next_boot(NOW), path)

    def test_a_boot_that_can_not_be_kept_is_an_error(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with start(path) as folder:
            first = folder.next_boot(NOW)
            with monkeypatch.context() as patch:
                FailingDisk(patch, "replace", 0)
                refusal(lambda: folder.next_boot(NOW + DAY), path)
            assert folder.next_boot(NOW) == first + 1
