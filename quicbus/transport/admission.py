"""What a listener does with a datagram of no connection: accept, answer without keeping anything, or drop. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus.transport._packets import (
    CONNECTION_ID_SIZE,
    INITIAL_SIZE_MIN,
    PacketType,
    make_retry,
    make_version_negotiation,
    parse_header,
)
from quicbus.transport._retry import RetryTokenRefused, RetryTokens
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.transport._packets import PacketHeader
    from quicbus.transport.connection import Address, Connection
    from quicbus.transport.engine import Terminated
    from quicbus.transport.settings import EndpointSettings

__all__ = ["Accept", "Admission", "Answer", "Drop", "Refusal", "RefusedSession", "Verdict"]

FIRST_ID_SIZE_MIN = 8
"""RFC 9000 section 7.2: of the destination id that a dialer makes up."""
TRY_AGAIN_S = 5


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a connection is closed once its handshake is complete: a close before that tells the dialer nothing."""

    code: CloseCode
    reason: str


@dataclass(frozen=True, slots=True)
class Accept:
    original_destination_connection_id: bytes
    retry_source_connection_id: bytes | None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A datagram to send back, smaller than three times what came."""

    datagram: bytes
    is_retry: bool


@dataclass(frozen=True, slots=True)
class Drop:
    reason: str


Verdict = Accept | Answer | Drop


class Admission:
    """The decisions of one listener. `new_id` makes connection ids for Retry packets."""

    def __init__(
        self,
        settings: EndpointSettings,
        versions: tuple[int, ...],
        new_id: Callable[[int], bytes],
        tokens: RetryTokens | None = None,
    ) -> None:
        self._settings = settings
        self._versions = versions
        self._new_id = new_id
        self._tokens = RetryTokens() if tokens is None else tokens
        self.is_stopping = False

    def judge(self, datagram: bytes, address: Address, connections: int, half_open: int, now: float) -> Verdict:
        """Judge a datagram whose destination id is no connection's.

        `connections` and `half_open` count what was accepted. A token that is taken counts as used even when its
        connection then fails.
        """
        header = parse_header(datagram, self._versions)
        if header is None:
            return Drop("garbage")
        if header.type is PacketType.OTHER_VERSION:
            # RFC 9000 section 5.2.2: only for what could begin a connection, or the answer could be the larger one.
            if len(datagram) < INITIAL_SIZE_MIN:
                return Drop("unknown_version")
            return Answer(make_version_negotiation(header, self._versions), is_retry=False)
        if header.type is not PacketType.INITIAL:
            return Drop("unknown_connection")
        if len(datagram) < INITIAL_SIZE_MIN or len(header.destination_connection_id) < FIRST_ID_SIZE_MIN:
            return Drop("short_initial")
        return self._judge_initial(header, address, connections, half_open, now)

    def _judge_initial(
        self, header: PacketHeader, address: Address, connections: int, half_open: int, now: float
    ) -> Verdict:
        retry = self._settings.retry
        wants_proof = retry == "always" or (retry == "auto" and half_open >= self._settings.retry_auto_half_open)
        has_token = bool(header.token) and retry != "never"
        if wants_proof and not has_token:
            return self._retry(header, address, now)
        if half_open >= self._settings.max_half_open:  # Before its token is used up: the dialer sends it again.
            return Drop("half_open_limit")
        original, retry_source = header.destination_connection_id, None
        if has_token:
            try:
                original, retry_source = self._tokens.validate(
                    header.token, address, header.destination_connection_id, now
                )
            except RetryTokenRefused as refused:
                return Drop(f"token_{refused.reason}")
        return Accept(original, retry_source, self._refusal(connections))

    def _retry(self, header: PacketHeader, address: Address, now: float) -> Answer:
        source = self._new_id(CONNECTION_ID_SIZE)
        token = self._tokens.create(address, header.destination_connection_id, source, now)
        return Answer(make_retry(header, source, token), is_retry=True)

    def _refusal(self, connections: int) -> Refusal | None:
        if self.is_stopping:
            return Refusal(CloseCode.GOING_AWAY, "this node is stopping; connect to another one")
        allowed = self._settings.max_connections
        if connections >= allowed:
            why = f"max_connections: {connections + 1} is over the limit of {allowed}; try again in {TRY_AGAIN_S} s"
            return Refusal(CloseCode.TOO_MANY_CONNECTIONS, why)
        return None


class RefusedSession:
    """The session of a connection that is refused: it waits for the handshake, says why, and closes."""

    def __init__(self, connection: Connection, refusal: Refusal) -> None:
        self._connection = connection
        self._refusal = refusal

    def negotiated(self) -> None: ...

    def connected(self, channel_binding: bytes) -> None:
        self._connection.close(self._refusal.code, self._refusal.reason)

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None: ...
