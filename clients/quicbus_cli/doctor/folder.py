"""Checks of the data folder on this machine: there, readable, closed to others, whole, in use by a broker or not."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    BOOT_FILE,
    CREDENTIAL_FILE,
    ISSUED_FILE,
    LOCK_FILE,
    NEXT_KEY_FILE,
    NODE_FILE,
    NODE_KEY_FILE,
    OLD_KEY_FILE,
    REQUEST_FILE,
    TOKENS_FILE,
)
from quicbus.identity.folder_lock import lock_holder
from quicbus.identity.peer import ISSUE_NODE
from quicbus_cli.doctor.finding import Finding, State, failure, ok, skipped, warning

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "check_boot",
    "check_broker",
    "check_files",
    "check_folder",
    "check_modes",
    "check_secret",
    "describe_duration",
    "look_at_folder",
]

KEY_FILES = (AUTHORITY_KEY_FILE, NEXT_KEY_FILE, OLD_KEY_FILE, NODE_KEY_FILE, CREDENTIAL_FILE)
PRIVATE_FILES = (TOKENS_FILE, ISSUED_FILE)
"""They hold no key, and tell who is in the mesh."""
BOOT_AHEAD_S = 60
"""A broker may have been started so often in a row that its boots ran ahead of the clock by a little."""


def look_at_folder(path: Path, now: dt.datetime) -> list[Finding]:
    """Look at the folder; one that is missing is no mistake of an application's machine."""
    first = check_folder(path)
    if first.state is not State.OK:
        return [first]
    return [first, check_modes(path), check_files(path), check_broker(path), check_boot(path, now)]


def check_folder(path: Path) -> Finding:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return skipped("data folder", f"{path} does not exist: no broker was started here with it")
    except NotADirectoryError:
        return failure("data folder", f"{path} is a file, not a folder", "name another with --data-dir")
    except PermissionError:
        return failure(
            "data folder",
            f"{path} can't be read by this user",
            "run as the user of the broker, or name another with --data-dir or QUICBUS_DATA_DIR",
        )
    except OSError as error:
        return failure("data folder", f"{path}: {error.strerror or error}", "name another with --data-dir")
    if not names:
        return skipped("data folder", f"{path} is empty")
    return ok("data folder", str(path))


def check_modes(path: Path) -> Finding:
    """Look who else may read secrets, or write where keys are taken from."""
    if os.name != "posix":
        return skipped("modes", "this system has no modes; let only the broker's user have access to the folder")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        return failure(
            "modes", f"everybody may write to {path} ({mode:04o}), so its keys can't be trusted", f"chmod 700 {path}"
        )
    if keys := _open_to_others(path, KEY_FILES):
        return failure(
            "modes",
            f"others may read {keys}",
            f"chmod 600 the files in {path}; if others use this machine, take the keys for stolen: `quicbus cert "
            "revoke`, and issue anew",
        )
    if files := _open_to_others(path, PRIVATE_FILES):
        return warning("modes", f"others may read {files}, which tell who is in the mesh", f"chmod 600 them in {path}")
    if mode & stat.S_IWGRP:
        return warning("modes", f"its group may write to {path} ({mode:04o})", f"chmod 700 {path}")
    return ok("modes", f"folder {mode:04o}, secret files 0600")


def check_secret(check: str, path: Path) -> Finding:
    """Look whether a single file that holds a key is for its owner only."""
    if os.name != "posix":
        return skipped(check, f"this system has no modes; let nobody else have access to {path}")
    if shown := _open_to_others(path.parent, [path.name]):
        return failure(check, f"others may read {shown}", f"chmod 600 {path}")
    return ok(check, f"{path}, for its owner only")


def _open_to_others(path: Path, names: Sequence[str]) -> str:
    modes = {name: stat.S_IMODE((path / name).stat().st_mode) for name in names if (path / name).exists()}
    return ", ".join(f"{name} ({mode:04o})" for name, mode in modes.items() if mode & 0o077)


def check_files(path: Path) -> Finding:
    """Look whether what belongs together is there; what is in the files is looked at elsewhere."""
    there = {name for name in (AUTHORITY_FILE, AUTHORITY_KEY_FILE, NODE_FILE, NODE_KEY_FILE) if (path / name).exists()}
    if NODE_FILE not in there:
        if (path / REQUEST_FILE).exists():
            return failure(
                "node files",
                f"{REQUEST_FILE} waits for the authority's signature, there is no {NODE_FILE} yet",
                "`quicbus cert sign` where the authority's key is, then `quicbus cert install` here",
            )
        if AUTHORITY_FILE in there and AUTHORITY_KEY_FILE not in there:
            return failure(
                "node files",
                f"an authority's certificate but neither its key nor {NODE_FILE}",
                f"{ISSUE_NODE} on the machine with the authority, and start with --data-dir DIR",
            )
        return skipped("node files", "no node certificate: no broker has run in this folder")
    if NODE_KEY_FILE not in there:
        return failure(
            "node files",
            f"{NODE_KEY_FILE} is missing beside {NODE_FILE}",
            f"put it back, or remove {NODE_FILE} and become a new node",
        )
    if AUTHORITY_FILE not in there:
        return failure(
            "node files", f"{AUTHORITY_FILE} is missing beside {NODE_FILE}", "copy it from another node of the mesh"
        )
    where = "with its key, so it issues certificates" if AUTHORITY_KEY_FILE in there else "its key is elsewhere"
    return ok("node files", f"node certificate and key; the authority's certificate ({where})")


def check_broker(path: Path) -> Finding:
    """Look whether a broker uses the folder."""
    try:
        holder = lock_holder(path / LOCK_FILE)
    except OSError as error:
        return skipped("local broker", f"{path / LOCK_FILE} can't be read: {error.strerror or error}")
    if holder is None:
        return skipped("local broker", "none runs in this folder", "`quicbus broker` starts one, if one is wanted here")
    return ok("local broker", f"process {holder} runs in this folder" if holder else "one runs in this folder")


def check_boot(path: Path, now: dt.datetime) -> Finding:
    """Hold the clock against the last start of a broker here, which kept the time in its boot number."""
    try:
        boot = int((path / BOOT_FILE).read_text("ascii"))
    except (OSError, ValueError):
        return skipped("clock here", "no broker has kept a time in this folder to hold the clock against")
    ahead_s = boot / 1000 - now.timestamp()
    if ahead_s > BOOT_AHEAD_S:
        return warning(
            "clock here",
            f"the last start of a broker was {describe_duration(ahead_s)} in the future",
            "set this machine's clock (it went back, or was wrong then)",
        )
    return ok("clock here", f"{now:%Y-%m-%d %H:%M:%S} UTC, and past the last start of a broker here")


def describe_duration(seconds: float) -> str:
    """Return about how long that is, in one unit."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
