"""Child processes by fork, and what they tell their parent: JSON lines over a socket that ends with either process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from quicbus.exceptions import QuicbusError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Channel", "Child", "ChildFailed", "ChildMisused", "fork"]

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD})
_READ_SIZE = 65_536


class ChildFailed(QuicbusError):
    """A child ended with an error that its sentence tells."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class ChildMisused(ChildFailed, UsageError):
    """Likewise, and the caller can mend it."""


class Channel:
    """One end; `fileno` is for a selector or an event loop."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unread = b""

    def fileno(self) -> int:
        return self._end.fileno()

    def tell(self, event: str, **facts: Any) -> None:
        """Tell the other end; waits until it fits. A parent that is gone hears nothing."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._end.sendall(msgspec.json.encode({"event": event, **facts}) + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """Return what was told, or `None` when the other end is gone. Waits where nothing can be read."""
        try:
            data = self._end.recv(_READ_SIZE)
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [msgspec.json.decode(line) for line in lines]

    def close(self) -> None:
        self._end.close()


class Child:
    """A process that was forked, as its parent sees it."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel

    def send_signal(self, number: int) -> None:
        """To one that has not been waited for."""
        os.kill(self.pid, number)

    def result(self) -> dict[str, Any]:
        """Wait until it has ended; return the last thing that it told. Raises `ChildFailed`. Cut off, it ends it."""
        last: dict[str, Any] = {}
        try:
            while (told := self.channel.read()) is not None:
                last = told[-1] if told else last
        except BaseException:
            self.send_signal(signal.SIGKILL)
            raise
        finally:
            self.channel.close()
            os.waitpid(self.pid, 0)
        if not last or last["event"] == "failed":
            raise failure_of(last, "a process that prepares the start ended early")
        return last


def fork(work: Callable[[Channel], int]) -> Child:
    """Start `work` in a child, which ends with the code that it returns; an error that it raises is told as `failed`.

    To be called without an event loop and other threads. In the child SIGINT is ignored, which a terminal sends to all;
    other signals are as the system has them.
    """
    here, there = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what waits would be written by both
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid:
            there.close()
            return Child(pid, Channel(here))
        _end(here, there, work)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def failure_of(told: dict[str, Any], otherwise: str) -> ChildFailed:
    """Return the error that a child has told; `otherwise` where it had no time to."""
    if told.get("event") != "failed":
        return ChildFailed(otherwise)
    return (ChildMisused if told["is_usage"] else ChildFailed)(told["error"])


def _end(here: socket.socket, there: socket.socket, work: Callable[[Channel], int]) -> NoReturn:
    """What the child does, all of it: nothing of the parent's stack may go on here."""
    code = 1
    try:
        here.close()
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        code = _code_of(work, Channel(there))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _code_of(work: Callable[[Channel], int], channel: Channel) -> int:
    try:
        return work(channel)
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, QuicbusError):
            channel.tell("failed", error=str(error), is_usage=isinstance(error, UsageError))
            return 2 if isinstance(error, UsageError) else 1
        traceback.print_exception(error)
        return 1
