"""`quicbus broker` that answers every line on stdin with its statistics: `python -m tests.abuse.observed_broker`.

It is the command itself, options and all; only the class of its broker is another.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Self

import quicbus_broker.cli
from quicbus_broker import Broker
from quicbus_broker.banner import plain
from quicbus_cli.entry import main
from quicbus_cli.streams import read_lines

__all__ = ["ObservedBroker"]


class ObservedBroker(Broker):
    """A broker that tells its statistics, one JSON line for each line it reads."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._telling = asyncio.create_task(self._tell(), name="statistics")
        return self

    async def _tell(self) -> None:
        async for lines in read_lines():
            for line in lines:
                statistics = {"event": "statistics", "asked": line.decode(), "statistics": plain(self.statistics())}
                sys.stdout.write(json.dumps(statistics) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    quicbus_broker.cli.Broker = ObservedBroker  # type: ignore[attr-defined]
    sys.exit(main())
