"""Parts of a measurement as processes of their own, each with an event loop and a pipe to who measures."""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import TYPE_CHECKING, Any

from quicbus.process import loop_factory

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from multiprocessing.connection import Connection

__all__ = ["run", "start"]


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main)


def start(target: Any, *arguments: Any) -> tuple[multiprocessing.Process, Connection]:
    """Call `target` in a process of its own, with the arguments and its end of a pipe; returns ours."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, there), daemon=True)
    process.start()
    there.close()
    return process, here  # type: ignore[return-value]
