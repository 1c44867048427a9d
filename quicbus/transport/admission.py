"""What a listener does with a datagram of no connection: accept, answer without keeping anything, or drop. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.transport._packets import (
    CONNECTION_ID_SIZE,
    INITIAL_SIZE_MIN,
    PacketType,
    make_retry,
    make_version_negotiation,
    parse_header,
)
from quicbus.transport._retry import RetryTokenRefused, RetryTokens
from quicbus.transport.address_limits import AddressLimits
from quicbus.transport.retry_switch import RetrySwitch
from quicbus.transport.work_budget import WorkBudget
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


class Refusal(msgspec.Struct, frozen=True):
    """How a connection is closed once its handshake is complete: a close before that tells the dialer nothing."""

    code: CloseCode
    reason: str
    limit: str = ""
    """The setting that was met, if one was."""


class Accept(msgspec.Struct, frozen=True):
    original_destination_connection_id: bytes
    retry_source_connection_id: bytes | None
    refusal: Refusal | None = None


class Answer(msgspec.Struct, frozen=True):
    """A datagram to send back, smaller than three times what came."""

    datagram: bytes
    is_retry: bool


class Drop(msgspec.Struct, frozen=True):
    reason: str
    limit: str = ""
    """The setting that was met, if one was."""


Verdict = Accept | Answer | Drop


class Admission:
    """The decisions of one listener. `new_id` makes connection ids for Retry packets.

    `handshakes` and `answers` are told how much time was spent; `addresses` which connections were accepted.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        versions: tuple[int, ...],
        new_id: Callable[[int], bytes],
        tokens: RetryTokens | None = None,
        *,
        now: float = 0.0,
    ) -> None:
        self._settings = settings
        self._versions = versions
        self._new_id = new_id
        self._tokens = RetryTokens(settings.retry_key) if tokens is None else tokens
        self._half_open_of_address = max(
            settings.max_half_open // limits.HALF_OPEN_OF_ADDRESS_SHARE, limits.HALF_OPEN_OF_ADDRESS_MIN
        )
        self.is_stopping = False
        self.addresses = AddressLimits(settings.max_handshakes_per_address)
        self.switch = RetrySwitch(settings.retry_auto_half_open, settings.retry_auto_rate)
        self.handshakes = WorkBudget(settings.handshake_share, now)
        self.answers = WorkBudget(limits.ANSWER_SHARE, now)

    @property
    def wants_proof(self) -> bool:
        """Whether every stranger has to prove its address now."""
        retry = self._settings.retry
        return retry == "always" or (retry == "auto" and self.switch.is_on)

    def is_flooded(self, now: float) -> bool:
        """Whether an Initial without a token could not be answered now: it need not be looked at."""
        if self.wants_proof:
            return not self.answers.allows(now)
        return self._settings.retry == "never" and not self.handshakes.allows(now)

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
            if not self.answers.allows(now):
                return Drop("flood")
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
        has_token = bool(header.token) and retry != "never"
        if not has_token and (self.wants_proof or (retry == "auto" and self.addresses.is_half_used(address[0], now))):
            return self._retry(header, address, now) if self.answers.allows(now) else Drop("flood")
        # Before its token is used up: the dialer sends it again.
        full = self._limit_met(address, half_open, now)
        if full is not None:
            return full
        original, retry_source = header.destination_connection_id, None
        if has_token:
            try:
                original, retry_source = self._tokens.validate(
                    header.token, address, header.destination_connection_id, now
                )
            except RetryTokenRefused as refused:
                return Drop(f"token_{refused.reason}")
        return Accept(original, retry_source, self._refusal(address, connections))

    def _limit_met(self, address: Address, half_open: int, now: float) -> Drop | None:
        """Return why no handshake may begin now."""
        if half_open >= self._settings.max_half_open:
            return Drop("half_open_limit", "max_half_open")
        use = self.addresses.use(address[0])
        if use is not None and use.unproven >= self._half_open_of_address:
            return Drop("half_open_limit", "max_half_open")
        if not self.addresses.may_begin(address[0], now):
            return Drop("handshake_rate", "max_handshakes_per_address")
        if not self.handshakes.allows(now):
            return Drop("handshake_share", "handshake_share")
        return None

    def _retry(self, header: PacketHeader, address: Address, now: float) -> Answer:
        source = self._new_id(CONNECTION_ID_SIZE)
        token = self._tokens.create(address, header.destination_connection_id, source, now)
        return Answer(make_retry(header, source, token), is_retry=True)

    def _refusal(self, address: Address, connections: int) -> Refusal | None:
        if self.is_stopping:
            return Refusal(CloseCode.GOING_AWAY, "this node is stopping; connect to another one")
        use = self.addresses.use(address[0])
        bounds = (
            ("max_connections", connections, self._settings.max_connections, ""),
            (
                "max_connections_per_address",
                use.connections if use is not None else 0,
                self._settings.max_connections_per_address,
                f" for {address[0]}",
            ),
        )
        for limit, count, allowed, whose in bounds:
            if count >= allowed:
                why = f"{limit}: {count + 1} is over the limit of {allowed}{whose}; try again in {TRY_AGAIN_S} s"
                return Refusal(CloseCode.TOO_MANY_CONNECTIONS, why, limit)
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
