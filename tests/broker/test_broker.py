"""A whole broker, dialed over UDP by real clients, on both engines."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.identity import Authority
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.join_frames import AUTHORITY_TOPIC, decode_answer
from quicbus_broker import Broker, BrokerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from quicbus_broker import RoutingBooks

ENGINES = pytest.mark.parametrize("engine", ["aioquic", "qh3"])
DEADLINE_S = 120.0


def settings(tmp_path: Path, **changes: object) -> BrokerSettings:
    return BrokerSettings(**{"listen": "127.0.0.1:0", "data_dir": tmp_path / "data", "name": "tokyo", **changes})  # type: ignore[arg-type]  # checked by BrokerSettings


@contextlib.asynccontextmanager
async def broker_and_clients(
    tmp_path: Path, engine: str, count: int, **changes: object
) -> AsyncIterator[tuple[Broker, list[quicbus.Client]]]:
    async with (
        asyncio.timeout(DEADLINE_S),
        Broker(settings(tmp_path, engine=engine, **changes)) as broker,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(
                quicbus.connect(broker.url, credentials=broker.credential_path, engine=engine)
            )
            for _ in range(count)
        ]
        yield broker, clients


def balanced(broker: Broker) -> RoutingBooks:
    books = broker.statistics().books
    assert books.balance == 0, books
    return books


@ENGINES
async def test_messages_arrive_with_headers_and_the_verified_name(tmp_path: Path, engine: str) -> None:
    async with broker_and_clients(tmp_path, engine, 2) as (broker, (publisher, subscriber)):
        async with subscriber.subscribe("sensors/+/temperature") as messages:
            await publisher.publish("sensors/kitchen/temperature", b"21.5", headers={"unit": "C"})
            message = await messages.next(DEADLINE_S)

        assert (message.topic, message.payload, message.headers) == (
            "sensors/kitchen/temperature",
            b"21.5",
            {"unit": "C"},
        )
        assert message.publisher == publisher.name
        assert balanced(broker).deliveries == 1


@ENGINES
async def test_a_blocking_subscriber_loses_nothing_of_a_fast_publisher(tmp_path: Path, engine: str) -> None:
    total = 20_000
    async with broker_and_clients(tmp_path, engine, 2) as (broker, (publisher, subscriber)):
        async with subscriber.subscribe("t", overflow="block", max_pending=100) as messages:

            async def publish() -> None:
                for number in range(total):
                    await publisher.publish("t", b"%d" % number)
                await publisher.flush()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(publish())
                received = [int((await messages.next(DEADLINE_S)).payload) for _ in range(total)]

        assert received == list(range(total))
        books = balanced(broker)
        assert (books.handed_over, books.dropped, books.unmatched) == (total, {}, 0)


@ENGINES
async def test_a_subscriber_that_reads_nothing_costs_the_others_nothing(tmp_path: Path, engine: str) -> None:
    total = 10_000
    async with broker_and_clients(tmp_path, engine, 3) as (broker, (publisher, fast, slow)):
        async with slow.subscribe("#", max_pending=10), fast.subscribe("t", overflow="block") as messages:
            for number in range(total):
                await publisher.publish("t", b"%d" % number)
            await publisher.flush()
            received = [int((await messages.next(DEADLINE_S)).payload) for _ in range(total)]

        assert received == list(range(total))
        books = balanced(broker)
        assert books.deliveries == 2 * total
        assert sum(books.dropped.values()) >= total - 10


@ENGINES
async def test_a_group_shares_messages_and_each_goes_to_one_member(tmp_path: Path, engine: str) -> None:
    total = 3_000
    async with broker_and_clients(tmp_path, engine, 3) as (broker, (publisher, *workers)):
        received: list[list[int]] = [[] for _ in workers]
        done = asyncio.Event()

        async def work(bus: quicbus.Client, mine: list[int], ready: asyncio.Event) -> None:
            async with bus.subscribe("jobs", group="workers", overflow="block") as jobs:
                ready.set()
                async for job in jobs:
                    mine.append(int(job.payload))
                    if sum(map(len, received)) == total:
                        done.set()

        async with asyncio.TaskGroup() as tasks:
            running = []
            for bus, mine in zip(workers, received, strict=True):
                ready = asyncio.Event()
                running.append(tasks.create_task(work(bus, mine, ready)))
                await ready.wait()
            for number in range(total):
                await publisher.publish("jobs", b"%d" % number)
            await done.wait()
            for task in running:
                task.cancel()

        assert sorted(received[0] + received[1]) == list(range(total))
        assert min(map(len, received)) > total // 10
        assert balanced(broker).deliveries == total


@ENGINES
async def test_requests_are_answered_or_told_that_nobody_is_there(tmp_path: Path, engine: str) -> None:
    async with broker_and_clients(tmp_path, engine, 2) as (_, (asker, answerer)):

        @answerer.on("double")
        async def double(message: quicbus.Message) -> None:
            await message.reply(message.payload * 2)

        await answerer.wait_handlers()
        replies = await asyncio.gather(*(asker.request("double", b"%d" % number) for number in range(20)))

        assert [reply.payload for reply in replies] == [b"%d" % number * 2 for number in range(20)]
        with pytest.raises(quicbus.NoResponders):
            await asker.request("nobody", b"?")


@ENGINES
async def test_a_stop_delivers_what_is_queued_first(tmp_path: Path, engine: str) -> None:
    total = 5_000
    received: list[int] = []
    async with broker_and_clients(tmp_path, engine, 2) as (broker, (publisher, subscriber)):
        async with subscriber.subscribe("t", max_pending=total) as messages:
            for number in range(total):
                await publisher.publish("t", b"%d" % number)
            await publisher.flush()
            stopping = asyncio.create_task(broker.stop())
            while len(received) < total:
                received.append(int((await messages.next(DEADLINE_S)).payload))
            await stopping

        assert received == list(range(total))
        assert broker.is_closed
        await broker.wait_closed()
        await broker.stop()


@ENGINES
async def test_a_credential_of_another_mesh_is_refused_with_the_remedy(tmp_path: Path, engine: str) -> None:
    stranger = tmp_path / "stranger.pem"
    Authority.create().issue_client("mallory").save(stranger)
    async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path, engine=engine)) as broker:
        with pytest.raises(quicbus.QuicbusError):
            await quicbus.connect(broker.url, credentials=stranger, engine=engine, connect_timeout_s=5.0)


async def test_the_bus_of_the_broker_speaks_with_clients_outside(tmp_path: Path) -> None:
    async with broker_and_clients(tmp_path, "auto", 1) as (broker, (outside,)):
        async with broker.bus.subscribe("in") as inbox, outside.subscribe("out") as outbox:
            await outside.publish("in", b"1")
            await broker.bus.publish("out", b"2")
            first, second = await inbox.next(DEADLINE_S), await outbox.next(DEADLINE_S)

        assert (first.payload, second.payload) == (b"1", b"2")
        assert second.publisher == "tokyo"


async def test_what_the_bus_published_last_is_delivered_before_the_end(tmp_path: Path) -> None:
    async with broker_and_clients(tmp_path, "auto", 1) as (broker, (outside,)), outside.subscribe("t") as messages:
        await broker.bus.publish("t", b"last words")
        await broker.stop()
        assert (await messages.next(DEADLINE_S)).payload == b"last words"


async def test_more_connections_than_allowed_are_refused_by_name(tmp_path: Path) -> None:
    async with broker_and_clients(tmp_path, "auto", 2, max_connections=2) as (broker, _):
        with pytest.raises(quicbus.ConnectFailed, match="max_connections: 2 of 2"):
            await quicbus.connect(broker.url, credentials=broker.credential_path, connect_timeout_s=1.0)
        assert broker.statistics().edge.refused["too_many_connections"] >= 1


async def test_statistics_name_every_limit_and_count_those_that_were_met(tmp_path: Path) -> None:
    async with broker_and_clients(tmp_path, "auto", 1, max_filter_size=3) as (broker, (client,)):
        with pytest.raises(quicbus.LimitExceeded, match="max_filter_size: 7 is over the limit of 3"):
            await client.subscribe("abc/def")
        statistics = broker.statistics()
        counted = {**statistics.transport.limits, **statistics.edge.limits, **statistics.joining.limits}
        settings = {field.name for field in dataclasses.fields(BrokerSettings)}
        assert set(counted) - settings == {"retry_auto", "max_joiners", "max_joiners_per_address"}
        assert {name for name in settings if name.startswith("max_")} - set(counted) == {
            "max_datagram_size",
            "max_hops",
        }
        assert not any(counted.values())


async def test_what_the_node_itself_asks_and_answers_is_held_to_no_limit_of_clients(tmp_path: Path) -> None:
    tight = settings(
        tmp_path,
        max_subscriptions=1,
        max_filter_size=1,
        max_filters_size=1,
        max_pending=1,
        max_pending_size=1,
        max_publish_rate=1,
        max_publish_bytes=1,
    )
    async with asyncio.timeout(DEADLINE_S), Broker(tight) as broker:
        for _ in range(3):
            answer = await broker.bus.request(AUTHORITY_TOPIC, bytes(200), timeout=DEADLINE_S)
            assert decode_answer(answer.payload).code == CloseCode.PROTOCOL_VIOLATION
        assert not any(broker.statistics().edge.limits.values())


async def test_a_message_beyond_what_the_broker_announced_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with broker_and_clients(tmp_path, "auto", 1, max_message_size=1000) as (_, (client,)):
        with pytest.raises(quicbus.MessageTooLarge, match="1001 bytes"):
            await client.publish("t", bytes(1001))


async def test_a_data_folder_serves_one_broker_at_a_time(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path)):
        with pytest.raises(quicbus.DataFolderError, match="in use"):
            async with Broker(settings(tmp_path)):
                pass


async def test_a_port_that_is_taken_is_an_error_and_frees_the_data_folder(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path)) as broker:
        taken = f"127.0.0.1:{broker.address[1]}"
        with pytest.raises(OSError, match="in use"):
            async with Broker(settings(tmp_path, data_dir=tmp_path / "other", listen=taken)):
                pass
    async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path, data_dir=tmp_path / "other")):
        pass


async def test_a_restart_keeps_the_node_and_counts_its_boots(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path)) as broker:
            edge = broker._opened_edge
            seen.append((broker.node_id, broker.mesh, edge.exchange.boot))

    assert seen[0][:2] == seen[1][:2]
    assert seen[0][2] < seen[1][2]


async def test_ipv6_and_all_addresses_can_be_listened_on(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path, listen="[::]:0")) as broker:
        port = broker.address[1]
        assert broker.url == f"quic://localhost:{port}"
        for host in ("127.0.0.1", "[::1]"):
            async with quicbus.connect(f"quic://{host}:{port}", credentials=broker.credential_path) as bus:
                assert await bus.ping() > 0


async def test_an_exception_in_the_body_ends_the_broker_at_once(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(DEADLINE_S), Broker(settings(tmp_path)) as broker:
            raise ZeroDivisionError
    assert broker.is_closed


async def test_a_failure_inside_ends_the_body_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(settings(tmp_path))

    async def run() -> None:
        async with broker:
            monkeypatch.setattr(broker._opened_edge, "tick", lambda: 1 / 0)
            await asyncio.Event().wait()

    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ExceptionGroup) as caught:
            await run()
    assert caught.group_contains(ZeroDivisionError)
    assert broker.is_closed


async def test_a_cancelled_broker_closes_at_once(tmp_path: Path) -> None:
    broker = Broker(settings(tmp_path))
    is_open = asyncio.Event()

    async def run() -> None:
        async with broker:
            is_open.set()
            await broker.wait_closed()

    task = asyncio.create_task(run())
    async with asyncio.timeout(DEADLINE_S):
        await is_open.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert broker.is_closed


async def test_a_broker_is_entered_once(tmp_path: Path) -> None:
    broker = Broker(settings(tmp_path))
    with pytest.raises(quicbus.InvalidSetting):
        _ = broker.url
    async with asyncio.timeout(DEADLINE_S), broker:
        pass
    with pytest.raises(quicbus.InvalidSetting):
        async with broker:
            pass


async def test_its_own_client_is_logged_as_what_it_is_and_not_by_a_port_that_nobody_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with Broker(settings(tmp_path)):
        pass
    connected = [record for record in caplog.records if "client tokyo is connected" in record.getMessage()]
    assert [record.__dict__["peer"].partition(":")[0] for record in connected] == ["in-process"]
