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
    from collections.abc import Callable, Coroutine, Iterator

__all__ = ["Interrupted", "ended_by_signals", "loop_factory", "run", "run_until_signal", "told_by_hangup"]

T = TypeVar("T")
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """`run` was ended by SIGINT or SIGTERM; `signal` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


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


def run_until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
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


async def _told_by_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    stop = asyncio.Event()
    with _signals(lambda number: stop.set()):
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
