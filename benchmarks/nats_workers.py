"""The publisher and the subscriber of a measurement over NATS with TLS, by the same rules as those over quicbus.

`python -m benchmarks.nats_workers publish|subscribe '{"url": …}'`; see `quicbus_cli.bench_workers`.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

import msgspec

from quicbus.process import run
from quicbus_cli import bench_workers
from quicbus_cli.streams import read_lines

__all__ = ["NatsPlan"]


class NatsPlan(bench_workers.Plan, frozen=True, kw_only=True):
    """`credentials` is the authority's certificate; `server_name` what the server's certificate is for."""

    server_name: str
    callback: bool = True
    """Take messages by callback, nats-py's fast path; otherwise by `async for`, which costs it two thirds."""

    async def connected(self) -> Any:
        import nats  # an extra: only this process needs it

        context = ssl.create_default_context(cafile=self.credentials)
        return await nats.connect(self.url, tls=context, tls_hostname=self.server_name)

    def topic(self, number: int) -> str:
        return f"bench.{self.run}.load.{number}"

    @property
    def latency_topic(self) -> str:
        return f"bench.{self.run}.latency"


async def publish(plan: NatsPlan) -> None:
    commands = read_lines()
    connection = await plan.connected()
    bench_workers.report(event="ready")
    await anext(commands)
    await bench_workers.publish_load(connection.publish, connection.flush, plan)
    await anext(commands)
    await bench_workers.publish_paced(connection.publish, connection.flush, plan)
    await connection.close()


async def subscribe(plan: NatsPlan) -> None:
    connection = await plan.connected()
    subject = f"bench.{plan.run}.load.*"
    tally = bench_workers.Tally(plan.messages)
    complete = asyncio.Event()

    async def on_message(_: Any) -> None:
        tally.take()
        if tally.is_complete:
            complete.set()

    # Without limits nats-py drops nothing here; by default it keeps 524,288 messages.
    options = {"pending_msgs_limit": 0, "pending_bytes_limit": 0, **({"cb": on_message} if plan.callback else {})}
    load = await connection.subscribe(subject, **options)
    paced = await connection.subscribe(plan.latency_topic)
    await connection.flush()
    bench_workers.report(event="ready")
    if plan.callback:
        await bench_workers.follow(tally, asyncio.create_task(complete.wait()), plan)
    else:
        await bench_workers.count_load(load.messages, plan)

    async def next_payload() -> bytes:
        message = await paced.next_msg(timeout=bench_workers.STALL_S)
        return bytes(message.data)

    await bench_workers.measure_paced(next_payload, plan)
    await connection.close()


if __name__ == "__main__":
    role = {"publish": publish, "subscribe": subscribe}[sys.argv[1]]
    run(role(msgspec.json.decode(sys.argv[2], type=NatsPlan)))
