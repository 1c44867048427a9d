"""How a command has a broker reload on every system: a request file in its data folder, a file with the result beside.

The folder is private to its user, and locked by the broker while it runs: a free lock says that nobody would answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from quicbus.exceptions import QuicbusError
from quicbus.identity.files import write_file
from quicbus.identity.folder_files import LOCK_FILE
from quicbus.identity.folder_lock import FolderInUse, FolderLock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Answer", "ReloadFailed", "answer", "ask", "requests_in"]

_REQUEST = re.compile(r"reload-([0-9a-f]{16})\.request")
_RESULT = re.compile(r"reload-[0-9a-f]{16}\.result")
MAX_REQUESTS = 64
"""Answered at a time; the others wait for the next time."""
POLL_S = 0.05
LEFT_BEHIND_S = 60.0
"""A result that nobody has fetched for so long is removed: who asked for it has died."""


class ReloadFailed(QuicbusError):
    """The broker has not reloaded, or there is none; the sentence says why and names the remedy."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request: a line for each thing that was reloaded, or why nothing was."""

    lines: tuple[str, ...] = ()
    error: str = ""


# --- the broker -------------------------------------------------------------------------------------------------------


def requests_in(folder: Path) -> list[str]:
    """Return the ids of the requests that wait in a folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [match[1] for name in sorted(names) if (match := _REQUEST.fullmatch(name))][:MAX_REQUESTS]


def answer(folder: Path, requests: Sequence[str], result: Answer) -> None:
    """Leave the result for each of the requests, and take them away. Where the disk refuses, they wait in vain."""
    with contextlib.suppress(OSError):
        _remove_old_results(folder)
    for id in requests:
        with contextlib.suppress(OSError):
            (folder / f"reload-{id}.request").unlink()
            write_file(folder / f"reload-{id}.result", msgspec.json.encode(result), private=True)


def _remove_old_results(folder: Path) -> None:
    for name in os.listdir(folder):
        path = folder / name
        if _RESULT.fullmatch(name) and path.stat().st_mtime < time.time() - LEFT_BEHIND_S:
            path.unlink()


# --- who asks ---------------------------------------------------------------------------------------------------------


def ask(folder: Path, timeout_s: float) -> tuple[str, ...]:
    """Have the broker that uses a data folder reload, and wait for it; returns a line for each thing that it reloaded.

    Raises `ReloadFailed`: no broker, no answer within `timeout_s`, or the broker's reason; and `OSError`.
    """
    _check_broker(folder)
    id = secrets.token_hex(8)
    request, result = folder / f"reload-{id}.request", folder / f"reload-{id}.result"
    try:
        write_file(request, b"", private=True)
        given = _wait(result, time.monotonic() + timeout_s)
        if given is None:
            _check_broker(folder)
            raise ReloadFailed(
                f"the broker with the data folder {folder} has not answered within {timeout_s:g} s; look at its log"
            )
    finally:
        for path in (request, result):
            path.unlink(missing_ok=True)
    if given.error:
        raise ReloadFailed(f"not reloaded, everything stays as it was: {given.error}")
    return given.lines


def _wait(result: Path, deadline: float) -> Answer | None:
    while time.monotonic() < deadline:
        try:
            return msgspec.json.decode(result.read_bytes(), type=Answer)
        except FileNotFoundError:
            time.sleep(POLL_S)
    return None


def _check_broker(folder: Path) -> None:
    """Raise `ReloadFailed` where no broker uses the folder. Nothing is made in a folder that is none of a broker."""
    path = folder / LOCK_FILE
    if path.exists():
        try:
            FolderLock(path).release()
        except FolderInUse:
            return
    raise ReloadFailed(
        f"no broker runs with the data folder {folder}; name its folder with --data-dir, or start it with "
        "`quicbus broker`, which reads everything (one whose settings name certificate files is told by SIGHUP)"
    )
