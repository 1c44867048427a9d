"""A driver's turns and timer, what ends it, and how it leaves."""

from __future__ import annotations

import asyncio
import math

import pytest

from quicbus import limits
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping, Pong
from quicbus.wire.node_frames import Prune
from quicbus_broker.mesh import driver as driver_module
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    CloseConnection,
    ConnectionClosed,
    Dial,
    FrameArrived,
    SendBundle,
    SendFrame,
    UseConnection,
)
from tests.broker.mesh.driven import Network, perform, settled, started
from tests.broker.mesh.linked import direct
from tests.waiting import eventually


async def test_the_machine_is_ticked_when_its_time_has_come(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        when = oslo.mesh.timer = asyncio.get_running_loop().time() + 0.01
        perform(oslo)
        await eventually(lambda: oslo.mesh.ticks)

        assert oslo.mesh.ticks[0] >= when
        assert len(oslo.mesh.ticks) == 1


async def test_an_earlier_time_moves_the_timer(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        now = asyncio.get_running_loop().time()
        for oslo.mesh.timer in (now + 3600, now + 0.01):
            perform(oslo)
        await eventually(lambda: oslo.mesh.ticks)


async def test_a_mistake_of_ours_ends_the_driver_with_its_reason(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.mesh.tick = lambda now: 1 / 0  # type: ignore[assignment,return-value]
        oslo.mesh.timer = 0.0
        perform(oslo)

        with pytest.raises(ZeroDivisionError):
            await oslo.driver.run()
        oslo.mesh.timer = math.inf


async def test_leaving_closes_once_all_has_arrived(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        oslo.mesh.at_end_of_turn = [SendBundle(tokyo.mesh.me, direct(7)), SendFrame(tokyo.mesh.me, Prune())]
        leaving = asyncio.create_task(oslo.driver.leave())
        await settled()
        assert not leaving.done()
        assert tokyo.mesh.of(FrameArrived) == [FrameArrived(1, Prune()), FrameArrived(1, Ping(id=2**63 - 1))]
        assert [event.bundle.number for event in tokyo.mesh.of(BundleArrived)] == [7]

        perform(tokyo, SendFrame(oslo.mesh.me, Pong(id=2**63 - 1)))
        await leaving
        await settled()

        assert tokyo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "the node has left", True)]
        assert oslo.mesh.leaves == 1
        await oslo.driver.leave()
        assert oslo.mesh.leaves == 1


async def test_leaving_does_not_wait_for_those_that_close_by_themselves(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        leaving = asyncio.create_task(oslo.driver.leave())
        await settled()

        perform(tokyo, CloseConnection(1, CloseCode.GOODBYE, "you have left"))
        await leaving


async def test_leaving_does_not_wait_for_ever(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "LEAVE_TIMEOUT_S", 0.01)
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        await oslo.driver.leave()
        await settled()

        assert tokyo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "the node has left", True)]
        perform(oslo, Dial("tokyo:1", None))


async def test_the_window_of_a_link_is_what_limits_say(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        network.pipes[0].silent = True
        for sequence in range(1, 17):
            perform(oslo, SendBundle(tokyo.mesh.me, direct(sequence, bytes(1 << 20)), True))
        (link,) = oslo.driver.links
        link.before_transmit()

        assert link.outbox.under_way == limits.LINK_WINDOW
        network.pipes[0].silent = False
        network._pump_soon()
        await settled()
        assert len(tokyo.mesh.of(BundleArrived)) == 16


async def test_a_connection_that_was_replaced_is_closed_once_what_was_sent_on_it_is_taken(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        perform(oslo, Dial("tokyo:1", None))
        await settled()
        first, second = oslo.driver.links
        perform(oslo, UseConnection(tokyo.mesh.me, second.number))
        first.outbox.sent += 1

        perform(oslo, CloseConnection(first.number, CloseCode.REPLACED, "another one is used"))
        await settled()
        assert not oslo.mesh.of(ConnectionClosed)

        first.outbox.taken(first.outbox.sent)
        await eventually(lambda: oslo.mesh.of(ConnectionClosed))
        assert oslo.mesh.of(ConnectionClosed) == [ConnectionClosed(first.number, "another one is used", True)]
