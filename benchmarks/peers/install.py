"""Installs the servers of other peers from Debian where that can be done: `python -m benchmarks.peers.install`.

They are started by the benchmark only, not as services. Without root's rights, or without apt, it names them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.peers.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("nats-server", "mosquitto", "redis-server")
"""Named like their packages."""
_POLICY = Path("/usr/sbin/policy-rc.d")


def main() -> None:
    console = Console(highlight=False, stderr=True)
    missing = [program for program in PROGRAMS if find_program(program) is None]
    if not missing:
        return
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        console.print(f"not installed, will be skipped: {', '.join(missing)} (Debian: apt install {' '.join(missing)})")
        return
    console.print(f"installing {', '.join(missing)}")
    with _no_services():
        command = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *missing]
        done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=False)
    if done.returncode:
        console.print("apt-get failed (apt-get update may help); what is missing will be skipped")


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Packages ask this file whether they may start their service; one that is there already is left alone."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


if __name__ == "__main__":
    main()
