"""Mosquitto with TLS, through paho-mqtt and through aiomqtt; QoS 0, with no bound on its queues."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.peers.certificates import write_certificates
from benchmarks.peers.programs import find_program, output_of, wait_port, why_missing
from benchmarks.peers.seam import Bus, Peer, Server, Take, Where, free_port
from quicbus.testing.launcher import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["AiomqttBus", "PahoBus", "mosquitto_peers"]

_UNSENT_SIZE = 4 * 1024 * 1024
"""paho queues without a bound; after so many bytes a publisher waits until they are sent."""


def mosquitto_peers() -> list[Peer]:
    return [
        _peer("Mosquitto/TLS, paho", "PahoBus", "paho-mqtt", "paho"),
        _peer("Mosquitto/TLS, aiomqtt", "AiomqttBus", "aiomqtt", "aiomqtt"),
    ]


def _peer(name: str, bus: str, package: str, module: str) -> Peer:
    missing, versions = why_missing({package: module}, "mosquitto"), {}
    if not missing:
        versions = {"mosquitto": output_of("mosquitto", "-h").split()[2], package: version(package)}
    return Peer(name=name, start=functools.partial(_start, bus), missing=missing, versions=versions)


@contextlib.contextmanager
def _start(bus: str, folder: Path) -> Iterator[list[Server]]:
    program = find_program("mosquitto")
    assert program is not None
    files = write_certificates(folder)
    port = free_port()
    # Its default drops QoS 0 messages of a subscriber that is 1,000 behind; a socket without delay as all others have.
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        f"cafile {files.authority}\ncertfile {files.certificate}\nkeyfile {files.key}\n"
        "max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\n"
    )
    begin = time.monotonic()
    with Launched([program, "-c", str(folder / "mosquitto.conf")], own_session=True) as process:
        wait_port(process, port)
        where = Where(
            bus=f"benchmarks.peers.mosquitto_peer:{bus}",
            url="127.0.0.1",
            port=port,
            authority=str(files.authority),
        )
        yield [Server(where, process, time.monotonic() - begin)]


class PahoBus(Bus):
    """With paho's own thread."""

    async def open(self) -> None:
        from paho.mqtt import client  # an extra: only the processes that use it need it

        self._client: Any = client.Client(client.CallbackAPIVersion.VERSION2, protocol=client.MQTTv5)
        self._client.tls_set(self.where.authority)
        self._unsent = 0
        loop = asyncio.get_running_loop()
        connected: asyncio.Future[None] = loop.create_future()
        self._client.on_connect = lambda *_: loop.call_soon_threadsafe(_settle, connected)
        self._client.connect_async(self.where.url, self.where.port)
        self._client.loop_start()
        self.put = self._put
        await asyncio.wait_for(connected, 60)

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _put(self, topic: str, payload: bytes) -> None:
        sent = self._client.publish(topic, payload)
        self._unsent += len(payload) + 64
        if self._unsent > _UNSENT_SIZE:
            self._unsent = 0
            sent.wait_for_publish(60)

    async def publish(self, topic: str, payload: bytes) -> None:
        self._put(topic, payload)

    async def subscribe(self, topic: str, take: Take) -> None:
        loop = asyncio.get_running_loop()
        subscribed: asyncio.Future[None] = loop.create_future()
        self._client.on_subscribe = lambda *_: loop.call_soon_threadsafe(_settle, subscribed)
        self._client.message_callback_add(topic, lambda _client, _data, message: take(message.payload))
        self._client.subscribe(topic)
        await asyncio.wait_for(subscribed, 60)


class AiomqttBus(Bus):
    """Publishing is awaited one by one, as its users do."""

    async def open(self) -> None:
        import aiomqtt  # an extra: only the processes that use it need it

        self._client: Any = aiomqtt.Client(
            self.where.url,
            self.where.port,
            protocol=aiomqtt.ProtocolVersion.V5,
            tls_params=aiomqtt.TLSParameters(ca_certs=self.where.authority),
            timeout=60,
        )
        self._takers: dict[str, Take] = {}
        self._rest: Take | None = None
        await self._client.__aenter__()
        self.publish = self._client.publish  # type: ignore[method-assign]  # the same, without a call more

    async def close(self) -> None:
        await self.end_tasks()
        await self._client.__aexit__(None, None, None)

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload)

    async def subscribe(self, topic: str, take: Take) -> None:
        if not self._takers and self._rest is None:
            self.start(self._read())
        if self.any_level in topic:
            self._rest = take
        else:
            self._takers[topic] = take
        await self._client.subscribe(topic)

    async def _read(self) -> None:
        takers = self._takers
        async for message in self._client.messages:
            take = takers.get(message.topic.value) or self._rest
            if take is not None:
                take(message.payload)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
