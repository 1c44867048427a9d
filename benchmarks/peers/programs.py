"""The programs and packages of peers: where they are, why one is missing, when a server takes connections."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quicbus.testing.launcher import Launched

__all__ = ["find_program", "output_of", "wait_port", "why_missing"]


def find_program(name: str) -> str | None:
    """Return the path of a server's program, or `None`; Debian keeps some where users don't look."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")


def why_missing(packages: Mapping[str, str], program: str = "") -> str:
    """Return why a peer can't be measured here, with the remedy; empty if it can. `packages`: with their modules."""
    if program and find_program(program) is None:
        return f"{program} is not on PATH (Debian: apt install {program})"
    absent = [package for package, module in packages.items() if importlib.util.find_spec(module) is None]
    return f"{absent[0]} is not installed (pip install '.[bench]')" if absent else ""


def output_of(program: str, option: str) -> str:
    """Return what a program that is there says of itself."""
    path = find_program(program)
    assert path is not None
    return subprocess.run([path, option], capture_output=True, text=True, check=False).stdout


def wait_port(process: Launched, port: int, deadline_s: float = 30.0) -> None:
    """Return once a server that does not say so takes connections; raises `ConnectionError`."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end and process.is_running:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.001)
    said = process.stderr_lines
    raise ConnectionError(f"{process.command[0]} takes no connections: {said[-1].strip() if said else ''}")
