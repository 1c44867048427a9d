"""Reading settings again while a broker runs: all that may be reloaded, or nothing where anything in it is wrong.

Asked for by `Broker.reload`, which SIGHUP and `quicbus reload` (files in the data folder) lead to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quicbus.exceptions import QuicbusError
from quicbus_broker.reload_files import Answer, answer, requests_in

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Reloadable", "Reloading"]

POLL_S = 0.25
"""How often the data folder is looked at for requests: 30 us each time."""

Reloadable = Callable[[], Callable[[], str]]
"""Reads and checks, in a thread, and changes nothing; raises `QuicbusError`. What it returns puts in force what was
read and says so in a line; that is called in the event loop and does not fail."""


class Reloading:
    """Of one broker. `parts` are read in their order, and applied in it once all of them could be read.

    `go_on` does a little more of what follows from that, and tells whether there is more to do.
    """

    def __init__(
        self,
        parts: Sequence[Reloadable],
        log: logging.LoggerAdapter[Any] | logging.Logger,
        go_on: Callable[[], bool] = lambda: False,
    ) -> None:
        self._parts = tuple(parts)
        self._log = log
        self._go_on = go_on
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Read and apply everything for the first time. Raises what the parts raise; reads files."""
        for apply in [read() for read in self._parts]:
            apply()

    async def reload(self) -> tuple[str, ...]:
        """Read everything again, and return a line for each part.

        Raises `QuicbusError`, which is logged too: then nothing has changed. Two at a time wait for each other.
        """
        async with self._lock:
            try:
                changes = await asyncio.to_thread(lambda: [read() for read in self._parts])
            except QuicbusError as error:
                self._log.error("= not reloaded, everything stays as it was: %s", error)
                raise
            lines = tuple(apply() for apply in changes)
            while self._go_on():  # noqa: ASYNC110 (it gives the loop a turn)
                await asyncio.sleep(0)
            self._log.info("= reloaded: %s", "; ".join(lines))
            return lines

    async def serve(self, folder: Path) -> None:
        """Answer the requests that are left in a folder, until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            requests = requests_in(folder)
            if requests:
                result = await self._result()
                await asyncio.to_thread(answer, folder, requests, result)

    async def _result(self) -> Answer:
        try:
            return Answer(lines=await self.reload())
        except QuicbusError as error:
            return Answer(error=str(error))
