"""The attacker, a process of its own: `python -m tests.abuse.attacker`.

It reads lines of JSON: `Orders`, upon which it prepares the attack and prints `ready`, then `go`, upon which it attacks
and prints what it made. Several attacks may follow each other.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

import msgspec

from quicbus.process import run
from quicbus_cli.bench_workers import report
from quicbus_cli.streams import read_lines
from tests.abuse.attackers import ATTACKS
from tests.abuse.world import Orders, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GO = b"go"


async def single_lines() -> AsyncIterator[bytes]:
    async for lines in read_lines():
        for line in lines:
            yield line


async def main() -> None:
    lines = single_lines()
    report(event="started")

    async def go() -> None:
        report(event="ready")
        assert await anext(lines) == GO

    async for line in lines:
        orders = msgspec.json.decode(line, type=Orders)
        world = World(orders, go)
        if not orders.is_small:
            give_way()
        try:
            await ATTACKS[orders.attack].run(world)
        except Exception:
            report(event="failed", error=traceback.format_exc())
            raise
        report(event="made", attack=orders.attack, made=dict(world.made))


def give_way() -> None:
    """Take the processor only where broker and pair leave it: it stands for one with a machine of its own.

    Where nothing but what becomes of it is looked at, beside other tests, it would only come late.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


if __name__ == "__main__":
    run(main())
