"""Real brokers for end-to-end tests: in this process, and as processes of their own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from quicbus_broker import Broker, BrokerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENGINES = ["aioquic", "qh3"]


@contextlib.asynccontextmanager
async def broker_in_process(folder: Path, engine: str, **settings: Any) -> AsyncIterator[Broker]:
    """A broker on a free port of 127.0.0.1, with its data in `folder`."""
    settings = {"listen": "127.0.0.1:0", **settings}
    async with Broker(BrokerSettings(data_dir=folder, engine=engine, **settings)) as broker:  # type: ignore[arg-type]
        yield broker
