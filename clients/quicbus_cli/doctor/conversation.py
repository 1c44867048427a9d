"""One connection to one address, as far as it comes: handshake, Welcome, proof, pings, members of the mesh."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from quicbus.client.dialing import EndpointDialer
from quicbus.client.session import Session
from quicbus.client.trust import ClientTrust
from quicbus.exceptions import QuicbusError
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from quicbus.client.session import Prove
    from quicbus.identity import Credential
    from quicbus.transport.connection import Address, Connection
    from quicbus.transport.engine import Terminated
    from quicbus.wire import frames

__all__ = ["Conversation", "Stage", "converse"]

PINGS = 5
NAME = "quicbus doctor"


class Stage(IntEnum):
    """How far it came."""

    SILENT = 0
    HEARD = 1
    """Something came back."""
    NEGOTIATED = 2
    """It speaks quicbus: ALPN is agreed."""
    CONNECTED = 3
    """TLS has verified the listener as a node of the credential's mesh."""
    WELCOMED = 4
    ACCEPTED = 5
    """The broker took the credential."""


@dataclass(slots=True)
class Conversation:
    """What was learned on the way."""

    stage: Stage = Stage.SILENT
    termination: Terminated | None = None
    """Why it ended before this side closed it; `None` also where nothing more came in time."""
    failure: str = ""
    """Why it could not even begin, or what the broker did that is not allowed."""
    node: str = ""
    """The listener's node id, 32 hex digits."""
    welcome: frames.Welcome | None = None
    acceptance: frames.Accepted | None = None
    accepted_at: dt.datetime | None = None
    """By this machine's clock."""
    handshake_s: float = 0.0
    """From the first datagram to `Accepted`."""
    round_trips_s: list[float] = field(default_factory=list)
    peers: Sequence[frames.PeerEntry] | None = None


async def converse(
    address: Address,
    credential: Credential,
    engine: str,
    timeout_s: float,
    *,
    trust: bytes = b"",
    qlog_dir: Path | None = None,
    clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Conversation:
    """Connect, ask, and close again; raises nothing but what cancelling raises.

    `timeout_s` is for each of: the handshake with the proof, and what is asked after it. `trust`: the mesh's trust
    list, as far as this machine has one.
    """
    dialer = EndpointDialer(engine, lambda: credential, stall_timeout_s=timeout_s, qlog_dir=qlog_dir)
    known = ClientTrust()
    known.follow(credential)
    known.learned(trust)
    owner = _Owner(clock, dialer.prove, known)
    try:
        try:
            await dialer.dial(address, owner.make_session)
        except QuicbusError as error:
            owner.told.failure = str(error)
            return owner.told
        await owner.wait(timeout_s)
        if owner.told.stage is Stage.ACCEPTED:
            await owner.ask(timeout_s)
        owner.leave()
    finally:
        await dialer.close()
    return owner.told


class _Session(Session):
    """Tells also how far the handshake came."""

    reached: Callable[[Stage], None]

    def negotiated(self) -> None:
        self.reached(Stage.NEGOTIATED)
        super().negotiated()

    def connected(self, channel_binding: bytes) -> None:
        self.reached(Stage.CONNECTED)
        super().connected(channel_binding)


class _Owner:
    """The session's owner; what it hears goes into `told`."""

    def __init__(self, clock: Callable[[], dt.datetime], prove: Prove | None, trust: ClientTrust) -> None:
        self.told = Conversation()
        self._trust = trust
        self._clock = clock
        self._prove = prove
        self._began = time.perf_counter()
        self._session: Session | None = None
        self._is_settled = asyncio.Event()
        self._is_leaving = False

    def make_session(self, connection: Connection) -> Session:
        loop = asyncio.get_running_loop()
        session = _Session(
            connection, self, bus=_NoBus(), clock=loop.time, name=NAME, prove=self._prove, trust=self._trust
        )
        session.reached = self._reached
        self._session = session
        return session

    async def wait(self, timeout_s: float) -> None:
        """Wait until the session is accepted or closed, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_settled.wait()
        except TimeoutError:
            session = self._session
            if session is not None and session.connection.statistics().datagrams_received:
                self._reached(Stage.HEARD)

    async def ask(self, timeout_s: float) -> None:
        session = self._session
        assert session is not None, "ask() follows wait()"
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(PINGS):
                    answered = asyncio.Event()
                    began = time.perf_counter()
                    session.queries.ping(answered.set)
                    await answered.wait()
                    self.told.round_trips_s.append(time.perf_counter() - began)
                peers: asyncio.Future[list[frames.PeerEntry]] = asyncio.get_running_loop().create_future()
                session.queries.peers(peers.set_result)
                self.told.peers = await peers
        except TimeoutError:
            pass

    def leave(self) -> None:
        self._is_leaving = True
        if self._session is not None:
            self._session.close(CloseCode.GOODBYE)

    def _reached(self, stage: Stage) -> None:
        self.told.stage = max(self.told.stage, stage)

    # --- SessionOwner

    def welcomed(self, session: Session) -> None:
        self._reached(Stage.WELCOMED)
        self.told.welcome = session.welcome
        self.told.node = session.connection.listener_node.hex()

    def accepted(self, session: Session) -> None:
        self._reached(Stage.ACCEPTED)
        self.told.acceptance = session.acceptance
        self.told.accepted_at = self._clock()
        self.told.handshake_s = time.perf_counter() - self._began
        self._is_settled.set()

    def closed(self, session: Session, termination: Terminated) -> None:
        self.told.welcome = session.welcome
        if not self._is_leaving:
            self.told.termination = termination
            self.told.failure = str(session.violation) if session.violation is not None else ""
            if session.connection.statistics().datagrams_received:
                self._reached(Stage.HEARD)
        self._is_settled.set()

    def going_away(self, session: Session, frame: frames.GoAway) -> None: ...
    def drained(self, session: Session) -> None: ...
    def credit_changed(self, session: Session) -> None: ...
    def no_responder(self, session: Session, request: int) -> None: ...
    def refused(self, session: Session, topic: str, frame: frames.Refused) -> None: ...
    def brokers_changed(self, session: Session) -> None: ...


class _NoBus:
    """What messages would reply by; none arrive, since nothing is subscribed to."""

    async def publish(self, *arguments: object, **options: object) -> None: ...
