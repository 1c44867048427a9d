"""Network namespaces without names: they live as long as a process or a file holds them, so nothing is left behind.

A thread that enters one starts its child processes there. Python has `os.setns` and `os.unshare` from 3.12 on; the
C library is called for 3.11.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Namespace", "enter", "new_namespace", "open_tun", "run", "why_not_here"]

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
OWN_NAMESPACE = "/proc/thread-self/ns/net"


def why_not_here() -> str | None:
    """Return a sentence that says what is missing for namespaces and TUN devices, `None` where nothing is."""
    if sys.platform != "linux":
        return "the wide-area path needs Linux: network namespaces and TUN devices"
    if os.geteuid() != 0:
        return "the wide-area path needs root: it makes network namespaces and TUN devices (try sudo)"
    if not Path("/dev/net/tun").exists():
        return "the wide-area path needs /dev/net/tun (try modprobe tun)"
    if shutil.which("ip") is None:
        return "the wide-area path needs the program ip (Debian: apt install iproute2)"
    return None


class Namespace:
    """One that another process holds, too. A context manager: leaving it lets go."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace meanwhile, and so is for good what it starts."""
        before = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self._file)
            try:
                yield
            finally:
                enter(before)
        finally:
            os.close(before)


def new_namespace() -> int:
    """Move this thread into a new namespace and return an open file that holds it."""
    _check(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET), "unshare")
    return os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def enter(namespace: int) -> None:
    """Move this thread into the namespace of an open file."""
    _check(ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET), "setns")


def open_tun(name: str) -> int:
    """Make a TUN device in this thread's namespace; it vanishes when the returned file is closed."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except BaseException:
        os.close(file)
        raise
    return file


def run(command: str) -> None:
    """Run one command in this thread's namespace."""
    subprocess.run(command.split(), check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _check(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
