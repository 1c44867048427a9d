"""`bus.subscribe(...)`: an async iterator over messages that lives through reconnections."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Self

from quicbus import limits
from quicbus.client.delivery import Inbox
from quicbus.client.events import MessagesDropped, SubscriptionFailed
from quicbus.client.statistics import SubscriptionStatistics
from quicbus.exceptions import (
    ClientClosed,
    InvalidSetting,
    InvalidTopic,
    LimitExceeded,
    NotPermitted,
    SubscriptionEnded,
    WaitTimeout,
)
from quicbus.topics import check_group, parse_filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Generator

    from quicbus.client.delivery import Leg
    from quicbus.client.link import Link
    from quicbus.client.message import Message
    from quicbus.client.session import Session
    from quicbus.wire.frames import SubscriptionClosed

__all__ = ["OVERFLOW_POLICIES", "Subscription"]

OVERFLOW_POLICIES: Final = ("drop_oldest", "drop_newest", "block", "disconnect")
CLOSE_TIMEOUT_S: Final = 2.0
"""How long `close` waits for the broker's final books."""


class Subscription:
    """Made by `bus.subscribe`. Enter it (`async with`, or `await`): then the broker has confirmed it.

    Iterating gives messages; while the connection is lost it waits, and goes on over the next one. It ends when the
    subscription is closed, and raises when the broker ended it (`SubscriptionEnded`, `NotPermitted`), when the
    credential was refused, or when the client is closed. Several tasks may iterate: each message goes to one of them.
    """

    def __init__(
        self,
        link: Link,
        filter: str,
        *,
        group: str | None = None,
        overflow: str = "drop_oldest",
        max_pending: int = limits.MAX_PENDING,
        max_pending_bytes: int = limits.MAX_PENDING_SIZE,
    ) -> None:
        self.filter, self.group = _filter_and_group(filter, group)
        if overflow not in OVERFLOW_POLICIES:
            raise InvalidSetting("overflow", f"{overflow!r} is not one of {', '.join(OVERFLOW_POLICIES)}")
        if max_pending < 1 or max_pending_bytes < 1:
            raise InvalidSetting("max_pending", "at least one message and one byte must be allowed")
        self.overflow = str(overflow)
        self.max_pending = max_pending
        self.max_pending_bytes = max_pending_bytes
        self._inbox = Inbox(
            window_messages=min((max_pending + 1) // 2, limits.SUBSCRIPTION_WINDOW_MESSAGES),
            window_size=min((max_pending_bytes + 1) // 2, limits.SUBSCRIPTION_WINDOW_SIZE),
        )
        self._ready = self._inbox.ready
        self._link = link
        self._leg: Leg | None = None
        self._session: Session | None = None
        self._is_attached = False
        self._is_confirmed = False
        self._is_closed = False
        self._failure: Exception | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._since_turn = 0
        self._is_falling_behind = False
        self._gaps = 0

    # --- the interface

    @property
    def dropped(self) -> int:
        """Messages that matched and were not delivered: by the overflow policy, by expiry, or undecodable here.

        `statistics()` has the reasons. Current whenever the iterator would wait.
        """
        return self._inbox.dropped

    @property
    def pending(self) -> int:
        """Messages that have arrived here and were not read."""
        return self._inbox.pending

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def statistics(self) -> SubscriptionStatistics:
        books = self._inbox.books()
        return SubscriptionStatistics(
            filter=self.filter,
            group=self.group,
            received=books.received,
            pending=books.pending,
            dropped=dict(Counter(books.dropped_by_broker) + Counter(books.dropped_here)),
            dropped_by_broker=books.dropped_by_broker,
            dropped_here=books.dropped_here,
            gaps=self._gaps,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __await__(self) -> Generator[object, None, Self]:
        return self.__aenter__().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        ready = self._ready
        if not ready and not self._take_more():
            while not ready:
                await self._refill()
        message = ready.popleft()
        if not ready and self._inbox.finished():
            self._report_credit()
        return message

    async def next(self, timeout: float | None = None) -> Message:
        """Return the next message; raises `WaitTimeout` (a `TimeoutError`) after `timeout` seconds.

        A cancelled or timed-out call takes no message.
        """
        ready = self._ready
        try:
            async with asyncio.timeout(timeout):
                while not ready:
                    await self._refill()
        except StopAsyncIteration:
            raise ClientClosed("subscription") from None
        except TimeoutError:
            assert timeout is not None
            raise WaitTimeout(f"subscription to {self.filter!r}", timeout) from None
        return await self.__anext__()

    def batches(self) -> AsyncIterator[list[Message]]:
        """Iterate over lists of messages: all of what is decoded each time, at least one. The fastest way to read."""
        return _Batches(self)

    async def wait_spread(self, timeout: float | None = None) -> int:
        """Return once all nodes that the broker is linked to know of the subscription, and how many those are.

        In a mesh of up to seven brokers that is all of them, and what is published anywhere from then on reaches it; a
        larger mesh needs a few more round trips. With a single broker it is as soon as it has confirmed; one that has
        not found its mesh yet does not answer before it has. When the connection is lost it waits for that of the next
        broker. Raises `WaitTimeout`, and what entering raises.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._enter()
                while True:
                    nodes = await self._ask_spread()
                    if nodes is not None:
                        return nodes
        except TimeoutError:
            assert timeout is not None
            raise WaitTimeout(f"spread of the subscription to {self.filter!r}", timeout) from None

    async def close(self) -> None:
        """Leave. Messages that are not read are dropped and counted as `unsubscribed`. Closing twice is fine."""
        if self._is_closed:
            return
        self._is_closed = True
        self._link.forget(self)
        self._inbox.close()
        self._wake()
        try:
            leg, session = self._leg, self._session
            if leg is not None and session is not None and not session.is_closed and self._failure is None:
                session.unsubscribe(leg)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        while self._leg is not None:
                            await self._wait()
        finally:
            self._inbox.end()

    # --- what the link calls

    def begin(self, session: Session) -> None:
        """Go on over a new session."""
        self._session = session
        self._leg = session.subscribe(
            self._inbox,
            self,
            filter=self.filter,
            group=self.group,
            overflow=self.overflow,
            max_pending=self.max_pending,
            max_pending_size=self.max_pending_bytes,
        )
        self._wake()

    def fail(self, error: Exception) -> None:
        """Nothing will arrive any more: what has arrived stays readable, then `error` is raised."""
        if self._failure is None:
            self._failure = error
            self._wake()

    @property
    def was_confirmed(self) -> bool:
        return self._is_confirmed

    def count_gap(self) -> None:
        self._gaps += 1

    # --- SubscriptionOwner: what the session calls

    def confirmed(self, leg: Leg) -> None:
        self._is_confirmed = True
        self._wake()

    def arrived(self) -> None:
        if self._waiters:
            self._wake()

    def dropped_more(self) -> None:
        if not self._is_falling_behind:
            self._is_falling_behind = True
            self._link.report(MessagesDropped(self.filter, self.group, self._inbox.books().dropped_by_broker))

    def detached(self, leg: Leg) -> None:
        if leg is self._leg:
            self._session = self._leg = None
            self._wake()

    def ended(self, leg: Leg) -> None:
        if leg is not self._leg:
            return
        self._leg = None
        closed = leg.closed
        if closed is not None and not self._is_closed and closed.reason != "unsubscribed":
            self._failure = _failure_of(closed, self.filter)
            self._link.report(SubscriptionFailed(self.filter, self.group, self._failure))
            self._link.forget(self)
        self._wake()

    # --- waiting

    async def _take_ready(self) -> list[Message]:
        ready = self._ready
        while not ready:
            await self._refill()
        messages = list(ready)
        ready.clear()
        if self._inbox.finished():
            self._report_credit()
        return messages

    async def _enter(self) -> None:
        self._attach()
        while not self._is_confirmed:
            self._raise_failure()
            await self._wait()
        self._raise_failure()

    def _attach(self) -> None:
        if self._is_closed:
            raise ClientClosed("subscription")
        if not self._is_attached:
            self._link.attach(self)
            self._is_attached = True

    def _take_more(self) -> bool:
        """Fill `ready` where that needs no waiting, and no turn for the loop."""
        if self._since_turn >= limits.YIELD_AFTER_MESSAGES or not self._inbox.refill():
            return False
        self._since_turn += len(self._ready)
        return True

    async def _refill(self) -> None:
        """Return once `ready` holds messages. A subscriber that never has to wait gives the loop a turn here."""
        inbox = self._inbox
        while not inbox.ready:
            if self._since_turn >= limits.YIELD_AFTER_MESSAGES:
                self._since_turn = 0
                await asyncio.sleep(0)
                continue
            if self._take_more():
                return
            if self._is_closed:
                raise StopAsyncIteration
            self._raise_failure()
            if not self._is_confirmed:
                await self._enter()
                continue
            self._is_falling_behind = False
            if self.group is not None or inbox.is_credit_due():
                self._report_credit()
            waiter = self._begin_to_wait()  # Not `_wait`: each coroutine more is felt by who waits for a lone message.
            try:
                await waiter
            finally:
                self._end_waiting(waiter)
            self._since_turn = 0

    async def _ask_spread(self) -> int | None:
        """Ask the broker that is connected; `None`: it was lost before it answered, or there is none."""
        session, leg = self._session, self._leg
        answers: list[int] = []

        def answered(nodes: int) -> None:
            answers.append(nodes)
            self._wake()

        discard = session.queries.spread(leg.id, answered) if session and leg else None
        try:
            while True:
                if self._is_closed:
                    raise ClientClosed("subscription")
                self._raise_failure()
                if answers:
                    return answers[0]
                if leg is not self._leg:
                    return None
                await self._wait()
        finally:
            if discard is not None:
                discard()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _wait(self) -> None:
        waiter = self._begin_to_wait()
        try:
            await waiter
        finally:
            self._end_waiting(waiter)

    def _begin_to_wait(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def _end_waiting(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _report_credit(self) -> None:
        if self._leg is not None and self._session is not None:
            self._session.report_credit(self._leg)


class _Batches:
    """What `Subscription.batches` returns; an asynchronous generator could not be compiled."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[object, None, list[Message]]:
        return self._subscription._take_ready()


def _filter_and_group(filter: str, group: str | None) -> tuple[str, str | None]:
    plain, shared = parse_filter(filter)
    if group is None:
        return plain, shared
    if shared is not None and shared != group:
        raise InvalidTopic(filter, f"its group is {shared!r}, but group={group!r} was given as well")
    check_group(group)
    return plain, group


def _failure_of(closed: SubscriptionClosed, filter: str) -> Exception:
    if closed.reason == "not_permitted":
        return NotPermitted("subscribe", filter)
    if closed.reason == "invalid":
        return InvalidTopic(filter, closed.detail or "the broker does not take this filter")
    if closed.reason == "limit":
        return LimitExceeded(closed.limit, closed.current, closed.allowed)
    return SubscriptionEnded(filter, closed.reason, closed.detail)
