"""One process per data folder: an advisory lock on a file in it, which the system frees when the process dies."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from quicbus.identity.files import PRIVATE_FILE_MODE

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderInUse", "FolderLock"]

_LOCKED_BYTE = 1 << 20
"""Windows refuses to let others read what is locked, so a byte far behind the process id is."""


class FolderInUse(Exception):
    """Another process, or this one, holds the lock; `process_id` is `None` where it could not be read."""

    def __init__(self, process_id: int | None) -> None:
        super().__init__(process_id)
        self.process_id = process_id


class FolderLock:
    """Holds the lock until `release`, which may be called twice. The file stays: removing it would race."""

    def __init__(self, path: Path) -> None:
        """Take the lock without waiting; raises `FolderInUse` or `OSError`."""
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE)
        try:
            if not _try_lock(self._descriptor):
                raise FolderInUse(_read_process_id(self._descriptor))
        except BaseException:
            self.release()
            raise
        _write_process_id(self._descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # frees the lock
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            # flock, not lockf: the latter lets one process take the lock twice, and drops it at any close of the file.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _write_process_id(descriptor: int) -> None:
    # It only helps people: the lock holds without it, on a full disk too.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())


def _read_process_id(descriptor: int) -> int | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        return int(os.read(descriptor, 32))
    except (OSError, ValueError):
        return None
