"""The process that has loaded quicbus and forks others from itself: `python -m quicbus.testing.fork_server FD`.

`FD` is one end of a pair of sockets; from the other one come orders, each with four files: the new process' stdin,
stdout and stderr, and a pipe that gets its process id in a line when it runs and its exit code in another when it has
ended, negative for a signal. When the other end is closed this process kills those that still run, and ends. It has
one thread, as forking demands.

The fork server of `multiprocessing` is for functions of a program: it imports the program's main module again, has no
streams for each process, and ends one without exit handlers and without dying of a signal, which tests of commands see.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["Order"]

_FILES = 4
"""That come with an order."""
_ORDER_BYTES_MAX = 1 << 20
LOADED = ("quicbus_cli.main", "quicbus_cli.streams", "quicbus_broker.cli", "quicbus.transport._aioquic")
LOADED_WHERE_INSTALLED = {"qh3": "quicbus.transport._qh3", "uvloop": "uvloop"}


class Order(NamedTuple):
    """What a new process runs: a module and its arguments. As JSON it is a list."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    cwd: str
    own_session: bool


class _Forking:
    """Forks for orders, and tells how those processes end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._told: dict[int, int] = {}
        """By process id: the pipe that gets its exit code."""
        self._woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waking)

    def next_order(self) -> Order | None:
        """Return, in a new process, the order that it is to carry out, and in this one `None` at the end of orders."""
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control.fileno() in ready:
                encoded, files, _, _ = socket.recv_fds(self._control, _ORDER_BYTES_MAX, _FILES)
                if not encoded:
                    self._end()
                    return None
                *streams, told = files
                if (pid := os.fork()) == 0:
                    os.close(told)
                    self._become_new(streams)
                    return Order(*json.loads(encoded))
                for file in streams:
                    os.close(file)
                self._told[pid] = told
                _tell(told, pid)

    def _end(self) -> None:
        for pid in self._told:
            os.kill(pid, signal.SIGKILL)
        self._reap(0)

    def _reap(self, options: int = os.WNOHANG) -> None:
        while self._told:
            pid, status = os.waitpid(-1, options)
            if not pid:
                return
            told = self._told.pop(pid)
            _tell(told, os.waitstatus_to_exitcode(status))
            os.close(told)

    def _become_new(self, streams: list[int]) -> None:
        """Leave behind what belongs to the old process alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, file in enumerate(streams):
            os.dup2(file, number)
        self._control.close()
        for file in (*streams, self._woken, self._waking, *self._told.values()):
            os.close(file)


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # Who ordered it is no longer interested.
        os.write(pipe, b"%d\n" % number)


def _carry_out(order: Order) -> None:
    if order.own_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.cwd)
    if not sys.flags.safe_path:
        sys.path[0] = order.cwd
    sys.argv[1:] = order.arguments
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _main() -> None:
    for module in (*LOADED, *(module for library, module in LOADED_WHERE_INSTALLED.items() if find_spec(library))):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    order = _Forking(socket.socket(fileno=int(sys.argv[1]))).next_order()
    if order is not None:
        _carry_out(order)


if __name__ == "__main__":
    _main()
