"""The lock on a data folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import folder_lock
from quicbus.identity.folder_lock import FolderInUse, FolderLock, lock_holder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_second_taker_learns_the_process(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock")
    with pytest.raises(FolderInUse) as caught:
        FolderLock(tmp_path / "lock")
    assert caught.value.process_id == os.getpid()
    lock.release()
    lock.release()
    FolderLock(tmp_path / "lock").release()


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    program = "import os, pathlib, sys; from quicbus.identity.folder_lock import FolderLock\n"
    program += "lock = FolderLock(pathlib.Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "lock")], check=True)
    lock = FolderLock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_lock_holds_where_the_process_id_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        lock = FolderLock(tmp_path / "lock")
    with pytest.raises(FolderInUse) as caught:
        FolderLock(tmp_path / "lock")
    assert caught.value.process_id is None
    lock.release()


def test_a_lock_that_can_not_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FolderLock(tmp_path / "missing" / "lock")


def test_who_holds_a_lock_is_told_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_holder(path) is None
    assert not path.exists()
    lock = FolderLock(path)
    assert lock_holder(path) == os.getpid()
    path.write_text("no number\n")
    assert lock_holder(path) == 0
    lock.release()
    assert lock_holder(path) is None
    FolderLock(path).release()


@pytest.mark.skipif(os.name != "posix", reason="what is open can't be removed elsewhere")
def test_a_lock_whose_file_was_removed_by_its_holder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, locked = tmp_path / "lock", folder_lock._try_lock

    def remove_first(descriptor: int) -> bool:
        path.unlink()
        return locked(descriptor)

    monkeypatch.setattr(folder_lock, "_try_lock", remove_first)
    with pytest.raises(FolderInUse):
        FolderLock(path)
    monkeypatch.undo()
    FolderLock(path).release()
