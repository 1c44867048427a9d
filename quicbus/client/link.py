"""What outlives sessions, and how it moves from one to the next: publisher, subscriptions, requests, flushes.

A `Link` has no tasks and dials nothing: `supervisor.py` brings it sessions. Everything here happens in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from quicbus import limits
from quicbus.client.events import (
    Connected,
    CredentialRejected,
    Disconnected,
    Event,
    EventFeeds,
    Gap,
    GoingAway,
    MessagesRefused,
    Status,
)
from quicbus.client.flushing import Flushes
from quicbus.client.outgoing import Outgoing, prepare
from quicbus.client.publishing import Publisher
from quicbus.client.requests import Requests
from quicbus.exceptions import (
    ClientClosed,
    ConnectionLost,
    LimitExceeded,
    NotPermitted,
    QuicbusError,
    WaitTimeout,
    WouldBlock,
)
from quicbus.topics import filter_size
from quicbus.transport.connection import shown_address
from quicbus.transport.engine import Terminated
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quicbus.client.session import Session
    from quicbus.client.subscription import Subscription
    from quicbus.wire.frames import GoAway, PeerEntry, Refused

__all__ = ["Link", "describe_termination"]

_log: Final = logging.getLogger("quicbus.client")


class Link:
    """The part of a client that its application's calls work on."""

    def __init__(self, clock: Callable[[], float], *, offline_buffer_size: int) -> None:
        self.publisher = Publisher(offline_buffer_size)
        self.flushes = Flushes()
        self.events = EventFeeds()
        self.requests = Requests(self)
        self.subscriptions: dict[Subscription, None] = {}
        self.session: Session | None = None
        self.status = Status.CONNECTING
        self.reconnects = -1
        self._clock = clock
        self._publish_lock = asyncio.Lock()
        self._turn_end = 0.0
        self._waiters: set[asyncio.Future[None]] = set()
        self._failure: QuicbusError | None = None
        self.named = {"peer": ""}
        """What stands on log lines as the peer: node id and address of the broker that is, or was, connected."""
        self._lost_at: float | None = None
        self._filters_size = 0
        self._pacing: asyncio.TimerHandle | None = None
        self._is_turn_sent = False
        """A message of this turn left at once; what follows it leaves at the end of the turn."""
        self.publisher.on_open = self._published
        self.publisher.on_paced = self._go_on_after

    # --- sessions

    def adopt(self, session: Session, url: str) -> None:
        """An accepted session carries everything from here on."""
        assert session.welcome is not None
        self.session = session
        node = session.welcome.node.hex()
        self.named = {"peer": f"{node}@{shown_address(session.connection.peer_address)}"}
        self.status = Status.CONNECTED
        self.reconnects += 1
        session.carry(self.publisher, self.flushes)
        duration = 0.0 if self._lost_at is None else self._clock() - self._lost_at
        for subscription in list(self.subscriptions):
            subscription.begin(session)
            if subscription.was_confirmed:
                subscription.count_gap()
                self.report(Gap(subscription.filter, subscription.group, duration))
        self.report(Connected(url, node, self.reconnects))
        self.wake()

    def lose(self, session: Session, termination: Terminated) -> None:
        """The session that carried everything is closed."""
        if session is not self.session:
            return
        session.detach()
        reason, code = describe_termination(termination), termination.code if termination.is_application else None
        self.session = None
        self.status = Status.RECONNECTING if self.status is Status.CONNECTED else self.status
        self._lost_at = min(self._clock(), session.connection.last_heard)
        lost = self.publisher.in_flight
        for number in self.publisher.disconnected():
            _log.debug("= request %d was not sent before the connection was lost", number, extra=self.named)
        self.requests.disconnected(reason, code)
        self.flushes.disconnected(self.publisher)
        self.report(Disconnected(reason, code, lost))
        self.wake()

    def leave(self, session: Session) -> None:
        """The client closes its session by itself."""
        termination = Terminated(CloseCode.GOODBYE, "the client was closed", is_application=True, is_local=True)
        self.lose(session, termination)

    def refuse(self, error: QuicbusError) -> None:
        """The credential was refused: whoever waits is told, and so is every later call."""
        self.status = Status.REFUSED
        self.publisher.shut()
        self.report(CredentialRejected(error))
        self._fail(error)

    def close(self) -> None:
        """The client is closed; what is buffered is dropped and counted."""
        if self.status is not Status.CLOSED:
            self.status = Status.CLOSED
            self.publisher.shut()
            if self._pacing is not None:
                self._pacing.cancel()
            self._fail(ClientClosed())
            self.events.close()

    def going_away(self, session: Session, frame: GoAway) -> None:
        if session is self.session:
            self.report(GoingAway(frame.reason, frame.deadline_s))
            session.drain()

    def credit_changed(self) -> None:
        self.publisher.new_turn()
        if self._waiters:
            self.wake()

    def _go_on_after(self, seconds: float) -> None:
        """The rates of the broker make the publisher wait."""
        if self._pacing is None:
            self._pacing = asyncio.get_running_loop().call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pacing = None
        self.credit_changed()
        self._transmit_soon()

    def report(self, event: Event) -> None:
        _log.info("= %s", event, extra=self.named)
        self.events.put(event)

    def report_refused(self, topic: str, frame: Refused) -> None:
        self.report(MessagesRefused(topic, frame.messages, frame.reason, frame.detail, frame.retry_after_s))

    def _fail(self, error: QuicbusError) -> None:
        self._failure = error
        self.requests.fail_all(error)
        for subscription in list(self.subscriptions):
            subscription.fail(error)
        self.wake()

    # --- publishing

    async def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        expires_in: float | None = None,
        request: int = 0,
        session: Session | None = None,
    ) -> None:
        """The long way: check, then wait for room. With `session`, raise `ConnectionLost` when that one is gone."""
        message = self._prepare(topic, payload, headers, reply_to, expires_in, request)
        publisher = self.publisher
        if publisher.turn_left <= 0 and not self._publish_lock.locked():
            if time.perf_counter() >= self._turn_end:  # The clock of uvloop stands still within a turn.
                await asyncio.sleep(0)
                self._turn_end = time.perf_counter() + limits.PUBLISH_TURN_S
            publisher.new_turn()
        if not self._publish_lock.locked():
            self._check(topic, session)
            if publisher.offer(message, self._clock()):
                self._published()
                return
        # First come, first served: a large message is not overtaken for ever by small ones.
        async with self._publish_lock:
            publisher.hold()
            try:
                self._check(topic, session)
                while not publisher.offer(message, self._clock()):
                    await self._wait()
                    self._check(topic, session)
            finally:
                publisher.release()
            self._published()

    def publish_nowait(
        self,
        topic: str,
        payload: bytes | str,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        expires_in: float | None = None,
    ) -> None:
        message = self._prepare(topic, payload, headers, reply_to, expires_in, 0)
        self._check(topic, None)
        if self._publish_lock.locked() or not self.publisher.offer(message, self._clock()):
            why = "the broker has not taken what is under way" if self.session else "the offline buffer is full"
            if self._pacing is not None:
                why = "the broker's max_publish_rate or max_publish_bytes allows no more now"
            raise WouldBlock(why)
        self._published()

    def _prepare(
        self,
        topic: str,
        payload: bytes | str,
        headers: Mapping[str, str] | None,
        reply_to: str | None,
        expires_in: float | None,
        request: int,
    ) -> Outgoing:
        limits_ = self.session.welcome.limits if self.session and self.session.welcome else None
        if limits_ is None:
            return prepare(
                self.publisher.topics,
                topic,
                payload,
                headers=headers,
                reply_to=reply_to,
                expires_in=expires_in,
                request=request,
                max_message_size=self.publisher.max_message_size,
            )
        return prepare(
            self.publisher.topics,
            topic,
            payload,
            headers=headers,
            reply_to=reply_to,
            expires_in=expires_in,
            request=request,
            max_message_size=limits_.max_message_size,
            max_headers_size=limits_.max_headers_size,
        )

    def _check(self, topic: str, session: Session | None) -> None:
        if self._failure is not None:
            raise self._failure
        if session is not None and session is not self.session:
            raise ConnectionLost("the connection was lost before the request was sent")
        if not self.publisher.refusals.permitted.may_publish(topic):
            raise NotPermitted("publish", topic)

    def _published(self) -> None:
        """Send what was published: at the end of this turn, or at once where a message a turn has become the habit."""
        session, publisher = self.session, self.publisher
        if session is None:
            return
        if self._is_turn_sent:
            publisher.lone_turns = 0
        elif publisher.lone_turns >= limits.LONE_TURNS:
            self._is_turn_sent = True
            asyncio.get_running_loop().call_soon(self._end_turn)
            session.connection.transmit_now()
            return
        session.connection.transmit_soon()

    def _end_turn(self) -> None:
        self._is_turn_sent = False

    def _transmit_soon(self) -> None:
        if self.session is not None:
            self.session.connection.transmit_soon()

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was published is taken, refused or lost; raise what was not taken since the last time."""
        try:
            async with asyncio.timeout(timeout):
                await self._flush()
        except TimeoutError:
            assert timeout is not None
            raise WaitTimeout("flush", timeout) from None
        edge = self.session.welcome.limits if self.session and self.session.welcome else None
        max_publish_rate = edge.max_publish_rate if edge else 0
        failure = self.publisher.refusals.take_failure(self.publisher.max_message_size, max_publish_rate)
        if failure is not None:
            raise failure

    async def _flush(self) -> None:
        self.raise_failure()
        if not self.publisher.is_settled:
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            id = self.flushes.add(self.publisher, lambda: None if over.done() else over.set_result(None))
            self._transmit_soon()
            try:
                while not over.done():
                    self.raise_failure()
                    await self._wait_either(over)
            finally:
                self.flushes.discard(id)

    async def ping(self, timeout: float | None) -> float:
        """Return the seconds that the broker took to answer; raises `WaitTimeout` or `ConnectionLost`."""
        try:
            async with asyncio.timeout(timeout):
                session = await self.wait_session()
                over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                began = time.perf_counter()  # The clock of uvloop has milliseconds only.
                session.queries.ping(lambda: None if over.done() else over.set_result(None))
                while not over.done():
                    if session is not self.session:
                        raise ConnectionLost("the connection was lost before the answer came")
                    await self._wait_either(over)
                return time.perf_counter() - began
        except TimeoutError:
            assert timeout is not None
            raise WaitTimeout("ping", timeout) from None

    async def peers(self, timeout: float | None) -> list[PeerEntry]:
        """Return the members of the mesh; a broker that is lost meanwhile leaves the answer to the next one."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    answer = await self._ask_peers(await self.wait_session())
                    if answer is not None:
                        return answer
        except TimeoutError:
            assert timeout is not None
            raise WaitTimeout("peers", timeout) from None

    async def _ask_peers(self, session: Session) -> list[PeerEntry] | None:
        over: asyncio.Future[list[PeerEntry]] = asyncio.get_running_loop().create_future()
        discard = session.queries.peers(lambda entries: None if over.done() else over.set_result(entries))
        try:
            while not over.done():
                if session is not self.session:
                    return None
                await self._wait_either(over)
            return over.result()
        finally:
            discard()

    # --- subscriptions

    def attach(self, subscription: Subscription) -> None:
        self.raise_failure()
        if self.session is not None and not self.session.permitted.may_subscribe(subscription.filter):
            raise NotPermitted("subscribe", subscription.filter)
        self._check_limits(subscription)
        self.subscriptions[subscription] = None
        self._filters_size += filter_size(subscription.filter, subscription.group)
        if self.session is not None:
            subscription.begin(self.session)

    def forget(self, subscription: Subscription) -> None:
        if subscription in self.subscriptions:
            del self.subscriptions[subscription]
            self._filters_size -= filter_size(subscription.filter, subscription.group)

    def _check_limits(self, subscription: Subscription) -> None:
        """Raise `LimitExceeded` where the broker that is connected would refuse the subscription."""
        if self.session is None or self.session.welcome is None:
            return
        edge = self.session.welcome.limits
        filters_size = self._filters_size + filter_size(subscription.filter, subscription.group)
        bounds = (
            ("max_filter_size", len(subscription.filter.encode()), edge.max_filter_size),
            ("max_subscriptions", len(self.subscriptions) + 1, edge.max_subscriptions),
            ("max_filters_size", filters_size, edge.max_filters_size),
            ("max_pending", subscription.max_pending, edge.max_pending),
            ("max_pending_size", subscription.max_pending_bytes, edge.max_pending_size),
        )
        for limit, wanted, allowed in bounds:
            if allowed and wanted > allowed:
                raise LimitExceeded(limit, wanted, allowed)

    # --- waiting

    def raise_failure(self) -> None:
        """Raise what ended this client: closed, or its credential refused."""
        if self._failure is not None:
            raise self._failure

    async def wait_session(self) -> Session:
        while self.session is None:
            self.raise_failure()
            await self._wait()
        return self.session

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def _wait_either(self, over: asyncio.Future[Any]) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(waiter)
            waiter.cancel()


def describe_termination(termination: Terminated) -> str:
    """Return a sentence about why a connection ended."""
    if termination.is_application:
        with contextlib.suppress(ValueError):
            name = CloseCode(termination.code).name.lower().replace("_", " ")
            return f"{name}: {termination.reason}" if termination.reason else name
        return f"close code 0x{termination.code:x}: {termination.reason}"
    if 0x100 <= termination.code < 0x200:
        return f"TLS alert {termination.code - 0x100}: {termination.reason or 'the handshake failed'}"
    return termination.reason or "no answer"
