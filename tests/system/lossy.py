"""A broker and its clients on a lossy network in memory, with any engine: real sessions, real TLS, faults at will."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from quicbus.client import Client
from quicbus.client.urls import BrokerUrl
from quicbus.identity import Authority, Verifier, sign_proof
from quicbus.transport.endpoint import Endpoint, EndpointSettings, Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.transport.memory_network import MemoryNetwork
from quicbus.wire.frames import ALPN
from quicbus_broker.edge import Edge, EdgeLimits, Exchange
from quicbus_broker.routing import Router
from tests.system.buses import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus.client.session_ports import Prove, SessionTrust
    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.memory_network import Link
    from quicbus_broker import RoutingBooks

__all__ = ["ENGINES", "LossyBus", "lossy_bus"]

ENGINES = ["aioquic", "qh3", "memory"]
BROKER = ("127.0.0.1", 4433)
SETTINGS = EndpointSettings(max_datagram_size=1200)


class _Dialer:
    """A `quicbus.client.dialing.Dialer` through an endpoint on the memory network."""

    def __init__(self, endpoint: Endpoint, configuration: EngineConfiguration, prove: Prove | None) -> None:
        self._endpoint = endpoint
        self._configuration = configuration
        self._prove = prove

    @property
    def prove(self) -> Prove | None:
        return self._prove

    @property
    def trust(self) -> SessionTrust | None:
        return None

    async def resolve(self, url: BrokerUrl) -> list[Address]:
        return [(url.host, url.port)]

    async def dial(self, address: Address, make_handler: Callable[[Connection], ConnectionHandler]) -> Connection:
        return self._endpoint.dial(address, self._configuration, make_handler)

    async def close(self) -> None:
        await self._endpoint.close()


class LossyBus:
    """Made by `lossy_bus`."""

    def __init__(self, engine: str, network: MemoryNetwork, edge: Edge, authority: Authority) -> None:
        self.network = network
        self._engine = engine
        self._edge = edge
        self._authority = authority

    @property
    def books(self) -> RoutingBooks:
        return self._edge.exchange.router.books()

    @contextlib.asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[tuple[Client, Address]]:
        """A connected client and its address."""
        credential = self._authority.issue_client(name)
        endpoint = await Endpoint.open(
            bind=None, engine=engine_named(self._engine), settings=SETTINGS, network=self.network
        )
        configuration = EngineConfiguration(
            is_client=True, alpn=ALPN, authority=credential.authority_pem, server_name=credential.server_name
        )
        dialer = _Dialer(
            endpoint,
            configuration,
            lambda binding: (credential.chain_der, sign_proof(credential, binding, "client")),
        )
        client = Client(dialer, [BrokerUrl(*BROKER)], name=name, rng=random.Random(name))
        await client._start()
        async with client:
            yield client, endpoint.address

    def towards_broker(self, client: Address) -> Link:
        """What a client sends, to put faults on."""
        return self.network.one_way(client, BROKER)

    def towards_client(self, client: Address) -> Link:
        return self.network.one_way(BROKER, client)


@contextlib.asynccontextmanager
async def lossy_bus(engine: str, network: MemoryNetwork | None = None) -> AsyncIterator[LossyBus]:
    """A broker's edge and routing on `network`, and `DEADLINE_S` for all that is done with it."""
    network = network or MemoryNetwork(is_near=False)
    authority = Authority.create()
    node = authority.issue_node("tokyo")
    exchange = Exchange(
        Router(block_timeout_s=30.0), origin=node.node_id, boot=1, clock=asyncio.get_running_loop().time
    )
    edge = Edge(exchange, EdgeLimits())
    admission = edge.admission(Verifier(authority.certificate_pem, authority.mesh))
    listener = Listener(
        EngineConfiguration(
            is_client=False, alpn=ALPN, certificate_chain=node.chain_pem, private_key=node.private_key_pem
        ),
        lambda connection: edge.make_session(connection, admission),
    )
    async with (
        asyncio.timeout(DEADLINE_S),
        await Endpoint.open(
            bind=BROKER, engine=engine_named(engine), settings=SETTINGS, listener=listener, network=network
        ),
    ):
        yield LossyBus(engine, network, edge, authority)
