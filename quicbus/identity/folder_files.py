"""The files of a data folder: their names and modes, one error for all that the system may say, no leftovers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity.files import PRIVATE_FILE_MODE, PRIVATE_FOLDER_MODE, TEMPORARY_SUFFIX, advice, write_file
from quicbus.identity.folder_lock import BRIEF_LOCK_FILE, LOCK_FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = [
    "AUTHORITY_FILE",
    "AUTHORITY_KEY_FILE",
    "BOOT_FILE",
    "CREDENTIAL_FILE",
    "ISSUED_FILE",
    "LOCK_FILE",
    "NEXT_KEY_FILE",
    "NODE_FILE",
    "NODE_KEY_FILE",
    "OLD_KEY_FILE",
    "REQUEST_FILE",
    "ROTATION_FILE",
    "TOKENS_FILE",
    "TRUST_FILE",
    "exists",
    "file_names",
    "make_folder",
    "one_error",
    "tidy",
    "undo",
    "write",
]

AUTHORITY_FILE = "authority.pem"
AUTHORITY_KEY_FILE = "authority-key.pem"
NODE_FILE = "node.pem"
NODE_KEY_FILE = "node-key.pem"
CREDENTIAL_FILE = "credential.pem"
BOOT_FILE = "boot"
REQUEST_FILE = "node-request.pem"
TRUST_FILE = "trust.bin"
TOKENS_FILE = "tokens.json"
ISSUED_FILE = "issued.jsonl"
NEXT_KEY_FILE = "authority-next-key.pem"
OLD_KEY_FILE = "authority-old-key.pem"
ROTATION_FILE = "rotation.json"

_FILES = (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    CREDENTIAL_FILE,
    BOOT_FILE,
    LOCK_FILE,
    REQUEST_FILE,
    TRUST_FILE,
    TOKENS_FILE,
    ISSUED_FILE,
    NEXT_KEY_FILE,
    OLD_KEY_FILE,
    ROTATION_FILE,
    BRIEF_LOCK_FILE,
)
_SECRET_FILES = (
    AUTHORITY_KEY_FILE,
    NODE_KEY_FILE,
    CREDENTIAL_FILE,
    TOKENS_FILE,
    ISSUED_FILE,
    NEXT_KEY_FILE,
    OLD_KEY_FILE,
)

logger = logging.getLogger("quicbus.identity")


def make_folder(folder: Path) -> bool:
    """Make the folder where it is missing, and tell whether it was. One that others may write to is refused."""
    try:
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise DataFolderError(str(folder), "it is a file, not a folder; name another with --data-dir") from None
        if os.name == "posix":
            _close_to_others(folder)
        return False
    folder.chmod(PRIVATE_FOLDER_MODE)  # whatever the umask is
    return True


def _close_to_others(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    names = file_names(folder)
    if mode & stat.S_IWOTH and names:
        raise DataFolderError(
            str(folder), "everybody may write to it, so keys in it can't be trusted; name another with --data-dir"
        )
    # A folder with other things in it, such as a home, keeps its mode: the secret files have their own.
    if mode & 0o077 and (not names or NODE_KEY_FILE in names):
        folder.chmod(PRIVATE_FOLDER_MODE)


def tidy(folder: Path) -> None:
    """Remove what a write that was cut off left behind, and close secret files that others may read."""
    for name in file_names(folder):
        path = folder / name
        if name.endswith(TEMPORARY_SUFFIX) and any(name.startswith(f".{file}.") for file in _FILES):
            path.unlink()
        elif name in _SECRET_FILES and os.name == "posix" and path.stat().st_mode & 0o077:
            logger.warning("data folder %s: others could read %s; its mode is 0600 again", folder, name)
            path.chmod(PRIVATE_FILE_MODE)


def write(folder: Path, name: str, data: bytes) -> None:
    """Replace one file, secret or not by its name; raises `OSError`."""
    write_file(folder / name, data, private=name in _SECRET_FILES)


def undo(folder: Path, *, keep: Collection[str], remove_folder: bool) -> None:
    """Remove the files of a data folder but those in `keep`, then the folder if it is empty; never raises `OSError`."""
    with contextlib.suppress(OSError):
        for name in _FILES:
            if name not in keep:
                (folder / name).unlink(missing_ok=True)
        if remove_folder:
            folder.rmdir()


def file_names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def exists(path: Path) -> bool:
    """Like `Path.exists`, but a file that can't be reached is an `OSError`, not missing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def one_error(folder: Path) -> Iterator[None]:
    """Turn what the system and the credentials in the folder say into a `DataFolderError`."""
    try:
        yield
    except CredentialError as error:
        raise DataFolderError(str(folder), str(error)) from error
    except OSError as error:
        raise DataFolderError(str(folder), f"{error.strerror or error}{_advice(error)}") from error


def _advice(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"{where}; make it yours, or name another with --data-dir or QUICBUS_DATA_DIR"
    return where + advice(error)
