"""What every quicbus process does once: choose the event loop, turn signals into a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

__all__ = ["Interrupted", "Stop", "ended_by_signals", "loop_factory", "run", "run_until_signal", "told_by_hangup"]

T = TypeVar("T")
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """`run` was ended by SIGINT or SIGTERM; `signal` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Stop(asyncio.Event):
    """Set by the first signal that ends the process."""

    def __init__(self) -> None:
        super().__init__()
        self._signal = 0
        self._cancelled: asyncio.Task[Any] | None = None

    def tell(self, number: int) -> None:
        self._signal = number
        self.set()
        if self._cancelled is not None:
            self._cancelled.cancel()

    @contextlib.asynccontextmanager
    async def cancelling(self) -> AsyncIterator[None]:
        """Have the signal cancel what is done in here, by this task; `Interrupted` comes out then."""
        self._cancelled = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if self._signal:
                raise Interrupted(self._signal) from None
            raise
        finally:
            self._cancelled = None


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed, else `None`: asyncio's own."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in a new loop. The first SIGINT or SIGTERM cancels it and `Interrupted` is raised, the second quits.

    `main` tidies up where it is cancelled; what it returns after that is lost.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_cancelled_by_signals(main))


def run_until_signal(main: Callable[[Stop], Coroutine[Any, Any, T]]) -> T:
    """Run `main(stop)` in a new loop. The first SIGINT or SIGTERM sets `stop`, the second quits the process at once."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_told_by_signals(main))


@contextlib.contextmanager
def told_by_hangup(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in the running loop at each SIGHUP, where the system has it."""
    number = getattr(signal, "SIGHUP", None)
    if number is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Interrupted` at SIGINT or SIGTERM, for main threads without a loop: what is open gets closed."""

    def end(number: int, _frame: object) -> None:
        raise Interrupted(number)

    previous = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


async def _cancelled_by_signals(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(main)
    received: list[int] = []

    def end(number: int) -> None:
        received.append(number)
        task.cancel()

    with _signals(end):
        try:
            return await task
        except asyncio.CancelledError:
            if received:
                raise Interrupted(received[0]) from None
            raise


async def _told_by_signals(main: Callable[[Stop], Coroutine[Any, Any, T]]) -> T:
    stop = Stop()
    with _signals(stop.tell):
        return await main(stop)


@contextlib.contextmanager
def _signals(first: Callable[[int], None]) -> Iterator[None]:
    """Call `first` in the loop at the first signal that ends a process, quit at the second."""
    loop = asyncio.get_running_loop()
    seen = False

    def handle(number: int) -> None:
        nonlocal seen
        if seen:
            os._exit(128 + number)
        seen = True
        first(number)

    previous = {}
    for number in _ENDING:
        try:
            loop.add_signal_handler(number, handle, number)
        except NotImplementedError:  # the loops of Windows
            previous[number] = signal.signal(number, lambda n, _frame: _call_in(loop, handle, n))
    try:
        yield
    finally:
        for number in _ENDING:
            if number in previous:
                signal.signal(number, previous[number])
            else:
                loop.remove_signal_handler(number)


def _call_in(loop: AbstractEventLoop, handle: Callable[[int], None], number: int) -> None:
    loop.call_soon_threadsafe(handle, number)
