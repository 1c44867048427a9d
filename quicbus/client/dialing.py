"""How a client reaches brokers: names to addresses, one endpoint that is opened when first needed, one credential."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Protocol

from quicbus.client.trust import ClientTrust
from quicbus.exceptions import ConnectionFailed, CredentialError
from quicbus.transport.engine import EngineConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quicbus.client.renewal import CredentialRenewal
    from quicbus.client.session_ports import Prove, SessionTrust
    from quicbus.client.urls import BrokerUrl
    from quicbus.identity import Credential
    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.endpoint import Endpoint, EndpointSettings
    from quicbus.transport.engine import Engine
    from quicbus.transport.network import Network

__all__ = ["ALPN", "Dialer", "EndpointDialer", "MemoryDialer"]

_log = logging.getLogger("quicbus.client")

ALPN = "quicbus/1"


class Dialer(Protocol):
    """What the supervisor dials through. All methods are called from one event loop."""

    @property
    def prove(self) -> Prove | None:
        """How sessions prove who they are; `None` where no proof is wanted."""
        ...

    @property
    def trust(self) -> SessionTrust | None:
        """Whom sessions trust; `None` where that is no question."""
        ...

    async def resolve(self, url: BrokerUrl) -> list[Address]:
        """Raises `ConnectionFailed` where the name has no address."""
        ...

    async def dial(self, address: Address, make_handler: Callable[[Connection], ConnectionHandler]) -> Connection:
        """Begin a connection; raises `ConnectionFailed` where that is impossible, `CredentialError` without one."""
        ...

    async def close(self) -> None: ...


class EndpointDialer:
    """Over UDP, with TLS. `load` is called for each connection: the credential may have been renewed on disk.

    With `renewal` one that has expired is renewed before it is dialed with.
    """

    def __init__(
        self,
        engine: str,
        load: Callable[[], Credential],
        *,
        stall_timeout_s: float,
        qlog_dir: Path | None = None,
        renewal: CredentialRenewal | None = None,
        trust: ClientTrust | None = None,
    ) -> None:
        self._engine_name = engine
        self._load = load
        self._credential = load()
        self._trust = trust or ClientTrust()
        self._stall_timeout_s = stall_timeout_s
        self._qlog_dir = qlog_dir
        self._renewal = renewal
        self._trust.on_learned = self._keep_soon
        self._keeping: asyncio.Task[None] | None = None
        self._endpoint: Endpoint | None = None
        self._opening = asyncio.Lock()

    @property
    def prove(self) -> Prove | None:
        return self._prove

    @property
    def trust(self) -> SessionTrust | None:
        return self._trust

    async def resolve(self, url: BrokerUrl) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise ConnectionFailed(f"the name {url.host!r} has no address ({error})") from None
        return list(dict.fromkeys(_address(sockaddr) for _, _, _, _, sockaddr in found))

    async def dial(self, address: Address, make_handler: Callable[[Connection], ConnectionHandler]) -> Connection:
        endpoint = await self._open()
        if self._renewal is not None:
            await self._renewal.revive(address)
        self._renew()
        try:
            return endpoint.dial(address, self._configuration(), make_handler)
        except OSError as error:
            raise ConnectionFailed(f"{address[0]}: {error.strerror or error}") from None

    async def close(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()
        if self._keeping is not None:
            await asyncio.wait((self._keeping,))

    def _keep_soon(self) -> None:
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep_trust(), name="quicbus-trust")

    async def _keep_trust(self) -> None:
        while self._trust.is_to_keep:
            self._trust.is_to_keep = False
            await asyncio.to_thread(self._trust.keep)

    def _prove(self, channel_binding: bytes) -> tuple[list[bytes], bytes]:
        from quicbus.identity import sign_proof

        with contextlib.suppress(CredentialError):  # the broker says what is wrong with the one that there is
            self._renew()
        return self._credential.chain_der, sign_proof(self._credential, channel_binding, "client")

    def _renew(self) -> None:
        """Read the credential again; raises `CredentialError` where the one that there is has ended."""
        try:
            self._credential = self._load()
        except CredentialError as error:
            _log.warning("= going on with the credential as it was: %s", error)
        self._credential.check()

    def _configuration(self) -> EngineConfiguration:
        self._trust.follow(self._credential)
        return EngineConfiguration(
            is_client=True,
            alpn=ALPN,
            authority=self._trust.authority_pem,
            server_name=self._credential.server_name,
            qlog_dir=self._qlog_dir,
        )

    async def _open(self) -> Endpoint:
        async with self._opening:
            if self._endpoint is not None:
                return self._endpoint
            from quicbus.transport.endpoint import Endpoint
            from quicbus.transport.engines import engine_named

            settings = _endpoint_settings(self._stall_timeout_s, self._qlog_dir)
            try:
                endpoint = await Endpoint.open(bind=None, engine=engine_named(self._engine_name), settings=settings)
            except OSError as error:
                raise ConnectionFailed(f"no UDP socket: {error}") from error
            self._endpoint = endpoint
            return endpoint


class MemoryDialer:
    """To a broker in the same process: no UDP, no TLS, no proof."""

    def __init__(self, network: Network, engine: Engine, address: Address) -> None:
        self._network = network
        self._engine = engine
        self._address = address
        self._endpoint: Endpoint | None = None

    @property
    def prove(self) -> Prove | None:
        return None

    @property
    def trust(self) -> SessionTrust | None:
        return None

    async def resolve(self, url: BrokerUrl) -> list[Address]:
        return [self._address]

    async def dial(self, address: Address, make_handler: Callable[[Connection], ConnectionHandler]) -> Connection:
        from quicbus.transport.endpoint import Endpoint

        if self._endpoint is None:
            bind = (self._address[0], 0)
            self._endpoint = await Endpoint.open(bind=bind, engine=self._engine, network=self._network)
        configuration = EngineConfiguration(is_client=True, alpn=ALPN)
        return self._endpoint.dial(address, configuration, make_handler)

    async def close(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()


def _endpoint_settings(stall_timeout_s: float, qlog_dir: Path | None) -> EndpointSettings:
    from quicbus.transport.settings import EndpointSettings

    # The transport gives up after the client has: then the client says why.
    return EndpointSettings(idle_timeout_s=max(30.0, 2 * stall_timeout_s), qlog_dir=qlog_dir)


def _address(sockaddr: tuple[object, ...]) -> Address:
    return str(sockaddr[0]), int(str(sockaddr[1]))
