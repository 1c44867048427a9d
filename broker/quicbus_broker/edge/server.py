"""All sessions of a node: who is connected, what has a deadline, what was refused."""

from __future__ import annotations

import heapq
import math
import secrets
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from quicbus.identity.peer import ISSUE_CLIENT, ISSUE_NODE
from quicbus.logs import logger_for
from quicbus.transport.connection import shown_address
from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode
from quicbus.wire.frames import Brokers
from quicbus_broker.edge.admission import KIND_CLIENT, Admission
from quicbus_broker.edge.edge_limits import no_hits
from quicbus_broker.edge.mesh_view import Alone, FurtherBrokers, further_brokers
from quicbus_broker.edge.nodes import KIND_NODE
from quicbus_broker.edge.session import Session, SessionState
from quicbus_broker.edge.trust import EdgeTrust
from quicbus_broker.edge.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quicbus.identity import Verifier
    from quicbus.identity.trust import TrustStore
    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated
    from quicbus_broker.edge.admission import Admitted
    from quicbus_broker.edge.edge_limits import EdgeLimits
    from quicbus_broker.edge.exchange import Exchange
    from quicbus_broker.edge.mesh_view import MeshView
    from quicbus_broker.permissions import Table

__all__ = ["Edge", "EdgeStatistics"]

BROKERS_INTERVAL_S = 1.0
"""Clients are told of changed brokers at most so often."""
LOOK_INTERVAL_PER_MEMBER_S = 1e-4
"""For a client that comes in the mesh is looked at anew if the last look is older: a look takes 10 us a member, and
many clients come when many members fail."""
PROOF_AGAIN_S = 60.0
"""So long before its certificate ends a client is asked for its proof again; in shorter lives, in the last quarter."""
PERMITTED_AT_A_TIME = 100
"""Sessions whose subscriptions are held against another table in one turn: about 15 ms."""


@dataclass(frozen=True, slots=True)
class EdgeStatistics:
    """Connections of clients since the start. `refused` counts by the name of the close code."""

    connections: int
    """Open now, the local client included."""
    accepted: int
    refused: Mapping[str, int]
    violations: int
    subscriptions: int
    malformed: int = 0
    """Batches and filters of other nodes that could not be read."""
    too_large: int = 0
    """Messages of other nodes that are larger than clients are told that they may be here."""
    not_permitted: int = 0
    """Batches and subscribes of clients that the permissions refused. Messages of other nodes stand in the books."""
    limits: Mapping[str, int] = field(default_factory=no_hits)
    """How many times each limit was met, by the name of its setting; of strangers: `transport.limits`."""


class Edge:
    """Makes the handler of each connection and keeps its deadlines. `tick` must be called every now and then."""

    def __init__(
        self,
        exchange: Exchange,
        edge_limits: EdgeLimits,
        *,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        mesh: MeshView | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.exchange = exchange
        self.mesh: MeshView = mesh or Alone(exchange.origin, exchange.boot)
        """May be replaced; then `members_changed`."""
        self.trust = EdgeTrust()
        self.limits = edge_limits
        exchange.max_body_size = edge_limits.max_body_size
        self.turns = turns or Turns()
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._sessions: dict[int, Session] = {}
        """By their numbers."""
        self._deadlines: list[tuple[float, int, int, CloseCode | None]] = []
        """With the numbers of sessions: that of a certificate is days away, and a reference would keep a closed
        connection, with all its bytes, so long."""
        self._number = count()
        self._accepted = 0
        self._outdated: deque[Session] = deque()
        """Those whose subscriptions may go by an old table of permissions."""
        self._refused: Counter[str] = Counter()
        self._goes_away: tuple[str, float] | None = None
        self._are_members_changed = mesh is not None
        self._brokers = FurtherBrokers()
        self._brokers_known_at = -math.inf
        self._members_counted = 0
        self._told = FurtherBrokers()
        self._brokers_due_at = -math.inf
        self._log = logger_for("quicbus_broker.edge", node=exchange.origin.hex())

    def admission(
        self, verifier: Verifier | None, *, local_name: str = "local", edge_limits: EdgeLimits | None = None
    ) -> Admission:
        """Return the rules of one listener; without a verifier everyone is admitted as `local_name`."""
        return Admission(
            self,
            self.exchange,
            edge_limits or self.limits,
            verifier,
            local_name=local_name,
            wall_clock=self._wall_clock,
            random_bytes=self._random_bytes,
        )

    def make_session(self, connection: Connection, admission: Admission) -> Session:
        """Return the handler of a connection that was just accepted by the transport."""
        number = next(self._number)
        session = self._sessions[number] = Session(connection, admission, self.turns, number)
        self._set_deadline(self.limits.handshake_timeout_s, session, CloseCode.HANDSHAKE_TIMEOUT)
        return session

    def tick(self) -> None:
        """Let time pass: in the queues, and for handshakes and certificates."""
        self.exchange.tick()
        self.permit_more()
        self.trust.tick()
        now = self.exchange.clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, number, code = heapq.heappop(self._deadlines)
            session = self._sessions.get(number)
            if session is not None:
                self._on_deadline(session, code)
        if self._are_members_changed and now >= self._brokers_due_at:
            self._are_members_changed = False
            self._brokers_due_at = now + BROKERS_INTERVAL_S
            self._tell_brokers()

    def members_changed(self) -> None:
        """The mesh has other members, or they have other addresses: a later `tick` tells the clients."""
        self._are_members_changed = True

    def permit(self, table: Table) -> None:
        """Decide by another table of permissions from now on; subscriptions that it does not permit end.

        `permit_more` goes on with it until it returns `False`, and `tick` does: thousands of sessions take a second.
        """
        self.exchange.policy.replace(table)
        self._outdated = deque(self._clients())
        self.permit_more()

    def permit_more(self) -> bool:
        """Go on with what `permit` began; tells whether there is more to do."""
        for _ in range(min(len(self._outdated), PERMITTED_AT_A_TIME)):
            self._outdated.popleft().permissions_changed()
        return bool(self._outdated)

    def trusted(self, trust: TrustStore) -> None:
        """Go by this trust list from now on: sessions of keys that are revoked in it end."""
        self.trust.changed(trust, self._sessions.values())

    def go_away(self, reason: str, deadline_s: float) -> None:
        """Ask all clients to finish; then call `close_drained`."""
        self._goes_away = (reason, deadline_s)
        for session in self._clients():
            session.go_away(reason, deadline_s)

    def close_drained(self) -> bool:
        """After `go_away`, again and again: close the sessions that have nothing under way; tells whether all are."""
        now = self.exchange.clock()
        for session in [each for each in self._clients() if each.is_drained(now)]:
            self._close(session)
        return all(session.state is SessionState.CLOSED for session in self._clients())

    def close(self) -> None:
        """Close all sessions of clients as they are."""
        for session in self._clients():
            self._close(session)
        self.turns.finish()

    @property
    def sessions(self) -> int:
        """How many connections there are, those without a proof included."""
        return len(self._sessions)

    def statistics(self) -> EdgeStatistics:
        return EdgeStatistics(
            connections=sum(session.state is SessionState.OPEN for session in self._clients()),
            accepted=self._accepted,
            refused=dict(self._refused),
            violations=self._refused[CloseCode.PROTOCOL_VIOLATION.name.lower()],
            subscriptions=len(self.exchange.router),
            malformed=self.exchange.malformed,
            too_large=self.exchange.too_large,
            not_permitted=self.exchange.denials.count,
            limits=dict(self.exchange.limit_hits),
        )

    # --- what sessions tell -----------------------------------------------------------------------------------------

    def opened(self, session: Session, admitted: Admitted) -> None:
        self._accepted += session.kind == KIND_CLIENT
        if admitted.expires_in_s is not None:
            self._set_end(session, admitted.expires_in_s)
        self._log.info("= %s %s is connected", session.kind, admitted.name, extra=_peer(session))
        if self._goes_away is not None and session.kind == KIND_CLIENT:
            session.go_away(*self._goes_away)

    def prolonged(self, session: Session, expires_in_s: float) -> None:
        # A certificate that was not renewed changes nothing: it is not asked for again and again until it ends.
        if self.exchange.clock() + expires_in_s > session.expires_at + 1.0:
            self._set_end(session, expires_in_s)
            self._log.info("= %s %s has renewed its certificate", session.kind, session.name, extra=_peer(session))

    def refused(self, session: Session, code: CloseCode, reason: str) -> None:
        self._refused[code.name.lower()] += 1
        self._log.warning("> closed with %s: %s", code.name, reason, extra=_peer(session))

    def closed(self, session: Session, termination: Terminated) -> None:
        self._sessions.pop(session.number, None)
        self.trust.forget(session)
        if len(self._deadlines) > 4 * len(self._sessions) + 64:
            self._deadlines = [deadline for deadline in self._deadlines if deadline[2] in self._sessions]
            heapq.heapify(self._deadlines)
        self._log.info(
            "= %s %s is gone: code %d %s",
            session.kind,
            session.name or "?",
            termination.code,
            termination.reason,
            extra=_peer(session),
        )

    # --- deadlines --------------------------------------------------------------------------------------------------

    def _set_end(self, session: Session, expires_in_s: float) -> None:
        """A session ends with its certificate, and is asked a little before whether that was renewed."""
        session.expires_at = self.exchange.clock() + expires_in_s
        self._set_deadline(expires_in_s, session, CloseCode.CREDENTIAL_EXPIRED)
        self._set_deadline(expires_in_s - min(PROOF_AGAIN_S, expires_in_s / 4), session, None)

    def _set_deadline(self, after_s: float, session: Session, code: CloseCode | None) -> None:
        """`code`: what the session is closed with; `None` asks for its proof."""
        when = self.exchange.clock() + after_s
        heapq.heappush(self._deadlines, (when, next(self._number), session.number, code))

    def _on_deadline(self, session: Session, code: CloseCode | None) -> None:
        if session.state is SessionState.CLOSED:
            return
        left_s = session.expires_at - self.exchange.clock()
        if code is None:
            session.want_proof(max(0.0, left_s))
        elif code in CREDENTIAL_CODES and left_s > 0:
            return  # it was renewed
        elif code in CREDENTIAL_CODES:
            session.refuse(
                code,
                f"the certificate of {session.kind} {session.name} has expired; get a new one with "
                f"{ISSUE_NODE if session.kind == KIND_NODE else ISSUE_CLIENT}".replace("NAME", session.name),
            )
        elif session.state is not SessionState.OPEN:
            self.exchange.limit_hits["handshake_timeout_s"] += 1
            session.refuse(
                code, f"no proof within {self.limits.handshake_timeout_s:g} s; check the network and try again"
            )

    @property
    def brokers(self) -> FurtherBrokers:
        """What a client that comes in is told now."""
        oldest = self.exchange.clock() - self._members_counted * LOOK_INTERVAL_PER_MEMBER_S
        if self._are_members_changed and self._brokers_known_at < oldest:
            self._look_for_brokers()
        return self._brokers

    def _look_for_brokers(self) -> None:
        peers = self.mesh.peers()
        self._brokers, self._brokers_known_at = further_brokers(peers), self.exchange.clock()
        self._members_counted = len(peers)

    def _tell_brokers(self) -> None:
        self._look_for_brokers()
        before, self._told = self._told, self._brokers
        if not before.names_the_same(self._told):
            frame = Brokers(brokers=self._told.urls)
            for session in self._sessions.values():
                session.tell_brokers(frame)

    def _clients(self) -> list[Session]:
        """Return all sessions but those of nodes: the mesh closes these."""
        return [session for session in self._sessions.values() if session.kind == KIND_CLIENT]

    def _close(self, session: Session) -> None:
        if session.state is SessionState.OPEN:
            session.close(CloseCode.GOODBYE, "the broker has stopped")
        else:
            session.close(CloseCode.GOING_AWAY, "the broker is stopping")


def _peer(session: Session) -> dict[str, str]:
    address = shown_address(session.connection.peer_address)
    return {"peer": f"{session.name}@{address}" if session.name else address}
