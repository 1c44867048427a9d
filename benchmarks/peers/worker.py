"""A worker: one process with one or many clients of a peer. `python -m benchmarks.peers.worker '{"role": …}'`.

It connects, prints `ready`, and does what it is told, line by line. Times are of `time.monotonic_ns`, which all
processes of a machine share. Each role is the same code for every peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.peers import roles
from benchmarks.peers.plan import Plan, report
from benchmarks.peers.seam import Bus, open_bus
from quicbus.process import run
from quicbus_cli.streams import read_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_OPENING = 4
"""Clients of a worker that connect at a time: a fleet of a thousand does not start within one second either."""


async def main(plan: Plan) -> None:
    buses: list[Bus] = []
    if plan.role != "open":
        for begin in range(0, plan.connections, _OPENING):
            count = min(_OPENING, plan.connections - begin)
            buses += await asyncio.gather(*(open_bus(plan.where) for _ in range(count)))
    role = roles.make(plan, buses)
    await role.begin()
    report("ready")
    async for command in _commands():
        name = command.pop("do")
        await getattr(role, f"do_{name}")(**command)
        if name == "close":
            break


async def _commands() -> AsyncIterator[dict[str, Any]]:
    async for lines in read_lines():
        for line in lines:
            yield json.loads(line)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run(main(msgspec.json.decode(sys.argv[1], type=Plan)))
