"""Who may come in: limits on connections, the proof of possession, and the end of a session with its certificate.

One `Admission` serves all connections of one listener. The server keeps the list; this says yes or no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quicbus import limits
from quicbus.identity import ProofRefused
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import PROTOCOL_VERSION, Limits, Welcome

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from quicbus.identity import Verifier
    from quicbus.transport.engine import Terminated
    from quicbus.wire.frames import Hello, Proof
    from quicbus_broker.edge.edge_limits import EdgeLimits
    from quicbus_broker.edge.exchange import Exchange
    from quicbus_broker.edge.session import Session

__all__ = ["Admission", "Admitted", "Sessions"]

AGENT = "quicbus"
KIND_CLIENT = "client"
RETRY_AFTER_S = 10


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client that may come in."""

    name: str
    session: bytes
    """16 random bytes."""
    expires_in_s: float | None
    brokers: Sequence[str] = ()


class Sessions(Protocol):
    """The list of sessions, as admission needs it."""

    def opened(self, session: Session, admitted: Admitted) -> None: ...

    def prolonged(self, session: Session, expires_in_s: float) -> None: ...

    def closed(self, session: Session, termination: Terminated) -> None: ...

    def refused(self, session: Session, code: CloseCode, reason: str) -> None: ...


class Admission:
    """`verifier` is `None` where the listener is inside this process: then everyone is `local_name`."""

    def __init__(
        self,
        sessions: Sessions,
        exchange: Exchange,
        edge_limits: EdgeLimits,
        verifier: Verifier | None,
        *,
        local_name: str,
        wall_clock: Callable[[], dt.datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.exchange = exchange
        self.limits = edge_limits
        self.verifier = verifier
        """May be replaced while the listener is open."""
        self.open = 0
        """Sessions that were admitted and have not ended."""
        self._local_name = local_name
        self._sessions = sessions
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes

    def welcome(self) -> Welcome:
        return Welcome(
            version=PROTOCOL_VERSION,
            node=self.exchange.origin,
            boot=self.exchange.boot,
            agent=AGENT,
            limits=Limits(
                max_message_size=self.limits.max_message_size,
                max_headers_size=limits.MAX_HEADERS_SIZE,
                max_subscriptions=self.limits.max_subscriptions,
                max_filter_size=limits.MAX_TOPIC_SIZE,
                max_filters_size=self.limits.max_filters_size,
                max_pending=self.limits.max_pending,
                max_pending_size=self.limits.max_pending_size,
                max_publish_rate=self.limits.max_publish_rate,
            ),
            proof=self.verifier is not None,
        )

    def refusal(self) -> str | None:
        """Return why no further client may come in, or `None`. The local client may always."""
        allowed = self.limits.max_connections
        if self.verifier is None or self.open < allowed:
            return None
        return (
            f"max_connections: {self.open} of {allowed} are in use; try again in {RETRY_AFTER_S} s or raise the limit"
        )

    def admit(self, session: Session, hello: Hello, channel_binding: bytes) -> Admitted:
        """Check the proof; raises `ProofRefused`."""
        refusal = self.refusal()
        if refusal is not None:
            raise ProofRefused(CloseCode.TOO_MANY_CONNECTIONS, refusal)
        if self.verifier is None:
            admitted = Admitted(self._local_name, self._random_bytes(16), None)
        else:
            now = self._wall_clock()
            peer = self.verifier.verify(hello.chain, hello.signature, channel_binding, hello.kind, now)
            if hello.kind != KIND_CLIENT:
                raise ProofRefused(
                    CloseCode.CREDENTIAL_WRONG_ROLE,
                    f"this broker takes sessions of kind {KIND_CLIENT}, not {hello.kind}; use a client credential",
                )
            expires_in_s = (peer.not_after - now).total_seconds()
            admitted = Admitted(peer.name, self._random_bytes(16), expires_in_s)
        self.open += 1
        self._sessions.opened(session, admitted)
        return admitted

    def admit_again(self, session: Session, proof: Proof, channel_binding: bytes) -> None:
        """Check a proof that was asked for; raises `ProofRefused`. One of another name does not prolong the session."""
        if self.verifier is None:
            return
        now = self._wall_clock()
        peer = self.verifier.verify(proof.chain, proof.signature, channel_binding, KIND_CLIENT, now)
        if peer.name == session.name:
            self._sessions.prolonged(session, (peer.not_after - now).total_seconds())

    def closed(self, session: Session, termination: Terminated) -> None:
        if session.publisher is not None:
            self.open -= 1
        self._sessions.closed(session, termination)

    def count_refusal(self, session: Session, code: CloseCode, reason: str) -> None:
        self._sessions.refused(session, code, reason)
