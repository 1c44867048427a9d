"""What a doctor sees in a data folder: folders made by the real code, and then damaged."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import DataFolder, load_authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus_cli.doctor.finding import State
from quicbus_cli.doctor.folder import (
    check_boot,
    check_broker,
    check_files,
    check_folder,
    check_modes,
    describe_duration,
    look_at_folder,
)

if TYPE_CHECKING:
    from pathlib import Path

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def made(folder: Path) -> Path:
    """A folder as a first start leaves it."""
    with DataFolder.open(folder, may_create_authority=True, node_name="tokyo") as opened:
        opened.next_boot()
    return folder


def test_a_whole_folder_is_well_and_nobody_uses_it(data_dir: Path) -> None:
    findings = look_at_folder(made(data_dir), now())
    states = {finding.check: finding.state for finding in findings}
    assert states.pop("local broker") is State.SKIPPED
    assert set(states.values()) == {State.OK}, findings


def test_looking_changes_nothing(data_dir: Path) -> None:
    made(data_dir)

    def content() -> list[tuple[str, bytes, int]]:
        files = sorted(path for path in data_dir.iterdir())
        return [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in files]

    before = content()
    look_at_folder(data_dir, now())
    assert content() == before


def test_a_folder_that_is_missing_is_not_made(data_dir: Path) -> None:
    (finding,) = look_at_folder(data_dir, now())
    assert finding.state is State.SKIPPED
    assert not data_dir.exists()


def test_what_is_no_folder_or_is_empty_is_told(tmp_path: Path) -> None:
    assert check_folder(tmp_path).state is State.SKIPPED
    (tmp_path / "file").touch()
    assert check_folder(tmp_path / "file").state is State.FAILURE


def test_a_folder_that_can_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    finding = check_folder(tmp_path)
    assert (finding.state, "run as the user of the broker" in finding.remedy) == (State.FAILURE, True)


@posix_only
@pytest.mark.parametrize(
    ("name", "mode", "state", "said"),
    [
        ("", 0o700, State.OK, "0700"),
        ("", 0o770, State.WARNING, "its group may write"),
        ("", 0o707, State.FAILURE, "everybody may write"),
        ("node-key.pem", 0o640, State.FAILURE, "others may read node-key.pem (0640)"),
        ("credential.pem", 0o604, State.FAILURE, "others may read credential.pem (0604)"),
        ("issued.jsonl", 0o644, State.WARNING, "others may read issued.jsonl (0644)"),
        ("authority.pem", 0o644, State.OK, "0700"),
    ],
)
def test_modes_that_let_others_in_are_told(data_dir: Path, name: str, mode: int, state: State, said: str) -> None:
    made(data_dir)
    (data_dir / name).touch()
    (data_dir / name).chmod(mode)
    finding = check_modes(data_dir)
    assert (finding.state, said in finding.seen) == (state, True), finding


@pytest.mark.parametrize(
    ("missing", "state", "said"),
    [
        ([], State.OK, "with its key"),
        (["authority-key.pem"], State.OK, "its key is elsewhere"),
        (["node-key.pem"], State.FAILURE, "node-key.pem is missing"),
        (["authority.pem"], State.FAILURE, "authority.pem is missing"),
        (["node.pem"], State.SKIPPED, "no broker has run"),
        (["node.pem", "authority-key.pem"], State.FAILURE, "neither its key nor node.pem"),
    ],
)
def test_what_belongs_together_and_is_not_there_is_told(
    data_dir: Path, missing: list[str], state: State, said: str
) -> None:
    made(data_dir)
    for name in missing:
        (data_dir / name).unlink()
    finding = check_files(data_dir)
    assert (finding.state, said in finding.seen) == (state, True), finding


def test_a_request_that_waits_for_a_signature_is_told(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "node-request.pem").touch()
    finding = check_files(data_dir)
    assert (finding.state, "cert sign" in finding.remedy) == (State.FAILURE, True)


def test_the_folder_of_a_further_node_is_whole_without_the_authoritys_key(data_dir: Path, tmp_path: Path) -> None:
    prepare_node_folder(load_authority(made(data_dir)), "osaka", tmp_path / "osaka")
    assert check_files(tmp_path / "osaka").state is State.OK


def test_a_broker_that_runs_is_seen_by_its_lock(data_dir: Path) -> None:
    with DataFolder.open(data_dir, may_create_authority=True, node_name="tokyo"):
        finding = check_broker(data_dir)
    assert (finding.state, finding.seen) == (State.OK, f"process {os.getpid()} runs in this folder")
    assert check_broker(data_dir).state is State.SKIPPED


def test_a_clock_behind_the_last_start_is_told(data_dir: Path) -> None:
    made(data_dir)
    assert check_boot(data_dir, now()).state is State.OK
    finding = check_boot(data_dir, now() - dt.timedelta(days=3))
    assert (finding.state, "3 days in the future" in finding.seen) == (State.WARNING, True)
    (data_dir / "boot").write_text("no number")
    assert check_boot(data_dir, now()).state is State.SKIPPED


def test_durations_have_one_unit() -> None:
    assert [describe_duration(seconds) for seconds in (0.5, 119, 121, 7200, 86_400 * 30)] == [
        "0.5 s",
        "119.0 s",
        "2 minutes",
        "2 hours",
        "30 days",
    ]
