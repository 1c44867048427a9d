"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.identity.files import advice, write_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_file(path, b"new", private=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_private_file_is_private_before_anything_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    before = os.umask(0)
    try:
        write_file(tmp_path / "file", b"secret", private=True)
    finally:
        os.umask(before)
    assert modes[0] == 0o600


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object) -> None:
        raise OSError("no")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match="no"):
        write_file(path, b"new", private=False)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.ENOENT, "make its folder first"),
        (errno.EROFS, "make it writable for you"),
        (errno.EACCES, "make it writable for you"),
        (errno.EPERM, "make it writable for you"),
    ],
    ids=errno.errorcode.get,
)
def test_an_error_of_the_file_system_has_its_remedy(number: int, remedy: str) -> None:
    assert advice(OSError(number, os.strerror(number))).startswith(f"; {remedy}")


def test_where_nothing_is_known_nothing_is_advised() -> None:
    assert advice(OSError(errno.EIO, "broken")) == advice(OSError("no number")) == ""
