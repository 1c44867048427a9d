"""Getting certificates over the network: joining with a token, and renewing (`quicbus-join/1`).

The listener is verified by TLS before anything is sent, against the authorities in the token or in the credential that
is renewed. What is issued is taken only where it is for the own key, role and mesh, and leads to an authority that was
trusted before, or that such a one vouches for in the trust list.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.client.urls import parse_url
from quicbus.exceptions import (
    AuthorityUnavailable,
    ConnectFailed,
    ConnectionFailed,
    CredentialError,
    CredentialRefused,
    ProtocolViolation,
)
from quicbus.identity import Credential, JoinToken, server_name_of
from quicbus.identity.issuing import Issued, IssueRequest
from quicbus.identity.requests import make_request
from quicbus.identity.trust import TrustStore
from quicbus.transport.connection import shown_address
from quicbus.transport.endpoint import Endpoint, EndpointSettings
from quicbus.transport.engine import EngineConfiguration
from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode
from quicbus.wire.frames import STREAM_TYPE_CONTROL, FrameParser, encode_frame
from quicbus.wire.join_frames import JOIN_ALPN, JOIN_FRAME_TYPES, JOIN_VERSION, Joined, JoinRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.client.urls import BrokerUrl
    from quicbus.transport.connection import Address, Connection
    from quicbus.transport.engine import Engine, Terminated
    from quicbus.transport.network import Network

__all__ = ["Answer", "CertificateOffice", "joined_credential", "read_token", "renewal_request", "renewed_credential"]

_log = logging.getLogger("quicbus.client")

AGENT = "quicbus-python/0.1"
HANDSHAKE_TIMEOUT_S = 5.0
"""For one address: QUIC itself repeats a lost first datagram several times in it."""
ANSWER_TIMEOUT_S = limits.JOIN_ANSWER_TIMEOUT_S + 5.0
"""The node that was dialed waits for the authority for a little less."""
_MAX_FILE_SIZE = 64 * 1024
_REMEDY = "does that broker run, and does UDP get there? `quicbus doctor {url}` looks; then the same command again"
_TLS_REFUSALS = frozenset(0x100 + alert for alert in (40, 42, 43, 45, 46, 48, 51, 120))
"""Handshake failure (qh3: no common ALPN), bad certificate, unsupported, expired, unknown, unknown authority, bad
signature, no common ALPN."""


class Answer(msgspec.Struct, frozen=True):
    """What a node answered, not yet compared with what was asked for."""

    issued: Issued
    brokers: tuple[str, ...]
    """URLs of brokers of the mesh, the one that answered first."""


class CertificateOffice:
    """Dials nodes for certificates, from a socket of its own for each request. May be used again and again."""

    def __init__(self, engine: Engine, *, network: Network | None = None, qlog_dir: Path | None = None) -> None:
        self._engine = engine
        self._network = network
        self._qlog_dir = qlog_dir

    async def join(self, token: JoinToken, csr: bytes, local_csr: bytes = b"") -> Answer:
        """Redeem a token for the certificate of the key of `csr`; with `local_csr`, a node's local credential too.

        Asking again with the same key, after an answer was lost, uses up nothing more. Raises `CredentialRefused`
        with the sentence of who refused, `AuthorityUnavailable` where it may work later, and `ConnectFailed` with
        each seed and its cause. What was issued is to be checked: `Credential.from_issued`, `PreparedFolder.install`.
        """
        request = IssueRequest(csr=csr, token_id=token.id, signature=token.sign(csr, local_csr), local_csr=local_csr)
        urls = [parse_url(f"quic://{seed}", "token") for seed in token.seeds]
        return await self._ask(urls, token.authorities_pem, token.mesh, request)

    async def renew(self, credential: Credential, urls: Sequence[BrokerUrl]) -> Credential:
        """Return the credential with a new certificate for the same key; the old one may have expired not long ago.

        Raises as `join` does, and `CredentialError` where what was issued does not fit.
        """
        return renewed_credential(credential, await self.renewal(credential, urls), dt.datetime.now(dt.UTC))

    async def renewal(self, credential: Credential, urls: Sequence[BrokerUrl]) -> Issued:
        """Return what is issued for a renewal, unchecked; raises as `join` does."""
        answer = await self._ask(urls, credential.authority_pem, credential.mesh, renewal_request(credential))
        return answer.issued

    async def _ask(self, urls: Sequence[BrokerUrl], authority_pem: bytes, mesh: str, request: IssueRequest) -> Answer:
        """Ask one node after the other, until one has the answer or a refusal that all would give."""
        causes: list[tuple[str, str]] = []
        unavailable: AuthorityUnavailable | None = None
        configuration = EngineConfiguration(
            is_client=True,
            alpn=JOIN_ALPN,
            authority=authority_pem,
            server_name=server_name_of(mesh),
            qlog_dir=self._qlog_dir,
        )
        frame = encode_frame(JoinRequest(version=JOIN_VERSION, agent=AGENT, request=request.encode()))
        for url in urls:
            try:
                joined = await self._ask_url(url, configuration, frame)
                issued = Issued.decode(joined.issued)
                return Answer(issued, tuple(dict.fromkeys((str(url), *joined.brokers))))
            except AuthorityUnavailable as error:
                unavailable = error
            except (ConnectionFailed, ProtocolViolation) as error:
                causes.append((str(url), str(error)))
            _log.info("= %s gave no certificate", url, extra={"peer": str(url)})
        raise unavailable or ConnectFailed(causes, _REMEDY.format(url=urls[0]))

    async def _ask_url(self, url: BrokerUrl, configuration: EngineConfiguration, frame: bytes) -> Joined:
        failure = ConnectionFailed(f"the name {url.host!r} has no address")
        for address in await self._resolve(url):
            try:
                return await self._ask_address(address, configuration, frame)
            except AuthorityUnavailable:
                raise
            except ConnectionFailed as error:
                failure = error
        raise failure

    async def _resolve(self, url: BrokerUrl) -> list[Address]:
        if self._network is not None:
            return [(url.host, url.port)]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise ConnectionFailed(f"the name {url.host!r} has no address ({error})") from None
        return list(dict.fromkeys((str(one[4][0]), int(str(one[4][1]))) for one in found))

    async def _ask_address(self, address: Address, configuration: EngineConfiguration, frame: bytes) -> Joined:
        asking = _Asking(frame)
        settings = EndpointSettings(handshake_timeout_s=HANDSHAKE_TIMEOUT_S)
        try:
            endpoint = await Endpoint.open(bind=None, engine=self._engine, settings=settings, network=self._network)
        except OSError as error:
            raise ConnectionFailed(f"no UDP socket: {error}") from error
        async with endpoint:
            try:
                connection = endpoint.dial(address, configuration, asking.on)
            except OSError as error:
                raise ConnectionFailed(f"{shown_address(address)}: {error.strerror or error}") from None
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    return await asking.answer
            except TimeoutError:
                raise AuthorityUnavailable(
                    f"the node at {shown_address(address)} did not answer within {ANSWER_TIMEOUT_S:g} s; try again"
                ) from None
            finally:
                connection.close(CloseCode.GOODBYE, "")


def read_token(given: str, now: dt.datetime | None = None) -> JoinToken:
    """Return the token that a text or a file holds; raises `CredentialError` for one that is none or has expired.

    `now` decides about expiry and is the clock's unless given. Reads a file.
    """
    if not given.strip():
        raise CredentialError("the join token is empty; give the one that `quicbus token create` printed, or its file")
    if not given.strip().startswith("qbt"):
        path = Path(given).expanduser()
        try:
            with path.open(encoding="ascii", errors="replace") as file:
                given = file.read(_MAX_FILE_SIZE)
        except OSError as error:
            raise CredentialError(
                f"neither a join token (one begins with qbt1-) nor a file that can be read: {given[:80]!r} "
                f"({error.strerror or error}); make a token with `quicbus token create`"
            ) from None
        if not given.strip():
            raise CredentialError(f"{path}: there is no token in it; `quicbus token create` prints one")
    return JoinToken.parse(given, now)


def renewal_request(credential: Credential) -> IssueRequest:
    """Return what asks for a new certificate for the same key."""
    return IssueRequest(csr=make_request(credential.private_key), chain=tuple(credential.chain_der))


def joined_credential(token: JoinToken, key: ec.EllipticCurvePrivateKey, issued: Issued) -> Credential:
    """Return the credential that a token was redeemed for; raises `CredentialError` where that does not fit it."""
    now = dt.datetime.now(dt.UTC)
    source = "what was issued"
    trust = _trust(token.mesh, token.authorities_pem, issued, now)
    credential = Credential.from_issued(key, issued.chain, trust.authorities, source)
    credential.check(source, role=token.role, now=now)
    if credential.mesh != token.mesh:
        raise CredentialError(f"{source} is of mesh {credential.mesh}, not {token.mesh}; try another node of the mesh")
    return credential


def renewed_credential(credential: Credential, issued: Issued, now: dt.datetime) -> Credential:
    """Return the credential with what was issued for it; raises `CredentialError` where that does not fit.

    New authorities are taken from the trust list only, which one that was trusted before must have signed.
    """
    source = "the renewed certificate"
    trust = _trust(credential.mesh, credential.authority_pem, issued, now)
    new = Credential.from_issued(credential.private_key, issued.chain, trust.authorities, source)
    new.check(source, role=credential.role, now=now)
    if (new.mesh, new.name) != (credential.mesh, credential.name):
        raise CredentialError(f"{source} is for {new.name} of mesh {new.mesh}; try another node of the mesh")
    return new


def _trust(mesh: str, authority_pem: bytes, issued: Issued, now: dt.datetime) -> TrustStore:
    trust = TrustStore(mesh, authority_pem)
    if issued.trust:
        trust.take(issued.trust, now)
    return trust


class _Asking:
    """A `ConnectionHandler` that sends one frame and waits for one. `answer` is there when it is over."""

    def __init__(self, frame: bytes) -> None:
        self.answer: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()
        self._frame = frame
        self._connection: Connection | None = None
        self._frames = FrameParser(limits.MAX_JOINED_SIZE, JOIN_FRAME_TYPES)
        self._streams: set[int] = set()

    def on(self, connection: Connection) -> _Asking:
        self._connection = connection
        connection.allow_undelivered(limits.MAX_JOINED_SIZE + limits.UNDELIVERED_BEFORE_PROOF)
        return self

    def negotiated(self) -> None: ...

    def connected(self, channel_binding: bytes) -> None:
        # TLS has verified the listener, and the endpoint that it is a node of the mesh: not before this is anything
        # sent that a stranger could use.
        assert self._connection is not None
        stream = self._connection.open_stream()
        self._connection.send(stream, bytes((STREAM_TYPE_CONTROL,)) + self._frame)

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if self.answer.done():
            return
        try:
            if not self._streams and data:
                if data[0] != STREAM_TYPE_CONTROL:
                    raise ProtocolViolation(f"stream {stream_id} is of unknown type 0x{data[0]:02x}")
                data = data[1:]
            self._streams.add(stream_id)
            if len(self._streams) > 1:
                raise ProtocolViolation("a second stream")
            for frame in self._frames.feed(data):
                if not isinstance(frame, Joined):
                    raise ProtocolViolation(f"{type(frame).__name__} is not for joiners")
                self.answer.set_result(frame)
                return
        except ProtocolViolation as error:
            self._fail(ConnectionFailed(str(error)))

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None:
        self._fail(_failure_of(termination))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()


def _failure_of(termination: Terminated) -> Exception:
    code, reason = termination.code, termination.reason
    if termination.is_application and not termination.is_local:
        if code in CREDENTIAL_CODES:
            return CredentialRefused(code, reason)
        if code == CloseCode.NOT_AVAILABLE:
            return AuthorityUnavailable(reason)
    if termination.is_application and termination.is_local and code in CREDENTIAL_CODES:
        return ConnectionFailed(reason)
    if not termination.is_application and code in _TLS_REFUSALS:
        return ConnectionFailed(
            "no node of this mesh answers there, or one of a version that can't be joined over the network "
            f"(TLS alert {code - 0x100}: {reason or 'the handshake failed'})"
        )
    return ConnectionFailed(reason or "no answer")
