"""The UDP endpoint: one socket that dials and listens, and the turn that drives all of its connections.

In a turn everything that arrived is fed to the engines, then all events are drained into the sessions, then the
sessions write, and then each connection transmits once. Sessions may write to other connections at any point of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from quicbus.identity import mesh_of
from quicbus.transport.admission import Admission
from quicbus.transport.connection import shown_address
from quicbus.transport.counters import Counters
from quicbus.transport.datagram_socket import AsyncioNetwork
from quicbus.transport.demultiplexer import ConnectionTable, connection_id, runs
from quicbus.transport.door import Door
from quicbus.transport.endpoint_connection import EndpointConnection
from quicbus.transport.excess import Excess
from quicbus.transport.path import PathMap
from quicbus.transport.settings import EndpointSettings, Listener
from quicbus.transport.udp_socket import UdpNetwork
from quicbus.transport.wake_ups import WakeUps
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport.admission import Accept
    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.demultiplexer import Elsewhere
    from quicbus.transport.engine import Engine, EngineConfiguration, EngineConnection
    from quicbus.transport.network import DatagramSocket, Network, Path
    from quicbus.transport.statistics import EndpointStatistics

__all__ = ["Endpoint", "EndpointSettings", "Listener"]

logger = logging.getLogger("quicbus.transport")

NEAR_DATAGRAM_SIZE = 32_400 if sys.platform == "linux" else 8192
"""To this host itself: the MTU of Linux' loopback is 65,536, and two of these fill a GSO send. macOS takes no datagram
over 9,216 bytes (`net.inet.udp.maxdgram`)."""
FAR_DATAGRAM_SIZE: Final = 1200
MAX_ROUNDS: Final = 4
"""Of sessions writing to each other in one turn; what is left then has a turn of its own."""
CLOSE_TIMEOUT_S: Final = 1.0
FLOOD_CHECK_S: Final = 1.0
MAX_TURNS_BEHIND: Final = 4
"""While the socket holds more than a turn reads strangers wait for so many turns: what it holds for connections comes
first, or a flood would stand before it in the system's queue. Half of the strangers' own queue is full by then."""
TIMER_GRANULARITY_S: Final = 0.001
"""An engine whose timer stays due must not keep the loop from everything else."""


def default_network() -> Network:
    return UdpNetwork() if sys.platform == "linux" else AsyncioNetwork()


class Endpoint:
    """Made by `open`. Use it from the event loop that opened it only."""

    def __init__(
        self,
        engine: Engine,
        settings: EndpointSettings,
        listener: Listener | None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.counters = Counters()
        self.listener = listener
        self._engine = engine
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._socket: DatagramSocket | None = None
        admission = Admission(settings, engine.versions, os.urandom, now=self._loop.time())
        self._door = Door(self, settings, admission, elsewhere=elsewhere)
        self._flood_check: asyncio.Handle | None = None
        self._turns_behind = 0
        """Turns since strangers had theirs in which the socket held more than was read."""
        self._fed_at = 0.0
        """When datagrams came last: their turn has the same time, as asking the loop is dear where caches are cold."""
        self._read_before = 0
        """Datagrams that had been read when the turn before ended."""
        self._table: ConnectionTable[EndpointConnection] = ConnectionTable(elsewhere)
        self._wake_ups = WakeUps(self._loop, self._on_time)
        self._touched: dict[EndpointConnection, None] = {}
        self._excess = Excess(self._feed_now)
        self._dirty: dict[EndpointConnection, None] = {}
        self._dialing: dict[EndpointConnection, None] = {}
        self._is_in_turn = False
        self._writing: EndpointConnection | None = None
        self._turn: asyncio.Handle | None = None
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        *,
        bind: Address | None,
        engine: Engine,
        settings: EndpointSettings | None = None,
        listener: Listener | None = None,
        network: Network | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> Endpoint:
        """Bind a socket and begin. `bind=None` takes any port, for dialing. Raises `OSError`.

        `elsewhere`: other processes behind the port. Close it with `close()`; cancelling `open` leaves nothing behind.
        """
        endpoint = cls(engine, settings or EndpointSettings(), listener, elsewhere)
        endpoint._socket = await (network or default_network()).open(bind, endpoint, endpoint.counters)
        return endpoint

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- for people -------------------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """What the socket is bound to; for port 0 the port that was free."""
        return self._open_socket().address

    @property
    def engine(self) -> Engine:
        return self._engine

    def statistics(self) -> EndpointStatistics:
        return self.counters.snapshot(len(self._table), self._door.half_open)

    def connections(self) -> list[Connection]:
        """Return the connections that are not closed, oldest first."""
        return [connection for connection in self._table if not connection.is_closed]

    def dial(
        self,
        address: Address,
        configuration: EngineConfiguration,
        make_handler: Callable[[Connection], ConnectionHandler],
    ) -> Connection:
        """Begin a connection to an IP address; what becomes of it the handler is told.

        Sizes and times of `configuration` are the endpoint's. Raises `OSError` where the socket can't reach such an
        address (IPv6 from an IPv4 socket), and what the engine raises for a configuration it can't use.
        """
        socket = self._open_socket()
        now = self._loop.time()
        path = socket.path_to(address)
        own = self._own_configuration(configuration, path)
        paths = PathMap(path, is_fixed=True)
        connection = self._add(self._engine.dial(own), own, paths, is_validated=True, now=now)
        self._dialing[connection] = None
        self.counters.dialed += 1
        try:
            connection.begin(make_handler(connection), now)
        except BaseException:
            self.forget(connection)
            raise
        self._table.add(connection, *connection.connection_ids)
        self.mark_dirty(connection)
        return connection

    def stop_accepting(self) -> None:
        """Refuse new connections from now on; those that are open stay."""
        self._door.admission.is_stopping = True

    async def close(self, reason: str = "the endpoint is closing") -> None:
        """Close every connection with GOING_AWAY, send that, and release the socket. May be called twice.

        Waits for the socket to take the last datagrams, at most a second.
        """
        if self._is_closed or self._socket is None:
            return
        self._is_closed = True
        self.stop_accepting()
        for connection in self._table:
            connection.close_for(CloseCode.GOING_AWAY, reason, "local")
        self._run_turn(self._loop.time())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.wait_sent()
        except TimeoutError:
            pass
        finally:
            self._release()

    def _release(self) -> None:
        self._wake_ups.disarm()
        for handle in (self._turn, self._flood_check):
            if handle is not None:
                handle.cancel()
        self._turn = self._flood_check = None
        self._open_socket().close()
        for connection in self._table:
            connection.abandon("the endpoint is closed")
            self.forget(connection)
        self._touched.clear()
        self._dirty.clear()

    # --- DatagramReceiver -------------------------------------------------------------------------------------------

    def received(self, buffer: bytes, segment_size: int, path: Path) -> None:
        now = self._fed_at = self._loop.time()
        size = len(buffer)
        counters = self.counters
        counters.bytes_received += size
        if segment_size >= size:
            counters.datagrams_received += 1
            self._dispatch(buffer, size, connection_id(buffer), path, now)
            return
        counters.datagrams_received += -(-size // segment_size)
        for start, end, identifier in runs(buffer, segment_size):
            part = buffer if end - start == size else buffer[start:end]
            self._dispatch(part, segment_size, identifier, path, now)

    def turn_ended(self, *, is_behind: bool = False) -> None:
        self._turns_behind = self._turns_behind + 1 if is_behind or self._excess.waiting else 0
        self._excess.turn_ended()
        before, self._read_before = self._read_before, self.counters.datagrams_received
        count = self._read_before - before
        now = self._fed_at if count else self._loop.time()
        if self.listener is None and count == 1:
            self._tell_application(now)
        else:
            self._run_turn(now)

    def unreachable(self, peer: Any, reason: str) -> None:
        for connection in tuple(self._dialing):
            if connection.paths.active.peer == peer:
                connection.unreachable(f"{reason} ({shown_address(connection.peer_address)})")
                self._touch(connection)

    def _dispatch(self, buffer: bytes, segment_size: int, identifier: bytes | None, path: Path, now: float) -> None:
        connection = None if identifier is None else self._table.find(identifier)
        if connection is not None:
            if connection.is_stranger:
                self._door.defer(connection, buffer, segment_size, path)
            elif self.listener is None:
                self.feed(connection, buffer, segment_size, path, now)
            else:
                was_fed = connection in self._touched
                self._excess.arrived(connection, buffer, segment_size, path, was_fed=was_fed)
        else:
            self._door.knock(identifier, buffer, segment_size, path, now)

    # --- DoorOwner: for strangers -----------------------------------------------------------------------------------

    @property
    def make_handler(self) -> Callable[[Connection], ConnectionHandler] | None:
        return None if self.listener is None else self.listener.make_handler

    def find(self, identifier: bytes) -> EndpointConnection | None:
        return self._table.find(identifier)

    def accept(self, verdict: Accept, path: Path, now: float) -> EndpointConnection:
        """Begin the listener's side of a connection; raises what the engine raises."""
        assert self.listener is not None
        configuration = self._own_configuration(self.listener.configuration, path)
        quic = self._engine.accept(
            configuration, verdict.original_destination_connection_id, verdict.retry_source_connection_id
        )
        is_validated = verdict.retry_source_connection_id is not None
        return self._add(quic, configuration, PathMap(path, is_fixed=False), is_validated=is_validated, now=now)

    def feed(self, connection: EndpointConnection, buffer: bytes, segment_size: int, path: Path, now: float) -> None:
        self._touched[connection] = None
        try:
            connection.feed(buffer, segment_size, path, now)
        except Exception as error:
            self._give_up(connection, error)

    def _feed_now(self, connection: EndpointConnection, buffer: bytes, segment_size: int, path: Path) -> None:
        self.feed(connection, buffer, segment_size, path, self._fed_at)

    def send_to_stranger(self, path: Path, datagram: bytes) -> None:
        self._send(path, [datagram])

    # --- Owner: for connections -------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._loop.time()

    def source_towards(self, path: Path) -> str:
        return self._open_socket().source_towards(path)

    def mark_dirty(self, connection: EndpointConnection) -> None:
        if connection is self._writing:  # It sends at the end of this turn anyway.
            return
        self._dirty[connection] = None
        if self._turn is None and not self._is_in_turn:
            self._schedule_turn()

    def serve_now(self, connection: EndpointConnection) -> None:
        if self._is_in_turn or self._is_closed:
            self.mark_dirty(connection)
        else:
            self._dirty[connection] = None
            self._run_turn(self._loop.time())

    def id_issued(self, connection: EndpointConnection, connection_id: bytes) -> None:
        self._table.add(connection, connection_id)

    def id_retired(self, connection: EndpointConnection, connection_id: bytes) -> None:
        self._table.retire(connection, connection_id)

    def handshake_ended(self, connection: EndpointConnection) -> None:
        self._dialing.pop(connection, None)

    def stranger_gone(self, connection: EndpointConnection) -> None:
        self._door.proven(connection)
        self._wake_ups.cancel(connection)
        self.mark_dirty(connection)  # so that it gets another timer

    # --- the turn ---------------------------------------------------------------------------------------------------

    def _run_scheduled_turn(self) -> None:
        self._turn = None
        now = self._loop.time()
        if self._excess.waiting:
            self._fed_at = now
            self._excess.work()
            if not self._excess.waiting:
                self._turns_behind = 0  # Strangers need not wait for another datagram.
        self._run_turn(now)

    def _run_turn(self, now: float) -> None:
        if self._turn is not None and not self._excess.waiting:  # What waits has only the scheduled turn to go on.
            self._turn.cancel()
            self._turn = None
        if self._is_in_turn:
            return
        self._is_in_turn = True
        try:
            self._serve(now)
            if self._door.waiting and not 0 < self._turns_behind <= MAX_TURNS_BEHIND:
                began = self._door.work(now)
                self._serve(now)
                self._door.worked(began)
                self._turns_behind = min(self._turns_behind, 1)
                self._watch_flood()
        finally:
            self._is_in_turn = False
        if not self._is_closed:
            self._wake_ups.arm()
        if self._dirty or self._touched or self._excess.waiting or (self._door.waiting and not self._turns_behind):
            self._schedule_turn()

    def _serve(self, now: float) -> None:
        for connection in reversed(self._collect(now)):  # Who was given something comes before who brought it.
            try:
                until = connection.waits_until(now)
                if until is None:
                    self._transmit(connection, now)
                else:
                    self._wake_ups.schedule(connection, until)
            except Exception as error:
                self._give_up(connection, error)

    def _watch_flood(self) -> None:
        """While a flood has turned Retry on look once a second whether it is over."""
        if self._flood_check is None and not self._door.is_over(self._loop.time()) and not self._is_closed:
            self._flood_check = self._loop.call_later(FLOOD_CHECK_S, self._on_flood_check)

    def _on_flood_check(self) -> None:
        self._flood_check = None
        self._watch_flood()

    def _schedule_turn(self) -> None:
        if self._turn is None and not self._is_closed:
            self._turn = self._loop.call_soon(self._run_scheduled_turn)

    def _tell_application(self, now: float) -> None:
        """A single datagram came, whose acknowledgement can wait: what the application answers goes in one with it."""
        touched, self._touched = self._touched, {}
        for connection in touched:
            connection.drain(now)
            self._dirty[connection] = None
        self._schedule_turn()

    def _collect(self, now: float) -> dict[EndpointConnection, None]:
        """Drain what was fed and let sessions write; return the connections that may have something to send."""
        ready = self._touched
        self._touched = {}
        for connection in ready:
            connection.drain(now)
        pending, self._dirty = {**ready, **self._dirty}, {}
        for _ in range(MAX_ROUNDS):
            for connection in pending:
                self._writing = connection
                connection.before_transmit()
            self._writing = None
            ready.update(pending)
            if not self._dirty:
                break
            pending, self._dirty = self._dirty, {}
        else:
            self._dirty.update(pending)
        return ready

    def _transmit(self, connection: EndpointConnection, now: float) -> None:
        for path, datagrams in connection.datagrams_to_send(now):
            self._send(path, datagrams)
        when = connection.deadline()
        if when is not None and when <= 0:  # An end that wants to be fetched: `EngineConnection.timer`.
            connection.drain(now)
            when = connection.deadline()
        if connection.is_over:
            self.forget(connection)
        elif when is not None:
            self._wake_ups.schedule(connection, max(when, now + TIMER_GRANULARITY_S))

    def _send(self, path: Path, datagrams: list[bytes]) -> None:
        self.counters.sent(datagrams)
        self._open_socket().send(path, datagrams)

    def _touch(self, connection: EndpointConnection) -> None:
        self._touched[connection] = None
        self.mark_dirty(connection)

    def _on_time(self) -> None:
        now = self._loop.time()
        for connection in self._wake_ups.take_due(now, is_busy=bool(self._excess.waiting)):
            when = connection.deadline()
            if when is not None and when > now:
                self._wake_ups.schedule(connection, when)
            else:
                connection.handle_timer(now)
                self._touched[connection] = None
        if self._touched or self._dirty:
            self._run_turn(now)
        elif not self._is_closed:
            self._wake_ups.arm()

    # --- connections ------------------------------------------------------------------------------------------------

    def _open_socket(self) -> DatagramSocket:
        if self._socket is None:
            raise RuntimeError("the endpoint is not open: use Endpoint.open()")
        return self._socket

    def _own_configuration(self, configuration: EngineConfiguration, path: Path) -> EngineConfiguration:
        size = self._settings.max_datagram_size
        is_near = size is None and self._open_socket().is_near(path)
        return replace(
            configuration,
            idle_timeout_s=self._settings.idle_timeout_s,
            max_datagram_size=size or (NEAR_DATAGRAM_SIZE if is_near else FAR_DATAGRAM_SIZE),
            probe_datagram_size=size is None and not is_near,
            qlog_dir=self._settings.qlog_dir,
        )

    def _add(
        self,
        quic: EngineConnection,
        configuration: EngineConfiguration,
        paths: PathMap[Path],
        *,
        is_validated: bool,
        now: float,
    ) -> EndpointConnection:
        connection = EndpointConnection(
            self,
            quic,
            paths,
            self._settings,
            datagram_size=configuration.max_datagram_size,
            engine=self._engine.name,
            is_client=configuration.is_client,
            mesh=mesh_of(configuration.server_name) if configuration.server_name else "",
            is_validated=is_validated,
            now=now,
        )
        self._table.add(connection, *quic.connection_ids)
        return connection

    def _give_up(self, connection: EndpointConnection, error: Exception) -> None:
        """A mistake of ours costs one connection, not the endpoint."""
        peer = shown_address(connection.peer_address)
        logger.error("! %s the connection failed", peer, exc_info=error, extra={"peer": peer})
        connection.abandon("internal error")
        self.forget(connection)

    def forget(self, connection: EndpointConnection) -> None:
        if connection in self._table:
            self._table.remove(connection)
            self._excess.forget(connection)
            self._wake_ups.cancel(connection)
            self._dirty.pop(connection, None)
            self._dialing.pop(connection, None)
            self._door.forgotten(connection, self._loop.time())
