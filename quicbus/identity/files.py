"""Writing small files whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "PRIVATE_FILE_MODE",
    "PRIVATE_FOLDER_MODE",
    "TEMPORARY_SUFFIX",
    "FileStamp",
    "advice",
    "file_stamp",
    "write_file",
]

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
TEMPORARY_SUFFIX = ".part"
FileStamp = tuple[int, int, int]


def file_stamp(path: Path) -> FileStamp | None:
    """Return what changes when a file is replaced: time, size, inode; `None` where there is none to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def write_file(path: Path, data: bytes, *, private: bool) -> None:
    """Replace `path` by `data`; raises `OSError` and then leaves what was there, and nothing else, behind.

    `private`: nobody but the owner may read it, from the first byte on.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    mode = PRIVATE_FILE_MODE if private else 0o644
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def advice(error: OSError) -> str:
    """Return what to do about an error of the file system, to be put behind it; empty where that is not known."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "; make room there, then the same command works"
        case errno.ENOENT:
            return "; make its folder first, or name another place"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return "; make it writable for you, or name another place"
    return ""


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut. Windows has no such call and some file systems refuse it.
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
