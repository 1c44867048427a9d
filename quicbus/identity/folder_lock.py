"""Advisory locks on files in a data folder, which the system frees when the process dies.

One process per folder is a broker (`lock`); commands beside it, and the broker itself, take turns at what they all
write (`authority.lock`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from quicbus.exceptions import DataFolderError
from quicbus.identity.files import PRIVATE_FILE_MODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderInUse", "FolderLock", "lock_holder"]

LOCK_FILE = "lock"
BRIEF_LOCK_FILE = "authority.lock"
BRIEF_LOCK_TIMEOUT_S = 5.0
"""It is held while a few small files are read and written: a fraction of a second, unless the disk is in trouble."""
_POLL_S = 0.01

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
            if not _try_lock(self._descriptor) or _is_removed(self._descriptor, path):
                raise FolderInUse(_read_process_id(self._descriptor))
        except BaseException:
            self.release()
            raise
        _write_process_id(self._descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # frees the lock
            self._descriptor = None


def lock_holder(path: Path) -> int | None:
    """Return the id of the process that holds the lock, 0 where it can't be told, `None` where nobody does.

    Nothing is written. Raises `OSError` where the file can't be opened; one that is missing is held by nobody. The lock
    is tried for a moment, so that a broker that starts in that very moment is refused.
    """
    try:
        descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(descriptor) else _read_process_id(descriptor) or 0
    finally:
        os.close(descriptor)


def lock_folder(folder: Path, is_new: bool) -> FolderLock:
    """Take the lock of the broker that uses the folder; raises `DataFolderError` where another one has it."""
    try:
        return FolderLock(folder / LOCK_FILE)
    except FolderInUse as error:
        by = "another process" if error.process_id is None else f"process {error.process_id}"
        raise DataFolderError(
            str(folder), f"it is in use by {by}; stop that broker, or name another folder with --data-dir"
        ) from None
    except OSError:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def brief_lock(folder: Path, timeout_s: float = BRIEF_LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock for what brokers and commands both write: tokens, the log of certificates, the trust list.

    Blocks the thread for up to `timeout_s`, then raises `DataFolderError`. Not to be taken twice by one thread.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            lock = FolderLock(folder / BRIEF_LOCK_FILE)
            break
        except FolderInUse as error:
            if time.monotonic() >= deadline:
                by = "another process" if error.process_id is None else f"process {error.process_id}"
                raise DataFolderError(
                    str(folder), f"{by} has held {BRIEF_LOCK_FILE} for {timeout_s:g} s; look what it does, or end it"
                ) from None
            time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()


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


def _is_removed(descriptor: int, path: Path) -> bool:
    """Whether who had the lock took the file away between its opening and its locking: it guards nothing any more."""
    if sys.platform == "win32":  # what is open can't be removed there
        return False
    try:
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
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
