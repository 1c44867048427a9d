"""The interface that applications hold: `connect` and `Client`."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from quicbus import limits
from quicbus.client.dialing import EndpointDialer, MemoryDialer
from quicbus.client.handlers import Handlers
from quicbus.client.link import Link
from quicbus.client.peers import peer_of
from quicbus.client.renewal import CredentialRenewal, CredentialSource
from quicbus.client.statistics import ClientStatistics
from quicbus.client.subscription import Subscription
from quicbus.client.supervisor import Supervisor
from quicbus.client.trust import ClientTrust
from quicbus.client.trust_file import TrustFile
from quicbus.client.urls import BrokerUrl, parse_urls
from quicbus.exceptions import InvalidSetting, QuicbusError
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from quicbus.client.dialing import Dialer
    from quicbus.client.enrolment import CertificateOffice
    from quicbus.client.events import EventFeed, Status
    from quicbus.client.message import Message
    from quicbus.client.peers import Peer
    from quicbus.identity import Credential
    from quicbus.transport.connection import Address
    from quicbus.transport.engine import Engine
    from quicbus.transport.network import Network

__all__ = ["Client", "Connecting", "connect", "connect_in_process"]

_log = logging.getLogger("quicbus.client")

CLOSE_TIMEOUT_S = 5.0
ENGINES = ("auto", "aioquic", "qh3")
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
) -> Connecting:
    """Connect to a broker: `async with connect(...) as bus`, or `bus = await connect(...)` and `await bus.close()`.

    `urls` are tried in turn; without any, those in `QUICBUS_URL`, then `quic://localhost:4433`. `credentials` is a
    credential file; without it the one in `QUICBUS_CREDENTIALS`, then the local user's in the data folder. It is read
    again for each connection, and renewed and rewritten by the client in the last third of its life, or when it has
    expired not long ago (`CredentialRenewed`, `CredentialExpiring`). `name` is a label for the broker's log. `engine`
    is `auto`, `aioquic` or `qh3`; without it `QUICBUS_ENGINE`, then `auto`.

    Raises `InvalidSetting` here; when entered or awaited `CredentialError`, `CredentialRefused` at once, and
    `ConnectFailed` after `connect_timeout_s` with each URL and its cause. After the first connection the client
    connects again by itself for ever, unless its credential is refused. A broker that is silent for `stall_timeout_s`
    counts as lost. Publishing while disconnected is buffered up to `offline_buffer_size` bytes, then waits.
    """
    brokers = parse_urls(urls, os.environ.get("QUICBUS_URL"))
    engine_name = engine or os.environ.get("QUICBUS_ENGINE") or "auto"
    if engine_name not in ENGINES:
        where = "" if engine else "QUICBUS_ENGINE"
        raise InvalidSetting("engine", f"{engine_name!r} is not one of {', '.join(ENGINES)}", where)
    for setting, value in (("connect_timeout_s", connect_timeout_s), ("stall_timeout_s", stall_timeout_s)):
        if not 0 < value <= limits.MAX_TIME_S:
            why = f"seconds above 0 and up to {limits.MAX_TIME_S} are allowed, not {value!r}"
            raise InvalidSetting(setting, why)
    if offline_buffer_size < 0:
        raise InvalidSetting("offline_buffer_size", f"0 or more bytes are allowed, not {offline_buffer_size!r}")
    qlog = Path(qlog_dir) if qlog_dir is not None else None

    def make() -> Client:
        source = CredentialSource(credentials)
        renewal = CredentialRenewal(source, lambda: _office(engine_name, qlog))
        return Client(
            EndpointDialer(
                engine_name,
                lambda: source.load(allow_expired=True),
                stall_timeout_s=stall_timeout_s,
                qlog_dir=qlog,
                renewal=renewal,
                trust=ClientTrust(TrustFile(source.path) if source.path is not None else None),
            ),
            brokers,
            name=name or "",
            connect_timeout_s=connect_timeout_s,
            stall_timeout_s=stall_timeout_s,
            offline_buffer_size=offline_buffer_size,
            renewal=renewal,
        )

    return Connecting(make)


def _office(engine: str, qlog_dir: Path | None) -> CertificateOffice:
    from quicbus.client.enrolment import CertificateOffice
    from quicbus.transport.engines import engine_named

    return CertificateOffice(engine_named(engine), qlog_dir=qlog_dir)


def connect_in_process(network: Network, engine: Engine, address: Address, *, name: str = "in-process") -> Connecting:
    """Connect over the memory network to a broker that listens at `address` on it and asks for no proof."""
    url = BrokerUrl(address[0], address[1])
    return Connecting(lambda: Client(MemoryDialer(network, engine, address), [url], name=name))


class Connecting:
    """What `connect` returns: await it, or enter it. Each of it once."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._client: Client | None = None

    def __await__(self) -> Generator[object, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._open()
        return self._client

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._client is not None
        await self._client.close()

    async def _open(self) -> Client:
        client = self._make()
        await client._start()
        return client


class Client:
    """A connection to the bus that outlives the connections to its brokers. Made by `connect`.

    Use it from the event loop it was made in. It may be shared by any number of tasks.
    """

    def __init__(
        self,
        dialer: Dialer,
        urls: Sequence[BrokerUrl],
        *,
        name: str = "",
        connect_timeout_s: float = 10.0,
        stall_timeout_s: float = 10.0,
        offline_buffer_size: int = limits.OFFLINE_BUFFER_SIZE,
        rng: random.Random | None = None,
        renewal: CredentialRenewal | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._name = name
        self._dialer = dialer
        self._link = Link(loop.time, offline_buffer_size=offline_buffer_size)
        self._handlers = Handlers(self._link)
        self._supervisor = Supervisor(
            self._link,
            dialer,
            urls,
            bus=self,
            name=name,
            connect_timeout_s=connect_timeout_s,
            stall_timeout_s=stall_timeout_s,
            rng=rng or random.Random(),  # noqa: S311 (jitter of pauses)
        )
        self._append = self._link.publisher.append
        self._renewal = renewal
        if renewal is not None:
            renewal.report = self._link.report
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Future[None] | None = None

    # --- publishing

    async def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        expires_in: float | None = None,
    ) -> None:
        """Publish; returns once the client has taken the message within its credit, not when the broker has it.

        Waits when the broker or the network is behind, or when the offline buffer is full. A cancelled call has
        published nothing. `expires_in`: seconds after which nobody is given it any more. Raises `InvalidTopic`,
        `MessageTooLarge`, `LimitExceeded` (headers), `NotPermitted` where the broker has said so, `ClientClosed`,
        `CredentialRefused`. What the broker refuses later, `flush` raises.
        """
        if headers is None and reply_to is None and expires_in is None and self._append(topic, payload):
            return
        await self._link.publish(topic, payload, headers=headers, reply_to=reply_to, expires_in=expires_in)

    def publish_nowait(
        self,
        topic: str,
        payload: bytes | str,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        expires_in: float | None = None,
    ) -> None:
        """As `publish`, but raises `WouldBlock` rather than wait. Give the event loop a turn now and then."""
        self._link.publish_nowait(topic, payload, headers=headers, reply_to=reply_to, expires_in=expires_in)

    async def flush(self, timeout: float | None = None) -> None:
        """Return once the broker has taken all that was published before; while disconnected, wait for the next one.

        Raises what it refused since the last `flush` (`PublishRefused`, `NotPermitted`, `MessageTooLarge`),
        `ConnectionLost` when messages were on their way over a connection that was lost (they are counted as
        `possibly_lost`), and `WaitTimeout` after `timeout` seconds.
        """
        await self._link.flush(timeout)

    # --- requests

    async def request(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 10.0,
    ) -> Message:
        """Publish and return the first reply. Raises `NoResponders` at once where nobody subscribes to `topic`,
        `RequestTimeout` after `timeout` seconds, `ConnectionLost` when the reply can't come any more."""
        return await self._link.requests.request(topic, payload, headers=headers, timeout=timeout)

    # --- subscribing

    def subscribe(
        self,
        filter: str,
        *,
        group: str | None = None,
        overflow: str = "drop_oldest",
        max_pending: int = limits.MAX_PENDING,
        max_pending_bytes: int = limits.MAX_PENDING_SIZE,
    ) -> Subscription:
        """Subscribe to all topics that match `filter`. Enter what is returned: then the broker has confirmed it.

        `group`: each message goes to one member of the group only. `overflow` says what happens when more than
        `max_pending` messages or `max_pending_bytes` wait for this subscriber: `drop_oldest`, `drop_newest`, `block`
        (publishers wait, nothing is lost; after 30 s without progress the subscription ends) or `disconnect` (it ends
        at once). More allows longer pauses and costs memory, half of it here and half at the broker.
        """
        self._link.raise_failure()
        return Subscription(
            self._link,
            filter,
            group=group,
            overflow=overflow,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
        )

    def on(
        self,
        filter: str,
        *,
        concurrency: int = 1,
        group: str | None = None,
        overflow: str = "drop_oldest",
        max_pending: int = limits.MAX_PENDING,
        max_pending_bytes: int = limits.MAX_PENDING_SIZE,
    ) -> Callable[[Function], Function]:
        """Decorate a function (async or not) that is called for each message, at most `concurrency` calls at a time.

        When it raises, that is logged and reported as `HandlerFailed`, and it goes on with the next message. It runs
        until the client is closed; `await bus.wait_handlers()` returns once the broker has confirmed.
        """

        def decorate(function: Function) -> Function:
            subscription = self.subscribe(
                filter, group=group, overflow=overflow, max_pending=max_pending, max_pending_bytes=max_pending_bytes
            )
            self._handlers.add(subscription, function, concurrency)
            return function

        return decorate

    async def wait_handlers(self) -> None:
        """Return once the broker has confirmed the subscriptions of all handlers; raises what it said otherwise."""
        await self._handlers.wait_ready()

    # --- what is going on

    @property
    def status(self) -> Status:
        return self._link.status

    @property
    def name(self) -> str:
        """The verified name in the certificate while connected, else the label given to `connect`."""
        session = self._link.session
        return session.acceptance.name if session and session.acceptance else self._name

    @property
    def max_message_size(self) -> int:
        """Bytes of payload that the broker takes."""
        return self._link.publisher.max_message_size

    def events(self) -> EventFeed:
        """Return an async iterator over `Connected`, `Disconnected`, `Gap`, … from now on; it ends with the client."""
        return self._link.events.open()

    def statistics(self) -> ClientStatistics:
        link = self._link
        books = link.publisher.books()
        return ClientStatistics(
            status=link.status,
            published=books.published,
            accepted=books.accepted,
            refused=books.refused,
            dropped_while_disconnected=books.dropped_while_disconnected,
            possibly_lost=books.possibly_lost,
            in_flight=books.in_flight,
            buffered=books.buffered,
            reconnects=max(0, link.reconnects),
            subscriptions=tuple(subscription.statistics() for subscription in link.subscriptions),
            connection=link.session.connection.statistics() if link.session else None,
            cert_expires_in_seconds=self._renewal.expires_in_s if self._renewal else None,
        )

    async def ping(self, timeout: float | None = None) -> float:
        """Return the seconds that the broker took to answer. Raises `ConnectionLost`, and `WaitTimeout`."""
        return await self._link.ping(timeout)

    async def peers(self, timeout: float | None = None) -> list[Peer]:
        """Return the nodes of the mesh as the connected broker sees them, itself included, alive ones or not.

        While disconnected it waits for the next broker. Raises `WaitTimeout` after `timeout` seconds.
        """
        return [peer_of(entry) for entry in await self._link.peers(timeout)]

    # --- closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Let handlers end, send what is buffered, and say goodbye; all of it within about `timeout` seconds.

        What could not be sent, and what the broker had not told of, is counted in `statistics()`. Closing twice is
        fine. Afterwards every call raises `ClientClosed`, and so do iterators once they have given what had arrived.
        """
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return
        self._closing = asyncio.get_running_loop().create_future()
        try:
            await self._leave(timeout)
        finally:
            try:
                await self._release()
            finally:
                self._closing.set_result(None)

    async def _start(self) -> None:
        try:
            await self._supervisor.connect()
        except BaseException:
            await self.close(timeout=0)
            raise
        self._tasks.append(asyncio.create_task(self._supervisor.run(), name=f"quicbus-client[{self._name}]"))
        if self._renewal is not None:
            keeping = self._renewal.run(self._supervisor.urls)
            self._tasks.append(asyncio.create_task(keeping, name=f"quicbus-credential[{self._name}]"))

    async def _leave(self, timeout: float) -> None:
        """Hand over what there is, in order."""
        await self._handlers.close(timeout)
        session = self._link.session
        if session is None or timeout <= 0:
            return
        try:
            async with asyncio.timeout(timeout):
                try:
                    await self._link.flush()
                except QuicbusError as error:
                    _log.warning("! not all that was published was taken: %s", error, extra=self._link.named)
                self._supervisor.is_drained.clear()
                session.go_away("the client closes", timeout)
                if not session.is_closed:
                    await self._supervisor.is_drained.wait()
        except TimeoutError:
            books = self._link.publisher.books()
            _log.warning("! the broker did not take all within %g s: %s", timeout, books, extra=self._link.named)

    async def _release(self) -> None:
        """Stop everything that runs; nothing of it waits long."""
        tasks, self._tasks = self._tasks, []
        try:
            for task in tasks:
                task.cancel()
            if tasks:
                # Awaiting the tasks themselves could not tell their cancellation from that of the caller.
                await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.result()
        finally:
            session = self._link.session
            if session is not None:
                session.close(CloseCode.GOODBYE)
                self._link.leave(session)
            self._link.close()
            await self._dialer.close()
