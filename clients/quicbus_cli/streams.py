"""stdin and stdout of commands that stream, without ever holding up the event loop.

Reads and writes block in daemon threads and go to the file descriptors themselves, so that a process can end while
one of them is stuck.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["read_all", "read_lines", "write_all"]

T = TypeVar("T")
_CHUNK_SIZE = 256 * 1024


async def read_lines(descriptor: int = 0) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a file or pipe as they come, many at a time, without their line ends."""
    rest = b""
    while data := await _in_thread(os.read, descriptor, _CHUNK_SIZE):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


async def read_all(descriptor: int = 0) -> bytes:
    """Return all that a file or pipe gives."""
    parts = []
    while data := await _in_thread(os.read, descriptor, _CHUNK_SIZE):
        parts.append(data)
    return b"".join(parts)


async def write_all(data: bytes, descriptor: int = 1) -> None:
    """Write all of `data`; raises `BrokenPipeError` when nobody reads any more."""
    if data:
        await _in_thread(_write, descriptor, data)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # a result whenever there is no error

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function(*arguments)
        except OSError as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop ended meanwhile

    threading.Thread(target=work, name=f"quicbus-{function.__name__}", daemon=True).start()
    return await done
