"""The client with brokers as processes of their own: killed, stopped, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

import quicbus
import quicbus.blocking
from quicbus.testing.launcher import BrokerProcess
from tests.client.brokers import ENGINES

if TYPE_CHECKING:
    from pathlib import Path

both_engines = pytest.mark.parametrize("engine", ENGINES)


@both_engines
async def test_after_a_killed_broker_the_client_goes_on_with_the_next_one(tmp_path: Path, engine: str) -> None:
    with BrokerProcess(data_dir=tmp_path / "data", engine=engine) as first:
        address = first.address
        bus = await quicbus.connect(first.url, credentials=first.credential_path, engine=engine, stall_timeout_s=2.0)
        events = bus.events()
        messages = await bus.subscribe("a")
        await bus.publish("a", b"before")
        await bus.flush()
        first.kill()
        first.wait()
        await bus.publish("a", b"perhaps")
    with BrokerProcess(data_dir=tmp_path / "data", listen=address, engine=engine):
        async with asyncio.timeout(40):
            async for event in events:
                if isinstance(event, quicbus.Gap):
                    break
        await bus.publish("a", b"after")
        received = [(await messages.next(20)).payload]
        while received[-1] != b"after":
            received.append((await messages.next(20)).payload)
        assert received[0] == b"before"
        with_loss = bus.statistics()
        await bus.close()
    books = bus.statistics()
    assert with_loss.reconnects == 1
    assert books.published == 3 == books.accepted + books.possibly_lost + books.dropped_while_disconnected
    assert books.in_flight == books.buffered == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
@both_engines
async def test_a_stopped_broker_is_noticed_and_taken_again_when_it_goes_on(engine: str) -> None:
    with BrokerProcess(engine=engine) as broker:
        async with quicbus.connect(
            broker.url, credentials=broker.credential_path, engine=engine, stall_timeout_s=1.0
        ) as bus:
            events = bus.events()
            messages = await bus.subscribe("a")
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(20):
                    async for event in events:
                        if isinstance(event, quicbus.Disconnected):
                            break
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            async with asyncio.timeout(40):
                async for event in events:
                    if isinstance(event, quicbus.Connected):
                        break
            await bus.publish("a", b"again")
            assert (await messages.next(20)).payload == b"again"


@both_engines
def test_the_blocking_client_does_the_same_for_threads(engine: str) -> None:
    with (
        BrokerProcess(engine=engine) as broker,
        quicbus.blocking.connect(broker.url, credentials=broker.credential_path, engine=engine) as bus,
    ):
        with bus.subscribe("a/+") as messages:
            for number in range(100):
                bus.publish("a/b", b"%d" % number, headers={"n": str(number)})
            bus.flush(10)
            received = [messages.next(10) for _ in range(100)]
            assert [message.payload for message in received] == [b"%d" % number for number in range(100)]
            assert received[7].headers == {"n": "7"}
            with pytest.raises(quicbus.WaitTimeout):
                messages.next(0.01)

        @bus.on("upper")
        def upper(message: quicbus.blocking.Message) -> None:
            message.reply(message.payload.upper())

        bus.wait_handlers()
        assert bus.request("upper", b"abc", timeout=10).payload == b"ABC"
        assert bus.ping(10) > 0
        bus.flush(10)
        assert bus.statistics().accepted == 102
    bus.close()
    with pytest.raises(quicbus.ClientClosed):
        bus.publish("a", b"")
