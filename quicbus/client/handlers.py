"""`@bus.on(...)`: functions that are called for each message, as supervised tasks with a mailbox of their own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, TypeVar

from quicbus.client.events import HandlerFailed
from quicbus.exceptions import ClientClosed, InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.client.link import Link
    from quicbus.client.message import Message
    from quicbus.client.subscription import Subscription

__all__ = ["Handler", "Handlers"]

_log = logging.getLogger("quicbus.client")

HandlerFunction = TypeVar("HandlerFunction", bound="Callable[[Message], object]")


class Handler:
    """One function and its mailbox, a subscription. With `concurrency=1` it sees a topic's messages in order."""

    def __init__(
        self, link: Link, subscription: Subscription, function: Callable[[Message], object], concurrency: int
    ) -> None:
        self.name = getattr(function, "__qualname__", repr(function))
        self.subscription = subscription
        self.failures = 0
        self._link = link
        self._function = function
        self._concurrency = concurrency
        self._entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"quicbus-handler[{self.name}]")

    async def wait_ready(self) -> None:
        """Return once the broker has confirmed the subscription; raises what it said otherwise."""
        await asyncio.shield(self._entered)

    async def close(self, grace_s: float) -> None:
        """Take no further message, give those that run `grace_s` to end, then cancel them."""
        await self.subscription.close()
        if self._task is asyncio.current_task():
            return
        try:
            await asyncio.wait((self._task,), timeout=grace_s)
        finally:
            self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            await self.subscription
            self._entered.set_result(None)
            async with asyncio.TaskGroup() as workers:
                for number in range(self._concurrency):
                    workers.create_task(self._work(), name=f"quicbus-handler[{self.name}:{number}]")
        except Exception as error:
            self._fail(error)
        finally:
            if not self._entered.done():
                self._entered.set_exception(ClientClosed("handler"))
                self._entered.exception()
            await self.subscription.close()

    async def _work(self) -> None:
        try:
            async for message in self.subscription:
                await self._handle(message)
        except ClientClosed:
            return

    async def _handle(self, message: Message) -> None:
        try:
            result = self._function(message)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            self.failures += 1
            _log.warning("! handler %s raised for a message on %s", self.name, message.topic, exc_info=error)
            self._link.report(HandlerFailed(self.name, message.topic, error))

    def _fail(self, error: Exception) -> None:
        """The subscription could not be made, or the broker ended it."""
        cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        if not self._entered.done():
            self._entered.set_exception(cause)
            self._entered.exception()
        if not isinstance(cause, ClientClosed):
            _log.error("! handler %s ended: %s", self.name, cause)
            self._link.report(HandlerFailed(self.name, "", cause))


class Handlers:
    """All handlers of one client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._handlers: list[Handler] = []

    def add(self, subscription: Subscription, function: Callable[[Message], object], concurrency: int) -> Handler:
        if concurrency < 1:
            raise InvalidSetting("concurrency", f"at least 1, not {concurrency}")
        handler = Handler(self._link, subscription, function, concurrency)
        self._handlers.append(handler)
        return handler

    async def wait_ready(self) -> None:
        for handler in list(self._handlers):
            await handler.wait_ready()

    async def close(self, grace_s: float) -> None:
        handlers, self._handlers = self._handlers, []
        await asyncio.gather(*(handler.close(grace_s) for handler in handlers))
