"""Where joiners are served: room for a few at a time, deadlines, and the way to the authority.

Joiners are strangers until their request is signed by a token or by the key of a certificate of this mesh. They have
room of their own, so that they never take that of clients, and what no authority would answer goes no further.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import CredentialError, ProtocolViolation
from quicbus.identity import ProofRefused
from quicbus.identity.issuing import IssueRequest
from quicbus.identity.peer import parse_certificate, peer_of
from quicbus.identity.requests import request_key
from quicbus.logs import logger_for
from quicbus.transport.connection import shown_address
from quicbus.wire.close_codes import CloseCode
from quicbus_broker.enrolment.join_rates import JoinRates
from quicbus_broker.enrolment.session import JoinSession
from quicbus_broker.line_budget import LineBudget

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping, Sequence

    from quicbus.identity import Verifier
    from quicbus.transport.connection import Connection
    from quicbus_broker.enrolment.authority_service import AuthorityService

__all__ = ["JoinDesk", "JoinStatistics"]

RETRY_AFTER_S = 10
GOODBYE_TIMEOUT_S = 5.0
"""For the dialer to take its certificate and close."""


@dataclass(frozen=True, slots=True)
class JoinStatistics:
    """Counters since the start. `refused` counts by the name of the close code."""

    open: int
    """Connections of joiners now."""
    joined: int
    renewed: int
    refused: Mapping[str, int]
    limits: Mapping[str, int] = field(default_factory=dict)
    """How many times each limit of joiners was met, by its name."""


class JoinDesk:
    """Serves the connections of `quicbus-join/1` of one listener. `close` ends what is under way."""

    def __init__(
        self,
        authority: AuthorityService,
        verifier: Callable[[], Verifier],
        brokers: Callable[[], Sequence[str]],
        wall_clock: Callable[[], dt.datetime],
        *,
        node: bytes,
        request_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S,
        max_rate: int = limits.MAX_JOIN_RATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`verifier`: of the chains of those who renew. `brokers`: URLs to tell joiners.
        `request_timeout_s`: from the handshake to the request. `max_rate`: requests with tokens a second."""
        self._authority = authority
        self._verifier = verifier
        self._brokers = brokers
        self._wall_clock = wall_clock
        self._request_timeout_s = request_timeout_s
        self._sessions: dict[JoinSession, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._joined = self._renewed = 0
        self._refused: Counter[str] = Counter()
        self._max_rate = max_rate
        self._rates = JoinRates(max_rate, clock)
        self._lines = LineBudget(limits.REFUSAL_LINES, limits.REFUSAL_LINES_S, clock)
        self._limits = Counter(dict.fromkeys(("max_joiners", "max_joiners_per_address", "max_join_rate"), 0))
        self._log = logger_for("quicbus_broker.enrolment", node=node.hex())

    def make_session(self, connection: Connection) -> JoinSession:
        return JoinSession(connection, self)

    def statistics(self) -> JoinStatistics:
        return JoinStatistics(len(self._sessions), self._joined, self._renewed, dict(self._refused), dict(self._limits))

    async def close(self) -> None:
        """Close all joiners. May be called twice."""
        for session in list(self._sessions):
            session.close(CloseCode.GOING_AWAY, "the broker is stopping; join through another one")
            self.closed(session)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- Desk: for sessions -----------------------------------------------------------------------------------------

    def refusal(self, session: JoinSession) -> str | None:
        host = session.connection.peer_address[0]
        of_host = sum(one.connection.peer_address[0] == host for one in self._sessions)
        for name, limit, current, allowed in (
            ("max_joiners", "joiners", len(self._sessions), limits.MAX_JOINERS),
            ("max_joiners_per_address", f"joiners from {host}", of_host, limits.MAX_JOINERS_PER_ADDRESS),
        ):
            if current >= allowed:
                self._limits[name] += 1
                return f"{limit}: {current} of {allowed} are being served; try again in {RETRY_AFTER_S} s"
        self._set_deadline(session, self._request_timeout_s)
        return None

    def requested(self, session: JoinSession, request: bytes) -> None:
        self._set_deadline(session, limits.JOIN_ANSWER_TIMEOUT_S + GOODBYE_TIMEOUT_S)
        task = asyncio.create_task(self._serve(session, request), name="broker-joiner")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refused(self, session: JoinSession, code: CloseCode, reason: str) -> None:
        self._refused[code.name.lower()] += 1
        level = logging.WARNING if self._lines.spend() else logging.DEBUG
        self._log.log(level, "> joiner closed with %s: %s", code.name, reason, extra=_peer(session))

    def closed(self, session: JoinSession) -> None:
        deadline = self._sessions.pop(session, None)
        if deadline is not None:
            deadline.cancel()

    # --- one joiner -------------------------------------------------------------------------------------------------

    async def _serve(self, session: JoinSession, data: bytes) -> None:
        try:
            request = self._checked(data)
            if not request.chain:
                self._keep_to_rate(session.connection.peer_address[0])
            issued = await self._authority.ask(request)
            who = peer_of(parse_certificate(issued.chain[0]))
        except ProtocolViolation as error:
            session.refuse(CloseCode.PROTOCOL_VIOLATION, error.detail)
        except ProofRefused as error:
            session.refuse(error.code, error.why)
        except Exception:
            self._log.exception("! a joiner could not be served", extra=_peer(session))
            session.refuse(CloseCode.INTERNAL_ERROR, "internal error")
        else:
            if session.is_closed:
                return
            self._set_deadline(session, GOODBYE_TIMEOUT_S)
            session.answer(issued.encode(), self._brokers())
            self._renewed += bool(request.chain)
            self._joined += not request.chain
            what = "renewed its certificate" if request.chain else "joined"
            self._log.info("= %s %s (%s) %s", who.role, who.name, who.node_id.hex(), what, extra=_peer(session))

    def _checked(self, data: bytes) -> IssueRequest:
        """Return what is asked for, as far as a node without the authority's key can tell whether it is in order."""
        request = IssueRequest.decode(data)
        try:
            key = request_key(request.csr)
        except CredentialError as error:
            raise ProofRefused(CloseCode.CREDENTIAL_INVALID, error.why) from None
        if request.chain:
            _, certified = self._verifier().verify_renewal(request.chain, self._wall_clock())
            if certified != key:
                raise ProofRefused(
                    CloseCode.CREDENTIAL_INVALID,
                    "the signing request has another key than the certificate; a renewal keeps the key, a new key "
                    "needs a token of `quicbus token create`",
                )
        return request

    def _keep_to_rate(self, host: str) -> None:
        """Renewals need not: `_checked` has seen that they are of members of this mesh."""
        wait_s = self._rates.wait_s(host)
        if wait_s:
            self._limits["max_join_rate"] += 1
            raise ProofRefused(
                CloseCode.NOT_AVAILABLE,
                f"max_join_rate: this node takes {self._max_rate} requests with tokens a second to the authority, of "
                f"one address a quarter; the token is not used up, try again in {math.ceil(wait_s)} s",
            )

    def _set_deadline(self, session: JoinSession, after_s: float) -> None:
        deadline = self._sessions.get(session)
        if deadline is not None:
            deadline.cancel()
        self._sessions[session] = asyncio.get_running_loop().call_later(after_s, self._timed_out, session)

    def _timed_out(self, session: JoinSession) -> None:
        if session.is_answered:
            session.close(CloseCode.GOODBYE, "")
        else:
            session.refuse(
                CloseCode.HANDSHAKE_TIMEOUT,
                f"no request within {self._request_timeout_s:g} s; check the network and try again",
            )


def _peer(session: JoinSession) -> dict[str, str]:
    return {"peer": shown_address(session.connection.peer_address)}
