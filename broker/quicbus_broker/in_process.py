"""The listener for `broker.bus`: clients in this process, over a memory network, without encryption and proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.client import connect_in_process
from quicbus.transport.endpoint import Endpoint, EndpointSettings, Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.transport.memory import DATAGRAM_SIZE
from quicbus.transport.memory_network import MemoryNetwork

if TYPE_CHECKING:
    from quicbus.client import Client
    from quicbus_broker.edge import Admission, Edge

__all__ = ["InProcessListener"]

_ADDRESS = ("in-process", 4433)
"""On a network of its own: it meets no other, and the log shows it as what it is."""


class InProcessListener:
    """Made by `open`."""

    def __init__(self, network: MemoryNetwork, endpoint: Endpoint) -> None:
        self._network = network
        self._endpoint = endpoint

    @classmethod
    async def open(cls, edge: Edge, admission: Admission, alpn: str) -> InProcessListener:
        network = MemoryNetwork()
        endpoint = await Endpoint.open(
            bind=_ADDRESS,
            engine=engine_named("memory"),
            settings=EndpointSettings(retry="never", max_datagram_size=DATAGRAM_SIZE),
            listener=Listener(
                EngineConfiguration(is_client=False, alpn=alpn),
                lambda connection: edge.make_session(connection, admission),
            ),
            network=network,
        )
        return cls(network, endpoint)

    async def connect(self, name: str) -> Client:
        """Return a connected client; the caller closes it."""
        return await connect_in_process(self._network, engine_named("memory"), _ADDRESS, name=name)

    async def close(self) -> None:
        await self._endpoint.close("the broker has stopped")
