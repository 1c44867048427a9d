"""The client for threads: the same names, without `await`.

```python
with quicbus.blocking.connect("quic://localhost:4433") as bus:
    with bus.subscribe("sensors/#") as messages:
        bus.publish("sensors/kitchen", b"21.5")
        for message in messages:
            print(message.topic, message.payload)
```

A client runs in a thread of its own and may be shared by any number of threads. Ctrl-C interrupts a call that waits as
if it had been cancelled: it has done nothing, or it is done; no message is lost by it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TypeVar

from quicbus import limits
from quicbus.client.api import connect as connect_async
from quicbus.exceptions import ClientClosed, WaitTimeout

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from quicbus.client.api import Client as AsyncClient
    from quicbus.client.events import Event, EventFeed, Status
    from quicbus.client.message import Message as AsyncMessage
    from quicbus.client.peers import Peer
    from quicbus.client.statistics import ClientStatistics, SubscriptionStatistics
    from quicbus.client.subscription import Subscription as AsyncSubscription
    from quicbus.identity import Credential

__all__ = ["Client", "Events", "Message", "Subscription", "connect"]

T = TypeVar("T")
Function = TypeVar("Function", bound="Callable[[Message], object]")


def connect(
    *urls: str,
    credentials: str | os.PathLike[str] | Credential | None = None,
    name: str | None = None,
    engine: str | None = None,
    connect_timeout_s: float = 10.0,
    stall_timeout_s: float = 10.0,
    offline_buffer_size: int = limits.OFFLINE_BUFFER_SIZE,
    qlog_dir: str | os.PathLike[str] | None = None,
) -> Client:
    """Connect and return the client; options and exceptions are those of `quicbus.connect`. Close it, or use `with`."""
    connecting = connect_async(
        *urls,
        credentials=credentials,
        name=name,
        engine=engine,
        connect_timeout_s=connect_timeout_s,
        stall_timeout_s=stall_timeout_s,
        offline_buffer_size=offline_buffer_size,
        qlog_dir=qlog_dir,
    )

    async def wait() -> AsyncClient:
        return await connecting

    thread = _LoopThread(f"quicbus[{name or ''}]")
    try:
        return Client(thread, thread.run(wait()))
    except BaseException:
        thread.stop()
        raise


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._stop = asyncio.Event()
        self._lock = threading.Lock()
        self._is_stopped = False
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop and wait for it; an interrupt (Ctrl-C) cancels it and waits until it is cancelled."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking call in the client's own thread would wait for itself")
        with self._lock:
            if self._is_stopped:
                work.close()
                raise ClientClosed
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # does nothing where the exception came out of it
            raise

    def stop(self) -> None:
        """End the loop and the thread; may be called twice."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._stop.wait())


class Message:
    """A received message; as `quicbus.Message`, with a `reply` that waits."""

    __slots__ = ("_message", "_thread")

    def __init__(self, message: AsyncMessage, thread: _LoopThread) -> None:
        self._message = message
        self._thread = thread

    @property
    def topic(self) -> str:
        return self._message.topic

    @property
    def payload(self) -> bytes:
        return self._message.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers

    @property
    def reply_to(self) -> str | None:
        return self._message.reply_to

    @property
    def publisher(self) -> str:
        return self._message.publisher

    @property
    def id(self) -> str:
        return self._message.id

    def text(self) -> str:
        return self._message.text()

    def reply(self, payload: bytes | str, *, headers: Mapping[str, str] | None = None) -> None:
        self._thread.run(self._message.reply(payload, headers=headers))

    def __repr__(self) -> str:
        return repr(self._message)


class Subscription:
    """An iterator over messages; as `quicbus.Subscription`. Enter it, or iterate: then the broker has confirmed it."""

    def __init__(self, thread: _LoopThread, subscription: AsyncSubscription) -> None:
        self._thread = thread
        self._subscription = subscription
        self._ready: deque[AsyncMessage] = deque()

    @property
    def filter(self) -> str:
        return self._subscription.filter

    @property
    def group(self) -> str | None:
        return self._subscription.group

    @property
    def dropped(self) -> int:
        return self._subscription.dropped

    @property
    def pending(self) -> int:
        return self._subscription.pending + len(self._ready)

    def statistics(self) -> SubscriptionStatistics:
        return self._subscription.statistics()

    def __enter__(self) -> Self:
        self._thread.run(self._subscription.__aenter__())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        try:
            return self.next()
        except ClientClosed:
            if self._subscription.is_closed:
                raise StopIteration from None
            raise

    def next(self, timeout: float | None = None) -> Message:
        """Return the next message; raises `WaitTimeout` after `timeout` seconds."""
        while True:
            try:
                return Message(self._ready.popleft(), self._thread)
            except IndexError:
                self._thread.run(self._fill(timeout))

    def batches(self) -> Iterator[list[Message]]:
        """Iterate over lists of messages: all that is there each time, at least one."""
        try:
            while True:
                messages = [self.next()]
                while self._ready:
                    try:
                        messages.append(Message(self._ready.popleft(), self._thread))
                    except IndexError:  # another thread took it
                        break
                yield messages
        except ClientClosed:
            if not self._subscription.is_closed:
                raise

    def wait_spread(self, timeout: float | None = None) -> int:
        return self._thread.run(self._subscription.wait_spread(timeout))

    def close(self) -> None:
        """Leave; closing twice is fine, also after the client."""
        self._ready.clear()
        try:
            self._thread.run(self._subscription.close())
        except ClientClosed:
            pass

    async def _fill(self, timeout: float | None) -> None:
        """Move a batch over. It happens in the loop: an interrupted caller finds it the next time."""
        try:
            async with asyncio.timeout(timeout):
                async for messages in self._subscription.batches():
                    self._ready.extend(messages)
                    return
        except TimeoutError:
            assert timeout is not None
            raise WaitTimeout(f"subscription to {self.filter!r}", timeout) from None
        raise ClientClosed("subscription")


class Events:
    """What `bus.events()` returns: an iterator that ends when the client is closed."""

    def __init__(self, thread: _LoopThread, feed: EventFeed) -> None:
        self._thread = thread
        self._feed = feed

    @property
    def missed(self) -> int:
        return self._feed.missed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            event = self._thread.run(self._next())
        except ClientClosed:
            event = self._feed.take()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        self._thread.loop.call_soon_threadsafe(self._feed.close)

    async def _next(self) -> Event | None:
        return await anext(self._feed, None)


class Client:
    """As `quicbus.Client`, for any number of threads."""

    def __init__(self, thread: _LoopThread, client: AsyncClient) -> None:
        self._thread = thread
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def status(self) -> Status:
        return self._client.status

    @property
    def name(self) -> str:
        return self._client.name

    @property
    def max_message_size(self) -> int:
        return self._client.max_message_size

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        expires_in: float | None = None,
    ) -> None:
        """Publish; waits while the broker or the network is behind. A thread that publishes much is held up by each
        call's way through the loop's thread (tens of microseconds): the asynchronous client is made for rates."""
        self._thread.run(
            self._client.publish(topic, payload, headers=headers, reply_to=reply_to, expires_in=expires_in)
        )

    def publish_nowait(
        self,
        topic: str,
        payload: bytes | str,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        expires_in: float | None = None,
    ) -> None:
        """As `publish`, but raises `WouldBlock` where it would have to wait for credit."""

        async def call() -> None:
            self._client.publish_nowait(topic, payload, headers=headers, reply_to=reply_to, expires_in=expires_in)

        self._thread.run(call())

    def flush(self, timeout: float | None = None) -> None:
        self._thread.run(self._client.flush(timeout))

    def request(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 10.0,
    ) -> Message:
        reply = self._thread.run(self._client.request(topic, payload, headers=headers, timeout=timeout))
        return Message(reply, self._thread)

    def subscribe(
        self,
        filter: str,
        *,
        group: str | None = None,
        overflow: str = "drop_oldest",
        max_pending: int = limits.MAX_PENDING,
        max_pending_bytes: int = limits.MAX_PENDING_SIZE,
    ) -> Subscription:
        subscription = self._client.subscribe(
            filter, group=group, overflow=overflow, max_pending=max_pending, max_pending_bytes=max_pending_bytes
        )
        return Subscription(self._thread, subscription)

    def on(self, filter: str, *, concurrency: int = 1, **options: Any) -> Callable[[Function], Function]:
        """Decorate a function that is called for each message, in threads: at most `concurrency` calls at a time."""

        def decorate(function: Function) -> Function:
            async def call(message: AsyncMessage) -> None:
                await asyncio.to_thread(function, Message(message, self._thread))

            call.__qualname__ = getattr(function, "__qualname__", repr(function))

            async def register() -> None:
                self._client.on(filter, concurrency=concurrency, **options)(call)

            if inspect.iscoroutinefunction(function):
                raise TypeError("handlers of the blocking client are plain functions")
            self._thread.run(register())
            return function

        return decorate

    def wait_handlers(self) -> None:
        self._thread.run(self._client.wait_handlers())

    def events(self) -> Events:
        async def open_feed() -> EventFeed:
            return self._client.events()

        return Events(self._thread, self._thread.run(open_feed()))

    def statistics(self) -> ClientStatistics:
        try:
            return self._thread.run(self._statistics())
        except ClientClosed:
            return self._client.statistics()

    def ping(self, timeout: float | None = None) -> float:
        return self._thread.run(self._client.ping(timeout))

    def peers(self, timeout: float | None = None) -> list[Peer]:
        return self._thread.run(self._client.peers(timeout))

    def close(self, timeout: float = 5.0) -> None:
        """As `quicbus.Client.close`; then the thread ends. Closing twice is fine, also from several threads."""
        try:
            self._thread.run(self._client.close(timeout))
        except ClientClosed:
            pass
        finally:
            self._thread.stop()

    async def _statistics(self) -> ClientStatistics:
        return self._client.statistics()
