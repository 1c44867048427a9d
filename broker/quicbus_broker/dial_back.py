"""Whether a node is reached where it was seen, so that it may say so to others.

It is dialed from a socket of its own: towards the one that it dialed itself a NAT lets everything through. What answers
must be that node, as its certificate shows; then the connection is closed again, without a session.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from quicbus.transport.connection import shown_address
from quicbus.transport.endpoint import Endpoint, EndpointSettings
from quicbus.transport.engine import EngineConfiguration
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import ALPN

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.identity import Credential
    from quicbus.transport.connection import Address
    from quicbus.transport.engine import Engine, Terminated
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["DialBacks", "reaches"]

TIMEOUT_S = 5.0
MAX_DIAL_BACKS = 8
"""At a time; more are left out, the node asks again with its next connection."""


class DialBacks:
    """The dials under way, as tasks; `close` ends them."""

    def __init__(self, engine: Engine, credential: Callable[[], Credential]) -> None:
        self._engine = engine
        self._credential = credential
        self._tasks: dict[tuple[NodeId, Address], asyncio.Task[None]] = {}
        self._log = logging.getLogger("quicbus_broker.mesh")

    def begin(self, node: NodeId, address: Address, reached: Callable[[str], None]) -> bool:
        """Dial `node` at `address`, and call `reached` with `HOST:PORT` if it answers there.

        False where that is under way already, or there are too many.
        """
        key = (node, address)
        if key in self._tasks or len(self._tasks) >= MAX_DIAL_BACKS:
            return False
        task = asyncio.create_task(self._dial(node, address, reached), name="broker-dial-back")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    async def close(self) -> None:
        """End what is under way. May be called twice."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _dial(self, node: NodeId, address: Address, reached: Callable[[str], None]) -> None:
        shown = shown_address(address)
        if await reaches(address, node, credential=self._credential(), engine=self._engine):
            self._log.debug("< node %s is reached where it was seen, at %s", node.hex(), shown)
            reached(shown)
        else:
            self._log.debug("< node %s is not reached where it was seen, at %s", node.hex(), shown)


async def reaches(address: Address, node: NodeId, *, credential: Credential, engine: Engine) -> bool:
    """Return whether `node` answers at `address` from a port that it has never heard of. Takes at most `TIMEOUT_S`."""
    configuration = EngineConfiguration(
        is_client=True, alpn=ALPN, authority=credential.authority_pem, server_name=credential.server_name
    )
    settings = EndpointSettings(handshake_timeout_s=TIMEOUT_S)
    try:
        async with await Endpoint.open(bind=None, engine=engine, settings=settings) as endpoint:
            probe = _Probe()
            connection = endpoint.dial(address, configuration, lambda _: probe)
            async with asyncio.timeout(TIMEOUT_S):
                await probe.over.wait()
            # Not before the turn is over in which TLS was done: the listener would not hear of the end.
            connection.close(CloseCode.GOODBYE, "")
            return probe.is_connected and connection.listener_node == node
    except (OSError, TimeoutError):
        return False


class _Probe:
    """A `ConnectionHandler` that says nothing and waits until TLS has shown who is there."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.is_connected = False

    def negotiated(self) -> None: ...

    def connected(self, channel_binding: bytes) -> None:
        self.is_connected = True
        self.over.set()

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None:
        self.over.set()
