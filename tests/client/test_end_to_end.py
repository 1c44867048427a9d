"""The client with a broker in the same process, over real UDP on loopback, with both engines and mixed."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.identity import Authority
from quicbus_broker.routing import Router
from tests.client.brokers import ENGINES, broker_in_process

if TYPE_CHECKING:
    from pathlib import Path

both_engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.mark.parametrize("client_engine", ENGINES)
@pytest.mark.parametrize("broker_engine", ENGINES)
async def test_what_is_published_arrives_in_order(tmp_path: Path, broker_engine: str, client_engine: str) -> None:
    async with (
        broker_in_process(tmp_path, broker_engine) as broker,
        quicbus.connect(broker.url, credentials=tmp_path / "credential.pem", engine=client_engine) as bus,
        bus.subscribe("sensors/+/temperature") as messages,
    ):
        for number in range(5000):
            await bus.publish("sensors/kitchen/temperature", b"%d" % number)
        await bus.publish("sensors/kitchen/temperature", "last", headers={"unit": "C"}, reply_to="r")
        received = [await messages.next(10) for _ in range(5001)]
        assert [message.payload for message in received[:5000]] == [b"%d" % number for number in range(5000)]
        last = received[-1]
        assert (last.payload, last.headers, last.reply_to) == (b"last", {"unit": "C"}, "r")
        assert last.publisher == bus.name
        await bus.flush()
        statistics = bus.statistics()
        assert (statistics.accepted, statistics.in_flight, messages.dropped) == (5001, 0, 0)


async def test_a_broker_that_is_stopped_while_messages_wait_is_freed(tmp_path: Path) -> None:
    """What waits is unknown to the collector: a subscription that ends has to let go of it."""
    gc.collect()
    before = _routers()
    credential = tmp_path / "credential.pem"
    async with (
        broker_in_process(tmp_path, "aioquic", drain_timeout_s=0.1) as broker,
        quicbus.connect(broker.url, credentials=credential, engine="aioquic") as bus,
        bus.subscribe("a/#", max_pending=10),
    ):
        for number in range(100):
            await bus.publish(f"a/{number}", b"x")
        await bus.flush()
        assert [each.books().queued for each in gc.get_objects() if isinstance(each, Router)].count(5) == 1
        await broker.stop()
    del broker
    gc.collect()
    assert _routers() <= before


@both_engines
async def test_requests_handlers_and_groups(tmp_path: Path, engine: str) -> None:
    async with (
        broker_in_process(tmp_path, engine) as broker,
        quicbus.connect(broker.url, credentials=tmp_path / "credential.pem", engine=engine) as bus,
    ):
        with pytest.raises(quicbus.NoResponders):
            await bus.request("upper", b"x", timeout=30)

        @bus.on("upper", concurrency=4, group="workers")
        async def upper(message: quicbus.Message) -> None:
            if message.payload == b"bad":
                raise ValueError("bad")
            await message.reply(message.payload.upper())

        await bus.wait_handlers()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bus.request("upper", b"r%d" % number)) for number in range(20)]
        assert [task.result().payload for task in tasks] == [b"R%d" % number for number in range(20)]
        with pytest.raises(quicbus.RequestTimeout):
            await bus.request("upper", b"bad", timeout=0.2)
        assert await bus.ping(5) > 0


@both_engines
async def test_block_holds_the_publisher_and_loses_nothing(tmp_path: Path, engine: str) -> None:
    payload = bytes(2000)
    async with (
        broker_in_process(tmp_path, engine) as broker,
        quicbus.connect(broker.url, credentials=tmp_path / "credential.pem", engine=engine) as publisher,
        quicbus.connect(broker.url, credentials=tmp_path / "credential.pem", engine=engine) as subscriber,
        subscriber.subscribe("a", overflow="block", max_pending=100) as messages,
    ):
        publishing = asyncio.create_task(_publish(publisher, "a", payload, 8000))
        received = [await messages.next(20) for _ in range(8000)]
        await publishing
        assert len(received) == 8000
        assert messages.dropped == 0


@both_engines
async def test_a_slow_subscriber_with_drop_oldest_gets_the_newest_and_counts_the_rest(
    tmp_path: Path, engine: str
) -> None:
    async with (
        broker_in_process(tmp_path, engine) as broker,
        quicbus.connect(broker.url, credentials=tmp_path / "credential.pem", engine=engine) as bus,
        bus.subscribe("a", max_pending=10) as messages,
    ):
        for number in range(1000):
            await bus.publish("a", b"%d" % number)
        await bus.flush()
        received: list[bytes] = []
        while received[-1:] != [b"999"]:
            received.append((await messages.next(10)).payload)
        assert len(received) + messages.dropped == 1000
        assert messages.statistics().dropped == {"overflow": messages.dropped}


@both_engines
async def test_a_large_message_passes_and_a_larger_one_is_refused_by_name(tmp_path: Path, engine: str) -> None:
    async with (
        broker_in_process(tmp_path, engine, max_message_size=2_000_000) as broker,
        quicbus.connect(broker.url, credentials=tmp_path / "credential.pem", engine=engine) as bus,
        bus.subscribe("a") as messages,
    ):
        assert bus.max_message_size == 2_000_000
        await bus.publish("a", bytes(2_000_000))
        assert len((await messages.next(20)).payload) == 2_000_000
        with pytest.raises(quicbus.MessageTooLarge):
            await bus.publish("a", bytes(2_000_001))


@both_engines
async def test_a_credential_of_another_mesh_gets_nowhere_and_says_so(tmp_path: Path, engine: str) -> None:
    stranger = Authority.create().issue_client("stranger")
    async with broker_in_process(tmp_path, engine) as broker:
        with pytest.raises(quicbus.QuicbusError, match="quicbus cert issue --client"):
            await quicbus.connect(broker.url, credentials=stranger, engine=engine)


async def test_without_a_credential_the_error_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICBUS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("QUICBUS_CREDENTIALS", raising=False)
    with pytest.raises(quicbus.CredentialError, match="quicbus cert issue --client"):
        await quicbus.connect("quic://127.0.0.1:1")
    monkeypatch.setenv("QUICBUS_CREDENTIALS", str(tmp_path / "none.pem"))
    with pytest.raises(quicbus.CredentialError, match=r"none\.pem"):
        await quicbus.connect("quic://127.0.0.1:1")


@both_engines
async def test_nobody_there_is_told_with_the_url_and_its_cause(tmp_path: Path, engine: str) -> None:
    credential = Authority.create().issue_client("alice")
    with pytest.raises(quicbus.ConnectFailed) as caught:
        await quicbus.connect("quic://127.0.0.1:9", credentials=credential, engine=engine, connect_timeout_s=0.5)
    ((url, cause),) = caught.value.attempts
    assert url == "quic://127.0.0.1:9"
    assert cause


@both_engines
async def test_a_broker_that_stops_gracefully_and_starts_again_loses_nothing(tmp_path: Path, engine: str) -> None:
    credential = tmp_path / "credential.pem"
    async with broker_in_process(tmp_path, engine) as broker:
        bus = await quicbus.connect(broker.url, credentials=credential, engine=engine)
        address = f"127.0.0.1:{broker.address[1]}"
        messages = await bus.subscribe("a")
        await bus.publish("a", b"1")
    await bus.publish("a", b"2")
    async with broker_in_process(tmp_path, engine, listen=address):
        await messages.next(20)
        await bus.flush(30)
        statistics = bus.statistics()
        assert (statistics.accepted, statistics.possibly_lost, statistics.reconnects) == (2, 0, 1)
        await bus.close()


async def _publish(bus: quicbus.Client, topic: str, payload: bytes, count: int) -> None:
    for _ in range(count):
        await bus.publish(topic, payload)
    await bus.flush()


def _routers() -> set[int]:
    return {id(each) for each in gc.get_objects() if isinstance(each, Router)}
