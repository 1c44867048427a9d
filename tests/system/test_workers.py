"""`quicbus broker --workers 2`: two processes on one port, as people meet them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import quicbus
from quicbus.identity.folder_lock import FolderLock
from quicbus.testing.launcher import BrokerProcess, run_quicbus
from tests.system.buses import DEADLINE_S, connected, stopped
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes on one port need Linux")

CLIENTS = 40


@pytest.fixture
def broker(engine: str) -> Iterator[BrokerProcess]:
    with BrokerProcess(engine=engine, options=["--workers", "2", "--log-level", "warning"]) as process:
        yield process


def workers_at_end(stdout: str) -> list[dict[str, Any]]:
    last = json.loads(stdout.splitlines()[-1])
    assert last["event"] == "stopped"
    workers: list[dict[str, Any]] = last["workers"]
    return workers


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Nat(asyncio.DatagramProtocol):
    """Between one client and a broker; `move` gives the client another port, as the broker sees it."""

    def __init__(self, broker: tuple[str, int]) -> None:
        self._broker = broker
        self._client: tuple[str, int] | None = None
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, broker: BrokerProcess) -> AsyncIterator[Nat]:
        host, port = broker.address.split(":")
        nat = cls((host, int(port)))
        loop = asyncio.get_running_loop()
        nat._inside, _ = await loop.create_datagram_endpoint(lambda: nat, local_addr=("127.0.0.1", 0))
        await nat.move()
        try:
            yield nat
        finally:
            nat._inside.close()
            assert nat._outside is not None
            nat._outside.close()

    @property
    def url(self) -> str:
        assert self._inside is not None
        return f"quic://127.0.0.1:{self._inside.get_extra_info('sockname')[1]}"

    async def move(self) -> None:
        old, loop = self._outside, asyncio.get_running_loop()
        self._outside, _ = await loop.create_datagram_endpoint(
            lambda: _Outside(self), local_addr=("127.0.0.1", 0), remote_addr=self._broker
        )
        if old is not None:
            old.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._client = addr
        assert self._outside is not None
        self._outside.sendto(data)

    def came_back(self, data: bytes) -> None:
        if self._inside is not None and self._client is not None:
            self._inside.sendto(data, self._client)


class _Outside(asyncio.DatagramProtocol):
    def __init__(self, nat: Nat) -> None:
        self._nat = nat

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._nat.came_back(data)


async def test_forty_clients_land_on_both_workers_and_all_messages_flow_among_them(broker: BrokerProcess) -> None:
    async with connected(broker, CLIENTS) as clients, contextlib.AsyncExitStack() as stack:
        subscriptions = [await stack.enter_async_context(client.subscribe("all/+")) for client in clients]
        for subscription in subscriptions:
            await subscription.wait_spread()
        for number, client in enumerate(clients):
            await client.publish(f"all/{number}", str(number))
        for subscription in subscriptions:
            got = [await subscription.next(DEADLINE_S) for _ in range(CLIENTS)]
            assert Counter(int(message.payload) for message in got) == Counter(range(CLIENTS))
        peers = await clients[0].peers()
        assert {peer.node for peer in peers} == {worker["node"] for worker in broker.ready["workers"]}
        assert [peer.state for peer in peers] == ["alive", "alive"]
        assert len({peer.url for peer in peers}) == 2
    ended = await stopped(broker)
    assert (ended.code, ended.stderr) == (0, "")
    workers = workers_at_end(ended.stdout)
    accepted = [worker["statistics"]["edge"]["accepted"] for worker in workers]
    assert sum(accepted) == CLIENTS + 2  # and the one inside each
    assert min(accepted) > 1
    assert [worker["statistics"]["transport"]["handler_errors"] for worker in workers] == [0, 0]
    assert not any(is_alive(worker["pid"]) for worker in broker.ready["workers"])


async def test_request_finds_the_one_who_answers_at_the_other_worker(broker: BrokerProcess) -> None:
    async with connected(broker, 8) as clients:

        @clients[0].on("ask")
        async def answer(message: quicbus.Message) -> None:
            await message.reply(message.payload + b"!")

        for client in clients:
            await eventually_answered(client)
        assert [(await client.request("ask", b"x", timeout=DEADLINE_S)).payload for client in clients] == [b"x!"] * 8


async def eventually_answered(client: quicbus.Client) -> None:
    """Wait until the worker of this client has heard of the one who answers."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(quicbus.NoResponders):
                await client.request("ask", b"", timeout=DEADLINE_S)
                return


async def test_client_whose_address_changes_goes_on_also_where_it_arrives_at_another_worker(
    broker: BrokerProcess,
) -> None:
    async with asyncio.timeout(DEADLINE_S), Nat.before(broker) as nat, connected(broker, 1) as others:
        connecting = quicbus.connect(nat.url, credentials=broker.credential_path, engine=broker.engine)
        async with connecting as bus, bus.subscribe("there") as there, others[0].subscribe("back") as back:
            await there.wait_spread()
            await back.wait_spread()
            for move in range(16):
                await bus.publish("back", str(move))
                assert (await back.next(DEADLINE_S)).payload == str(move).encode()
                await others[0].publish("there", str(move))
                assert (await there.next(DEADLINE_S)).payload == str(move).encode()
                await nat.move()
            assert bus.statistics().reconnects == 0
    workers = workers_at_end((await stopped(broker)).stdout)
    handovers = [worker["statistics"]["handover"] for worker in workers]
    # One port of sixteen leads to each of two workers but once in 65,536.
    assert sum(each["handed_over"] for each in handovers) > 0
    assert sum(each["handed_over"] for each in handovers) == sum(each["taken_over"] for each in handovers)
    assert [each["dropped"] for each in handovers] == [0, 0]


async def answered(client: quicbus.Client) -> None:
    """Ping until a broker answers: a connection that is lost meanwhile is made anew."""
    while True:
        with contextlib.suppress(quicbus.ConnectionLost):
            await client.ping(DEADLINE_S)
            return


async def test_killed_worker_is_started_again_and_its_clients_come_back(broker: BrokerProcess) -> None:
    async with connected(broker, 12) as clients:
        victim = broker.ready["workers"][1]
        os.kill(victim["pid"], signal.SIGKILL)
        await asyncio.to_thread(broker.wait_line, "worker 2 was killed by SIGKILL", stream="stderr")
        await asyncio.to_thread(broker.wait_line, "worker 2 is ready again", stream="stderr")
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*map(answered, clients))
            peers = await clients[0].peers()
            assert {peer.node for peer in peers} == {worker["node"] for worker in broker.ready["workers"]}
            async with clients[0].subscribe("again/#") as messages:
                await messages.wait_spread()
                for number, client in enumerate(clients):
                    await client.publish(f"again/{number}", b"")
                    await client.flush()
                got = {(await messages.next(DEADLINE_S)).topic for _ in clients}
        assert got == {f"again/{number}" for number in range(len(clients))}
        assert min(client.statistics().reconnects for client in clients) == 0
    assert (await stopped(broker)).code == 0


async def test_ctrl_c_ends_all_and_a_second_start_finds_everything_as_it_was(engine: str, tmp_path: Path) -> None:
    with BrokerProcess(data_dir=tmp_path / "data", engine=engine, options=["--workers", "2"]) as first:
        first.interrupt()
        ended = first.wait()
        assert (ended.code, ended.stderr) == (0, "")
        assert not any(is_alive(worker["pid"]) for worker in first.ready["workers"])
    with BrokerProcess(
        data_dir=tmp_path / "data", engine=engine, listen=first.address, options=["--workers", "2"]
    ) as second:
        assert second.url == first.url
        assert [each["node"] for each in second.ready["workers"]] == [each["node"] for each in first.ready["workers"]]
        port = int(second.address.rpartition(":")[2])
        assert [each["advertised"] for each in second.ready["workers"]] == [
            [f"127.0.0.1:{port + 1}"],
            [f"127.0.0.1:{port + 2}"],
        ]
        taken = run_quicbus("broker", "--listen", first.address, "--data-dir", str(tmp_path / "b"), "--workers", "2")
        assert taken.code == 1
        assert "is in use" in taken.stderr


def test_reload_reaches_all_workers(broker: BrokerProcess) -> None:
    (broker.data_dir / "quicbus.toml").write_text('[permissions]\ndefault = "deny"\n')
    reloaded = run_quicbus("reload", "--json", "--data-dir", str(broker.data_dir))
    lines = json.loads(reloaded.stdout)["lines"]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "there is no" not in lines[0]


async def test_workers_end_with_their_supervisor(broker: BrokerProcess) -> None:
    broker.kill()
    await eventually(lambda: not any(is_alive(worker["pid"]) for worker in broker.ready["workers"]))


def test_worker_that_cannot_start_ends_all_with_its_reason(engine: str, tmp_path: Path) -> None:
    command = ["broker", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path), "--workers", "2", "--engine", engine]
    with BrokerProcess(data_dir=tmp_path, engine=engine, options=["--workers", "2"]) as before:
        before.stop()
    lock = FolderLock(tmp_path / "workers" / "2" / "lock")
    ended = run_quicbus(*command)
    lock.release()
    assert ended.code == 1
    assert ended.stderr.startswith(f"quicbus: data folder {tmp_path}/workers/2: it is in use by process")
    assert ended.stdout == ""


def test_workers_join_a_mesh_with_one_token(engine: str, tmp_path: Path) -> None:
    with BrokerProcess(engine=engine) as first:
        data_dir = ("--data-dir", str(first.data_dir))
        seed = ("--seed", first.address)
        once, twice = (
            run_quicbus("token", "create", "--name", "osaka", "--uses", str(uses), *seed, *data_dir).stdout.strip()
            for uses in (1, 2)
        )
        here = ("broker", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path), "--workers", "2", "--engine", engine)
        refused = run_quicbus(*here, "--join", once)
        assert refused.code == 1
        assert "quicbus token create --uses 2" in refused.stderr
        with BrokerProcess(data_dir=tmp_path, engine=engine, options=["--workers", "2", "--join", twice]) as joined:
            peers = json.loads(run_quicbus("peers", "--json", first.url, *data_dir).stdout)
            assert {peer["node"] for peer in peers} == {
                first.node,
                *(worker["node"] for worker in joined.ready["workers"]),
            }


def test_embedded_broker_is_one_process(tmp_path: Path) -> None:
    from quicbus_broker import Broker, BrokerSettings

    async def enter() -> None:
        async with Broker(BrokerSettings(data_dir=tmp_path, workers=2)):
            pass

    with pytest.raises(quicbus.InvalidSetting, match="quicbus broker --workers N"):
        asyncio.run(enter())
