"""Who may come in: limits on connections, the proof of possession, and the end of a session with its certificate.

One `Admission` serves all connections of one listener. The server keeps the list; this says yes or no.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.identity import ProofRefused
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import PROTOCOL_VERSION, Limits, Welcome
from quicbus_broker.edge.nodes import KIND_NODE

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from quicbus.identity import Verifier
    from quicbus.transport.engine import Terminated
    from quicbus.wire.frames import Hello, Proof
    from quicbus_broker.edge.edge_limits import EdgeLimits
    from quicbus_broker.edge.exchange import Exchange
    from quicbus_broker.edge.mesh_view import FurtherBrokers, MeshView
    from quicbus_broker.edge.nodes import Nodes
    from quicbus_broker.edge.session import Session
    from quicbus_broker.edge.trust import EdgeTrust

__all__ = ["Admission", "Admitted", "Sessions"]

AGENT = "quicbus"
KIND_CLIENT = "client"
RETRY_AFTER_S = 10


class Admitted(msgspec.Struct, frozen=True):
    """A client, or a node, that may come in."""

    name: str
    session: bytes
    """16 random bytes."""
    expires_in_s: float | None
    key_id: bytes = b""
    """Of the client's key: its sessions end when that is revoked. The mesh sees to those of nodes."""


class Sessions(Protocol):
    """The list of sessions, as admission needs it."""

    mesh: MeshView
    trust: EdgeTrust

    @property
    def brokers(self) -> FurtherBrokers:
        """What clients are told now."""
        ...

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
        self.node_verifier = verifier
        """Likewise, for nodes."""
        self.nodes: Nodes | None = None
        """Who takes sessions of kind node; `None` refuses them."""
        self.open = 0
        """Sessions of clients that were admitted and have not ended."""
        self.open_nodes = 0
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
                max_filter_size=self.limits.max_filter_size,
                max_filters_size=self.limits.max_filters_size,
                max_pending=self.limits.max_pending,
                max_pending_size=self.limits.max_pending_size,
                max_publish_rate=self.limits.max_publish_rate,
                max_publish_bytes=self.limits.max_publish_bytes,
            ),
            proof=self.verifier is not None,
        )

    def mesh(self) -> MeshView:
        """Return what clients may know of the mesh; it changes while the broker opens."""
        return self._sessions.mesh

    @property
    def is_local(self) -> bool:
        """Whether it is for clients inside this process."""
        return self.verifier is None

    @property
    def tells_brokers(self) -> bool:
        """The local client ends with this broker: it has nowhere else to go."""
        return self.verifier is not None

    def brokers(self) -> Sequence[str]:
        """Return the URLs of further brokers for a client that comes in."""
        return self._sessions.brokers.urls if self.tells_brokers else ()

    def trust(self) -> bytes:
        """Return the trust list for a client that comes in; empty where there is none to tell."""
        return b"" if self.is_local else self._sessions.trust.signed

    def refusal(self) -> str | None:
        """Return why no further client may come in, or `None`. The local client may always."""
        allowed = self.limits.max_connections
        if self.verifier is None or self.open < allowed:
            return None
        self.exchange.limit_hits["max_connections"] += 1
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
            admitted = Admitted(peer.name, self._random_bytes(16), expires_in_s, peer.node_id)
        self.open += 1
        self._sessions.opened(session, admitted)
        return admitted

    def admit_node(self, session: Session, hello: Hello, channel_binding: bytes) -> tuple[bytes, Admitted]:
        """Check the proof of a node and return its id; raises `ProofRefused`."""
        assert self.nodes is not None
        if self.node_verifier is None:
            raise ProofRefused(CloseCode.CREDENTIAL_WRONG_ROLE, "nodes come over the network")
        now = self._wall_clock()
        peer = self.node_verifier.verify(hello.chain, hello.signature, channel_binding, hello.kind, now)
        if not hello.boot:
            raise ProtocolViolation("Hello of a node without its boot")
        refusal = self.nodes.refusal(peer.node_id, hello.boot)
        if refusal is not None:
            raise refusal
        if self.open_nodes >= limits.MAX_NODE_CONNECTIONS:
            raise ProofRefused(
                CloseCode.TOO_MANY_CONNECTIONS,
                f"{self.open_nodes} nodes of {limits.MAX_NODE_CONNECTIONS} are connected; "
                f"try another one, or again in {RETRY_AFTER_S} s",
            )
        admitted = Admitted(peer.name, self._random_bytes(16), (peer.not_after - now).total_seconds())
        self.open_nodes += 1
        self._sessions.opened(session, admitted)
        return peer.node_id, admitted

    def admit_again(self, session: Session, proof: Proof, channel_binding: bytes) -> None:
        """Check a proof that was asked for; raises `ProofRefused`. One of another name does not prolong the session."""
        if self.verifier is None:
            return
        now = self._wall_clock()
        peer = self.verifier.verify(proof.chain, proof.signature, channel_binding, session.kind, now)
        if peer.name == session.name:
            self._sessions.prolonged(session, (peer.not_after - now).total_seconds())

    def closed(self, session: Session, termination: Terminated) -> None:
        if session.publisher is not None:
            self.open -= 1
        elif session.kind == KIND_NODE and session.name:
            self.open_nodes -= 1
        self._sessions.closed(session, termination)

    def count_refusal(self, session: Session, code: CloseCode, reason: str) -> None:
        self._sessions.refused(session, code, reason)
