"""Getting connected and staying connected: the one task of a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from quicbus.client.events import Reconnecting
from quicbus.client.link import describe_termination
from quicbus.client.reconnect import DialPlan, StallWatch, Verdict
from quicbus.client.session import Session
from quicbus.client.urls import parse_url
from quicbus.exceptions import (
    ConnectFailed,
    ConnectionFailed,
    CredentialError,
    CredentialRefused,
    InvalidSetting,
    QuicbusError,
)
from quicbus.transport.engine import Terminated
from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from quicbus.client.dialing import Dialer
    from quicbus.client.link import Link
    from quicbus.client.message import Replier
    from quicbus.client.urls import BrokerUrl
    from quicbus.transport.connection import Address, Connection
    from quicbus.wire.frames import GoAway, Refused

__all__ = ["Supervisor"]

_log = logging.getLogger("quicbus.client")

HEAD_START_S = 0.3
"""RFC 8305 ("Happy Eyeballs"): how long the first address of a name has before the next one is dialed beside it."""
ATTEMPT_TIMEOUT_S = 5.0
"""For one URL: QUIC itself repeats a lost first datagram several times in it."""
GO_AWAY_SLACK_S = 1.0
MAX_FURTHER = 64
"""Further brokers that are remembered: each one that is gone may take `ATTEMPT_TIMEOUT_S` of a round."""
_TLS_REFUSALS = frozenset(0x100 + alert for alert in (42, 43, 45, 46, 48, 51, 120))
"""bad certificate, unsupported, expired, unknown, unknown authority, bad signature, no common ALPN: trying again with
the same credential at the same broker does not help."""


class Incompatible(ConnectionFailed):
    """TLS, or the look at the certificate after it, refused: the broker is of another mesh, or no broker at all."""


class Supervisor:
    """Brings sessions to a `Link`. `connect` first, then `run` in a task."""

    def __init__(
        self,
        link: Link,
        dialer: Dialer,
        urls: Sequence[BrokerUrl],
        *,
        bus: Replier,
        name: str,
        connect_timeout_s: float,
        stall_timeout_s: float,
        rng: random.Random,
    ) -> None:
        self.is_drained = asyncio.Event()
        self._link = link
        self._dialer = dialer
        self._plan = DialPlan(urls, rng)
        self._bus = bus
        self._name = name
        self._connect_timeout_s = connect_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._attempt_timeout_s = max(0.5, min(ATTEMPT_TIMEOUT_S, connect_timeout_s / len(urls)))
        self._attempts: dict[Session, asyncio.Future[Session]] = {}
        self._dialing: asyncio.Task[tuple[Session, BrokerUrl]] | None = None
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def urls(self) -> list[BrokerUrl]:
        """Return the brokers that are known, in the order in which they would be dialed."""
        return self._plan.urls

    # --- the first connection

    async def connect(self) -> None:
        """Connect for the first time. Raises `CredentialRefused` at once, otherwise `ConnectFailed` in the end."""
        causes: dict[str, str] = {}
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                session, url = await self._establish(causes, is_first=True)
        except TimeoutError:
            raise ConnectFailed(list(causes.items())) from None
        self._adopt(session, url)

    # --- afterwards

    async def run(self) -> None:
        """Watch the connection and make a new one when it is lost, until cancelled or the credential is refused."""
        try:
            while True:
                await self._watch()
                session, url = await (self._dialing or self._begin_dialing(pause=True))
                self._dialing = None
                self._retire(CloseCode.REPLACED, "the client has a connection that answers")
                self._adopt(session, url)
        except CredentialError as error:
            self._retire(CloseCode.GOODBYE, "the credential was refused")
            self._link.refuse(error)
        finally:
            dialing, self._dialing = self._dialing, None
            if dialing is not None:
                dialing.cancel()
                await asyncio.wait((dialing,))
                if not dialing.cancelled():
                    dialing.exception()

    async def _watch(self) -> None:
        """Return when the session is lost, or dialing beside a silent one has come to an end."""
        watch = StallWatch(self._stall_timeout_s, self._loop.time())
        while (session := self._link.session) is not None:
            await self._wait_change(watch.interval_s)
            dialing = self._dialing
            if self._link.session is None or (dialing is not None and dialing.done()):
                break
            connection = session.connection
            verdict = watch.look(self._loop.time(), connection.last_heard, has_moved=connection.has_moved())
            if verdict in (Verdict.PING, Verdict.PRESS):
                session.queries.ping(watch.answered)
                connection.ping(is_pressing=verdict is Verdict.PRESS)
            elif verdict is Verdict.DIAL_BESIDE and dialing is None:
                _log.info("= no answer from the broker, dialing beside", extra=self._link.named)
                self._begin_dialing(pause=False)
            elif verdict is Verdict.FINE and dialing is not None and watch.is_answered:
                dialing.cancel()
                self._dialing = None
            elif verdict is Verdict.LOST:
                self._retire(CloseCode.STALLED, f"no sign of life for {self._stall_timeout_s:g} s", silent=True)

    def _begin_dialing(self, *, pause: bool) -> asyncio.Task[tuple[Session, BrokerUrl]]:
        """Begin to dial; whatever ends `run` ends it too."""
        self._dialing = asyncio.create_task(self._establish({}, pause=pause), name=f"quicbus-dial[{self._name}]")
        self._dialing.add_done_callback(lambda _: self._changed.set())
        return self._dialing

    async def _wait_change(self, timeout_s: float) -> None:
        if self._dialing is not None and self._dialing.done():
            return
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _adopt(self, session: Session, url: BrokerUrl) -> None:
        self._plan.connected(url, _further(session))
        if not session.is_closed:
            self._link.adopt(session, str(url))

    def _retire(self, code: CloseCode, reason: str, *, silent: bool = False) -> None:
        """End the session that carries the client now, if any."""
        session = self._link.session
        if session is not None:
            self._link.lose(session, Terminated(code, reason, is_application=not silent, is_local=True))
            session.close(code, reason)

    def _leave_gone(self, session: Session) -> None:
        """The broker said that it would be closed by now."""
        if session is self._link.session:
            self._retire(CloseCode.GOODBYE, "the broker went away")
            self._changed.set()

    # --- dialing

    async def _establish(
        self, causes: dict[str, str], *, is_first: bool = False, pause: bool = True
    ) -> tuple[Session, BrokerUrl]:
        """Try every URL in turn, round after round. `causes` is filled with why each one failed last."""
        attempt = 0
        cause = "the connection was lost"
        while True:
            if (pause and not is_first) or attempt:
                delay = self._plan.pause()
                if not is_first:
                    self._link.report(Reconnecting(attempt + 1, delay, cause))
                await asyncio.sleep(delay)
            attempt += 1
            incompatible = 0
            urls = self._plan.urls
            for url in urls:
                causes.setdefault(str(url), "no answer")
                try:
                    return await self._try_url(url), url
                except ConnectionFailed as error:
                    cause = causes[str(url)] = str(error)
                    incompatible += isinstance(error, Incompatible)
                    _log.info("= %s: %s", url, error, extra={"peer": str(url)})
            if is_first and incompatible == len(urls):
                raise ConnectFailed(list(causes.items()))
            self._plan.failed()

    async def _try_url(self, url: BrokerUrl) -> Session:
        try:
            async with asyncio.timeout(self._attempt_timeout_s):
                addresses = await self._dialer.resolve(url)
                return await self._race(addresses)
        except TimeoutError:
            raise ConnectionFailed(f"no answer within {self._attempt_timeout_s:g} s") from None

    async def _race(self, addresses: list[Address]) -> Session:
        """Dial the addresses in turn, each with a head start over the next; the first accepted session wins."""
        left = deque(addresses)
        live: dict[asyncio.Future[Session], Session] = {}
        causes: list[ConnectionFailed] = []
        winner: Session | None = None
        try:
            while left or live:
                if left:
                    try:
                        session = await self._dial(left.popleft())
                        live[self._attempts[session]] = session
                    except ConnectionFailed as error:
                        causes.append(error)
                        continue
                done, _ = await asyncio.wait(
                    live, timeout=HEAD_START_S if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for future in done:
                    session = live.pop(future)
                    self._attempts.pop(session, None)
                    error_ = future.exception()
                    if error_ is None and winner is None:
                        winner = session
                    elif isinstance(error_, ConnectionFailed):
                        causes.append(error_)
                    elif error_ is not None:
                        raise error_
                if winner is not None:
                    return winner
        finally:
            for future, session in live.items():
                self._attempts.pop(session, None)
                if future.done():
                    future.exception()
                session.close(CloseCode.GOODBYE)
        raise next((cause for cause in causes if isinstance(cause, Incompatible)), causes[-1])

    async def _dial(self, address: Address) -> Session:
        made: list[Session] = []

        def make_handler(connection: Connection) -> Session:
            session = Session(
                connection,
                self,
                bus=self._bus,
                clock=self._loop.time,
                name=self._name,
                prove=self._dialer.prove,
                trust=self._dialer.trust,
            )
            self._attempts[session] = self._loop.create_future()
            made.append(session)
            return session

        await self._dialer.dial(address, make_handler)
        return made[0]

    # --- SessionOwner

    def welcomed(self, session: Session) -> None:
        current = self._link.session
        if current is None or current is session or current.welcome is None or session.welcome is None:
            return
        if current.welcome.node == session.welcome.node and current.welcome.boot != session.welcome.boot:
            self._retire(CloseCode.REPLACED, "the broker was started again")

    def accepted(self, session: Session) -> None:
        future = self._attempts.get(session)
        if future is not None and not future.done():
            future.set_result(session)
        self._changed.set()

    def going_away(self, session: Session, frame: GoAway) -> None:
        self._link.going_away(session, frame)
        self._loop.call_later(frame.deadline_s + GO_AWAY_SLACK_S, self._leave_gone, session)

    def drained(self, session: Session) -> None:
        self.is_drained.set()

    def credit_changed(self, session: Session) -> None:
        if session is self._link.session:
            self._link.credit_changed()

    def no_responder(self, session: Session, request: int) -> None:
        if session is self._link.session:
            self._link.requests.no_responder(request)

    def refused(self, session: Session, topic: str, frame: Refused) -> None:
        if session is self._link.session:
            self._link.report_refused(topic, frame)

    def brokers_changed(self, session: Session) -> None:
        if session is self._link.session:
            self._plan.learned(_further(session))

    def closed(self, session: Session, termination: Terminated) -> None:
        error = _failure_of(termination, session)
        future = self._attempts.get(session)
        if future is not None and not future.done():
            future.set_exception(error)
            future.exception()
        if session is self._link.session:
            self._link.lose(session, termination)
            # One that has ended may have been renewed: the dialer, or the broker at the next proof, knows.
            if isinstance(error, CredentialRefused) and error.code != CloseCode.CREDENTIAL_EXPIRED:
                self._link.refuse(error)
        self.is_drained.set()
        self._changed.set()


def _further(session: Session) -> list[BrokerUrl]:
    """Return the further brokers that a session was told of; one that is no URL helps nobody."""
    further: list[BrokerUrl] = []
    for text in session.brokers[:MAX_FURTHER]:
        with contextlib.suppress(InvalidSetting):
            further.append(parse_url(text))
    return further


def _failure_of(termination: Terminated, session: Session) -> QuicbusError:
    code, reason = termination.code, termination.reason
    if session.violation is not None:
        return ConnectionFailed(str(session.violation))
    if termination.is_application and not termination.is_local and code in CREDENTIAL_CODES:
        return CredentialRefused(code, reason or f"the broker refused the credential ({CloseCode(code).name})")
    described = describe_termination(termination)
    if termination.is_application and termination.is_local and code in CREDENTIAL_CODES:
        return Incompatible(reason)
    if not termination.is_application and code in _TLS_REFUSALS:
        return Incompatible(
            f"no broker of this credential's mesh answers there ({described}); use a credential of that broker's mesh "
            "(`quicbus cert issue --client NAME`, run where its authority is)"
        )
    return ConnectionFailed(described)
