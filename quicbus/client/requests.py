"""Requests: one subscription a session takes the replies to all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.client.delivery import Inbox
from quicbus.exceptions import ConnectionLost, NoResponders, QuicbusError, RequestTimeout
from quicbus.topics import REPLY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quicbus.client.delivery import Leg
    from quicbus.client.link import Link
    from quicbus.client.message import Message
    from quicbus.client.session import Session

__all__ = ["Requests"]


class Requests:
    """All requests of one client that wait for a reply. Numbers are never used twice, across sessions."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[int, tuple[str, asyncio.Future[Message]]] = {}
        self._last = 0
        self._session: Session | None = None
        self._leg: Leg | None = None
        self._inbox = Inbox(limits.REPLY_WINDOW_MESSAGES, limits.REPLY_WINDOW_SIZE)
        self._ready: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def request(
        self, topic: str, payload: bytes | str, *, headers: Mapping[str, str] | None, timeout: float | None
    ) -> Message:
        """Publish and wait for the first reply. A cancelled request forgets its number, and the reply is dropped."""
        self._last += 1
        number = self._last
        try:
            async with asyncio.timeout(timeout):
                return await self._request(number, topic, payload, headers)
        except TimeoutError:
            assert timeout is not None
            raise RequestTimeout(topic, timeout) from None
        finally:
            self._waiting.pop(number, None)

    async def _request(
        self, number: int, topic: str, payload: bytes | str, headers: Mapping[str, str] | None
    ) -> Message:
        session = await self._link.wait_session()
        await self._begin(session)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (topic, reply)
        await self._link.publish(
            topic,
            payload,
            headers=headers,
            reply_to=f"{_prefix(session)}{number}",
            request=number,
            session=session,
        )
        return await reply

    async def _begin(self, session: Session) -> None:
        """Make sure that the session's replies arrive; only its first request waits for it."""
        if self._session is not session:
            self._session = session
            self._ready = asyncio.get_running_loop().create_future()
            self._leg = session.subscribe(
                self._inbox,
                self,
                filter=f"{_prefix(session)}+",
                overflow="drop_newest",
                max_pending=2 * limits.REPLY_WINDOW_MESSAGES,
                max_pending_size=2 * limits.REPLY_WINDOW_SIZE,
            )
        assert self._ready is not None
        if self._ready.done():
            self._ready.result()
        else:
            await asyncio.shield(self._ready)

    # --- what the link calls

    def no_responder(self, number: int) -> None:
        if number in self._waiting:
            topic, _ = self._waiting[number]
            self._fail(number, NoResponders(topic))

    def disconnected(self, reason: str, code: int | None) -> None:
        """Replies went to the session that is gone."""
        self.fail_all(ConnectionLost(f"{reason}; the reply would have come over it", code))

    def fail_all(self, error: QuicbusError) -> None:
        self._session = self._leg = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # perhaps nobody waits for it any more
        self._ready = None
        for number in list(self._waiting):
            self._fail(number, error)

    def _fail(self, number: int, error: QuicbusError) -> None:
        _, reply = self._waiting.pop(number)
        if not reply.done():
            reply.set_exception(error)
            reply.exception()

    # --- SubscriptionOwner: what the session calls

    def confirmed(self, leg: Leg) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def arrived(self) -> None:
        inbox = self._inbox
        while inbox.refill():
            for message in inbox.ready:
                self._replied(message)
            inbox.ready.clear()
            inbox.finished()
        if inbox.is_credit_due() and self._session is not None and self._leg is not None:
            self._session.report_credit(self._leg)

    def dropped_more(self) -> None:
        """Replies that nobody can read fast enough: their requests time out."""

    def detached(self, leg: Leg) -> None:
        """`disconnected` follows, with the reason."""

    def ended(self, leg: Leg) -> None:
        if leg is self._leg and leg.closed is not None:
            self.fail_all(ConnectionLost(f"the broker ended the subscription for replies: {leg.closed.reason}"))

    def _replied(self, message: Message) -> None:
        number = message.topic.rpartition("/")[2]
        waiting = self._waiting.pop(int(number), None) if number.isascii() and number.isdigit() else None
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(message)


def _prefix(session: Session) -> str:
    assert session.welcome is not None
    assert session.acceptance is not None
    return f"{REPLY_PREFIX}{session.welcome.node.hex()}/{session.acceptance.session.hex()}/"
