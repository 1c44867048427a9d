"""The broker: joins identity, transport, edge and routing, and owns their tasks.

```python
async with Broker(BrokerSettings(listen="[::]:4433")) as broker:
    print(broker.url)
    await broker.wait_closed()
```
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from quicbus.exceptions import CredentialRefused, DataFolderError, InvalidSetting, QuicbusError
from quicbus.logs import logger_for
from quicbus.transport.endpoint import Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import PROTOCOL_VERSION
from quicbus.wire.join_frames import JOIN_ALPN
from quicbus_broker.broker_mesh import BrokerMesh
from quicbus_broker.edge import Edge, EdgeStatistics, Exchange, Turns
from quicbus_broker.enrolment import ByProtocol, Enrolment, JoinStatistics, enter_mesh
from quicbus_broker.freed_memory import FreedMemory, give_back
from quicbus_broker.in_process import InProcessListener
from quicbus_broker.lan import check_extra
from quicbus_broker.listening import Listening
from quicbus_broker.live_trust import LiveTrust
from quicbus_broker.node import NodeIdentity
from quicbus_broker.permissions.source import PermissionsSource
from quicbus_broker.reloading import Reloading
from quicbus_broker.routing import Router, RoutingBooks
from quicbus_broker.settings import BrokerSettings, parse_listen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from quicbus.client import Client
    from quicbus.feeds import Feed
    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.sibling_sockets import HandoverStatistics
    from quicbus.transport.statistics import EndpointStatistics
    from quicbus_broker.events import BrokerEvent
    from quicbus_broker.mesh.views import MeshStatistics
    from quicbus_broker.workers.seat import Seat

__all__ = ["Broker", "BrokerStatistics"]

ALPN = f"quicbus/{PROTOCOL_VERSION}"
TICK_S = 0.1
"""How late an expiry or a time-out may be noticed."""
DRAIN_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class BrokerStatistics:
    """Counters since the broker opened."""

    books: RoutingBooks
    edge: EdgeStatistics
    mesh: MeshStatistics
    transport: EndpointStatistics
    joining: JoinStatistics
    cert_expires_in_seconds: float
    """Of the node's certificate, negative once it has ended."""
    trust_version: int = 0
    """Of the trust list that counts here, 0 where there is none: the same at all brokers that reach each other."""
    revoked: int = 0
    """Keys that are revoked in it."""
    handover: HandoverStatistics | None = None
    """Of one of several workers: what it exchanged with the others."""


class Broker:
    """A node. Use it in `async with`, once; the values below exist from then on.

    Entering raises `DataFolderError`, `CredentialError`, `InvalidSetting`, and where it cannot listen `OSError` with
    the address as its `filename`.
    Leaving stops it gracefully: it takes no new connections, delivers what is queued for up to `drain_timeout_s`, and
    closes. Leaving by an exception or cancellation closes at once. Where another process is started with the same key
    this one stops and `DataFolderError` comes out of the `async with`; where its own key is revoked,
    `CredentialRefused`.
    """

    def __init__(self, settings: BrokerSettings | None = None, seat: Seat | None = None) -> None:
        """`seat`: the broker is one of several workers, see `workers/`."""
        self.settings = settings or BrokerSettings()
        self._seat = seat
        self._identity: NodeIdentity | None = None
        self._edge: Edge | None = None
        self._listening: Listening | None = None
        self._listener: Listener | None = None
        self._mesh: BrokerMesh | None = None
        self._bus: Client | None = None
        self._enrolment: Enrolment | None = None
        self.entered = ""
        """How this start became a node of its mesh, where the settings name a join token."""
        self._reloading: Reloading | None = None
        self._trust: LiveTrust | None = None
        self._ended_by: QuicbusError | None = None
        """Another process with this node's key was started later, or the key is revoked: this one must stop."""
        self._must_end = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._housekeeping: list[asyncio.Task[None]] = []
        self._resources = contextlib.AsyncExitStack()
        self._closed = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._log = logger_for("quicbus_broker")

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> bytes:
        return self._opened_identity.credential.node_id

    @property
    def name(self) -> str:
        """This node's name, as its certificate has it."""
        return self._opened_identity.credential.name

    @property
    def mesh(self) -> str:
        """The id of the mesh, 32 hex digits."""
        return self._opened_identity.credential.mesh

    @property
    def engine(self) -> str:
        """The QUIC implementation in use."""
        return self._opened_listening.public.engine.name

    @property
    def data_dir(self) -> Path:
        return self._opened_identity.data_dir

    @property
    def credential_path(self) -> Path | None:
        """What local applications connect with; `None` where the settings name certificate files."""
        return self._opened_identity.credential_path

    @property
    def address(self) -> Address:
        """IP address and UDP port that it listens on."""
        return self._opened_listening.public.address

    @property
    def advertised(self) -> tuple[str, ...]:
        """Where it says that other nodes and clients reach it, `HOST:PORT`, best first; none in mode `client`."""
        return self._opened_mesh.addresses

    @property
    def url(self) -> str:
        """What an application on this machine connects to."""
        host = parse_listen(self.settings.listen)[0]
        if host in ("::", "0.0.0.0", "*"):  # noqa: S104 (compared, not bound)
            host = "localhost"
        return f"quic://[{host}]:{self.address[1]}" if ":" in host else f"quic://{host}:{self.address[1]}"

    @property
    def bus(self) -> Client:
        """A client inside this process: no network, no credential. It is closed with the broker."""
        if self._bus is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._bus

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def statistics(self) -> BrokerStatistics:
        """Return the counters as they are. Costs a step per subscription and per member of the mesh."""
        edge, trust = self._opened_edge, self._opened_identity.trust
        return BrokerStatistics(
            books=edge.exchange.router.books(),
            edge=edge.statistics(),
            mesh=self._opened_mesh.statistics(),
            transport=self._opened_listening.statistics(),
            joining=self._opened_enrolment.desk.statistics(),
            cert_expires_in_seconds=self._opened_enrolment.expires_in_s,
            trust_version=trust.version,
            revoked=len(trust.revoked),
            handover=self._opened_listening.handover(),
        )

    def events(self) -> Feed[BrokerEvent]:
        """Return an async iterator over `MemberJoined`, `MemberFailed`, `LinkUp`, … from now on; the broker ends it.

        Who does not read in time misses the oldest ones; `missed` counts them. `quicbus_broker.events` has them all.
        """
        return self._opened_mesh.sight.events()

    # --- its life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._identity is not None or self.is_closed:
            raise InvalidSetting("broker", "a Broker can be entered once; make another one")
        await self._resources.__aenter__()
        try:
            await self._open()
            await self._tasks.__aenter__()
        except BaseException:
            self._closed.set()
            await self._resources.aclose()
            raise
        self._housekeeping = [
            self._tasks.create_task(self._keep_time(), name="broker-housekeeping"),
            self._tasks.create_task(self._opened_enrolment.run(), name="broker-certificate"),
            self._tasks.create_task(self._opened_mesh.run(), name="broker-mesh"),
            self._tasks.create_task(self._opened_trust.run(), name="broker-trust"),
            self._tasks.create_task(self._stop_when_it_must(), name="broker-end"),
            self._tasks.create_task(self._serve_reloads(), name="broker-reload"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.stop()
        finally:
            for task in self._housekeeping:
                task.cancel()
            try:
                # What the body raised goes on as it is, not in a group; a group tells what failed in here.
                of_tasks = kind is not None and issubclass(kind, asyncio.CancelledError)
                await self._tasks.__aexit__(*((kind, error, traceback) if of_tasks else (None, None, None)))
            except BaseExceptionGroup:
                if self._ended_by is not None:
                    raise self._ended_by from None
                raise
            finally:
                await self._resources.aclose()
                self._closed.set()
        if self._ended_by is not None and kind is None:
            raise self._ended_by

    async def stop(self) -> None:
        """Stop gracefully: no new connections, deliver what is queued, close. May be called twice, and by any task.

        Takes at most `drain_timeout_s` and a second. Cancelled, it closes what it had not drained.
        """
        if self.is_closed:
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="broker-stop")
        await asyncio.shield(self._stopping)

    async def reload(self) -> tuple[str, ...]:
        """Read the permissions again; returns a line for each thing that was reloaded.

        All or nothing: raises `InvalidSetting`, with file and line, and then nothing has changed. Connections stay;
        subscriptions that are no longer permitted end with `NotPermitted`. Reads files, in a thread.
        """
        if self._reloading is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return await self._reloading.reload()

    async def wait_closed(self) -> None:
        """Wait until it has stopped."""
        await self._closed.wait()

    async def _open(self) -> None:
        if self.settings.workers > 1:
            why = "an embedded broker is one process; leave it out, or start `quicbus broker --workers N`"
            raise InvalidSetting("workers", why)
        engine = engine_named(self.settings.engine)
        self.settings, self.entered = await enter_mesh(self.settings, engine)
        settings = self.settings
        if settings.discover:
            check_extra()
        identity = self._identity = NodeIdentity(settings)
        self._resources.callback(identity.close)
        self._log = logger_for("quicbus_broker", node=identity.credential.node_id.hex())
        router = Router(block_timeout_s=settings.block_timeout_s)
        loop = asyncio.get_running_loop()
        exchange = Exchange(router, origin=identity.credential.node_id, boot=identity.boot, clock=loop.time)
        edge = self._edge = Edge(exchange, settings.edge_limits, turns=Turns(loop.call_soon))
        permissions = PermissionsSource(settings, edge.permit, None if self._seat is None else self._seat.home)
        self._reloading = Reloading((permissions.read,), self._log, edge.permit_more)
        self._reloading.load()
        admission = edge.admission(identity.verifier())
        # Round trips are fractions of a millisecond; the clock of uvloop has milliseconds only.
        mesh = self._mesh = BrokerMesh(settings, identity, edge, time.monotonic, self._supersede, self._revoke)
        mesh.siblings = () if self._seat is None else self._seat.siblings
        admission.nodes, admission.node_verifier = mesh.driver, identity.node_verifier()
        trust = self._trust = LiveTrust(identity, edge, mesh, self._renew_listener)
        mesh.on_trust_learned = trust.learned
        enrolment = self._enrolment = Enrolment(
            settings,
            identity,
            engine,
            bus=lambda: self.bus,
            brokers=lambda: edge.brokers.urls,
            adopt=trust.adopt,
            report=mesh.sight.report,
        )
        await enrolment.revive()
        makers: Mapping[str, Callable[[Connection], ConnectionHandler]] = {
            ALPN: lambda connection: edge.make_session(connection, admission),
            JOIN_ALPN: enrolment.desk.make_session,
        }
        self._listener = Listener(self._configuration(identity), lambda connection: ByProtocol(connection, makers))
        self._listening = await Listening.open(settings, engine, self._listener, self._seat)
        self._resources.push_async_callback(self._listening.close, "the broker has stopped")
        self._resources.push_async_callback(enrolment.close)
        self._resources.callback(mesh.close)
        mesh.start(self._listening.own)
        await self._open_bus(edge, identity)
        self._log.info("= listening on %s with %s", self.url, engine.name)
        for doubt in settings.doubts:
            self._log.warning("= %s", doubt)

    async def _open_bus(self, edge: Edge, identity: NodeIdentity) -> None:
        name = identity.credential.name
        admission = edge.admission(None, local_name=name, edge_limits=edge.limits.for_own_process)
        listener = await InProcessListener.open(edge, admission, ALPN)
        self._resources.push_async_callback(listener.close)
        self._bus = await listener.connect(name)
        self._resources.push_async_callback(self._bus.close, 0.0)

    async def _stop(self) -> None:
        edge, listening = self._opened_edge, self._opened_listening
        self._log.info("= stopping")
        try:
            listening.stop_accepting()
            await self.bus.close(self.settings.drain_timeout_s)
            edge.go_away("the broker is stopping", self.settings.drain_timeout_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.drain_timeout_s):
                    await self._drained()
            await self._opened_mesh.leave(in_silence=self._ended_by is not None)
            edge.close()
            await self._opened_trust.keep()
        finally:
            await listening.close("the broker has stopped")
            self._closed.set()
            self._log.info("= stopped")

    async def _drained(self) -> None:
        edge = self._opened_edge
        while True:
            if edge.close_drained():
                return
            await asyncio.sleep(DRAIN_TICK_S)

    async def _keep_time(self) -> None:
        edge, mesh = self._opened_edge, self._opened_mesh
        memory = FreedMemory()
        while True:
            await asyncio.sleep(TICK_S)
            edge.tick()
            mesh.tick()
            if memory.is_worth_it(edge.sessions, len(edge.exchange.router), time.monotonic()):
                await give_back()

    def _supersede(self, why: str) -> None:
        self._end_by(DataFolderError(str(self.data_dir), why), why)

    def _revoke(self) -> None:
        why = self._opened_identity.revoked()
        self._end_by(CredentialRefused(CloseCode.CREDENTIAL_REVOKED, why), why)

    def _end_by(self, error: QuicbusError, why: str) -> None:
        if self._ended_by is None:
            self._ended_by = error
            self._log.error("= %s", why)
            self._must_end.set()

    async def _stop_when_it_must(self) -> None:
        await self._must_end.wait()
        await self.stop()
        if self._ended_by is not None:
            raise self._ended_by

    async def _serve_reloads(self) -> None:
        # Without a data folder of its own it would answer for another broker.
        if self._reloading is not None and self.credential_path is not None:
            await self._reloading.serve(self.data_dir)

    # --- its parts --------------------------------------------------------------------------------------------------

    def _renew_listener(self) -> None:
        """Show new connections the certificate that there is now."""
        if self._listener is not None:
            self._listener.configuration = self._configuration(self._opened_identity)

    def _configuration(self, identity: NodeIdentity) -> EngineConfiguration:
        return EngineConfiguration(
            is_client=False,
            alpn=ALPN,
            further_alpns=(JOIN_ALPN,),
            certificate_chain=identity.credential.chain_pem,
            private_key=identity.credential.private_key_pem,
        )

    @property
    def _opened_identity(self) -> NodeIdentity:
        if self._identity is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._identity

    @property
    def _opened_enrolment(self) -> Enrolment:
        if self._enrolment is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._enrolment

    @property
    def _opened_listening(self) -> Listening:
        if self._listening is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._listening

    @property
    def _opened_trust(self) -> LiveTrust:
        if self._trust is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._trust

    @property
    def _opened_mesh(self) -> BrokerMesh:
        if self._mesh is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._mesh

    @property
    def _opened_edge(self) -> Edge:
        if self._edge is None:
            raise InvalidSetting("broker", "not open; use it in `async with`")
        return self._edge
