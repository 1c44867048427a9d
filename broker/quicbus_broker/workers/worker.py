"""One worker: a broker on its seat. It prints nothing; what people are to know it tells its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from quicbus.exceptions import QuicbusError
from quicbus.logs import logger_for, set_node
from quicbus.process import loop_factory, told_by_hangup
from quicbus_broker.banner import facts_of, plain
from quicbus_broker.broker import Broker
from quicbus_broker.collecting import collecting_in_quiet_moments

if TYPE_CHECKING:
    from quicbus_broker.settings import BrokerSettings
    from quicbus_broker.workers.child import Channel
    from quicbus_broker.workers.seat import Seat

__all__ = ["run_worker"]

PATIENCE_S = 5.0
"""Siblings that start together find each other in a fraction of it; without them a worker serves alone."""
POLL_S = 0.02


def run_worker(settings: BrokerSettings, seat: Seat, channel: Channel) -> int:
    """Serve until SIGTERM, or until the supervisor is gone; raises what ends a broker."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, seat, channel))
    return 0


async def _serve(settings: BrokerSettings, seat: Seat, channel: Channel) -> None:
    loop, stop, hangup = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)  # any number of times: systemd tells all processes

    def supervisor_gone() -> None:
        loop.remove_reader(channel.fileno())
        logger_for("quicbus_broker").warning("= the supervisor is gone: worker %d stops", seat.number)
        stop.set()

    loop.add_reader(channel.fileno(), supervisor_gone)  # it tells nothing while it lives
    with told_by_hangup(hangup.set):
        node = Broker(settings, seat)
        async with node, collecting_in_quiet_moments():
            set_node(node.node_id.hex())
            await _find_siblings(node, seat, stop)
            channel.tell("ready", **facts_of(node))
            reloading = asyncio.create_task(_reload_at(hangup, node), name="reload-at-hangup")
            try:
                await stop.wait()
            finally:
                reloading.cancel()
                loop.remove_reader(channel.fileno())
    channel.tell("stopped", node=node.node_id.hex(), name=node.name, statistics=plain(node.statistics()))


async def _find_siblings(node: Broker, seat: Seat, stop: asyncio.Event) -> None:
    """Wait until all are members that live: who connects after that finds one mesh."""
    wanted = {sibling.hex() for sibling, _ in seat.siblings}
    with contextlib.suppress(TimeoutError, QuicbusError):
        async with asyncio.timeout(PATIENCE_S):
            while not stop.is_set():
                if wanted <= {peer.node for peer in await node.bus.peers() if peer.state == "alive"}:
                    break
                await asyncio.sleep(POLL_S)


async def _reload_at(hangup: asyncio.Event, node: Broker) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        with contextlib.suppress(QuicbusError):  # it stands in the log
            await node.reload()
