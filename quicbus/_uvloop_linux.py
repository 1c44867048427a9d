"""uvloop that goes on watching a socket after an error on it.

libuv ends its watch at the first POLLERR (`uv__poll_io`: uv__io_stop). A UDP socket with IP_RECVERR reports each ICMP
error so: after one client has crashed, a broker would never read again. Behind an epoll descriptor of its own the
socket's error shows as readiness to read, as it does with asyncio's own loop.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Protocol

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Loop"]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Loop(uvloop.Loop):
    """uvloop with `add_reader` and `add_writer` by way of epoll."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: dict[tuple[int, int], select.epoll] = {}

    # The stubs of asyncio and uvloop contradict each other: no signature fits both.
    def add_reader(  # type: ignore[override]
        self, fd: int | HasFileno, callback: Callable[..., Any], *args: Any
    ) -> None:
        super().add_reader(self._watch(fd, select.EPOLLIN), callback, *args)

    def remove_reader(self, fd: int | HasFileno) -> bool:  # type: ignore[override]
        return self._unwatch(fd, select.EPOLLIN)

    def add_writer(  # type: ignore[override]
        self, fd: int | HasFileno, callback: Callable[..., Any], *args: Any
    ) -> None:
        super().add_reader(self._watch(fd, select.EPOLLOUT), callback, *args)

    def remove_writer(self, fd: int | HasFileno) -> bool:  # type: ignore[override]
        return self._unwatch(fd, select.EPOLLOUT)

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        super().close()

    def _watch(self, fd: int | HasFileno, events: int) -> int:
        number = fd if isinstance(fd, int) else fd.fileno()
        watch = self._watches.get((number, events))
        if watch is None:
            watch = self._watches[number, events] = select.epoll()
            watch.register(number, events)
        return watch.fileno()

    def _unwatch(self, fd: int | HasFileno, events: int) -> bool:
        watch = self._watches.pop((fd if isinstance(fd, int) else fd.fileno(), events), None)
        if watch is None:
            return False
        super().remove_reader(watch.fileno())
        watch.close()
        return True
