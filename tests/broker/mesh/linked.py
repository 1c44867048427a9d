"""Two nodes on a pipe: the dialer's `LinkDialer` and the edge's session, each with an owner that only records."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import TYPE_CHECKING

from quicbus.identity import Authority, Credential, ProofRefused, Verifier
from quicbus.testing.pipe import Pipe
from quicbus.wire.bundles import KIND_DIRECT, Bundle, BundleBatch
from quicbus_broker.edge import Edge, EdgeLimits, Exchange
from quicbus_broker.mesh.session.link import Link
from quicbus_broker.mesh.session.link_dialer import LinkDialer
from quicbus_broker.routing import Router

if TYPE_CHECKING:
    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated
    from quicbus.wire.close_codes import CloseCode
    from quicbus.wire.frames import Frame
    from quicbus_broker.edge.nodes import NodeArrival

NOW = 1000.0


@cache
def authority() -> Authority:
    return Authority.create()


@cache
def node_credential(name: str) -> Credential:
    return authority().issue_node(name)


def direct(sequence: int, body: bytes = b"body" * 10, lane: int = 0, number: int = 0) -> Bundle:
    batch = BundleBatch(sequence, lane, sequence, 0, "alice", body)
    return Bundle(KIND_DIRECT, bytes(16), 1, number or sequence, bytes(range(16)), 2, (batch,))


class Recorder:
    """An owner of links, of their dialers, and the edge's `Nodes`."""

    def __init__(self, credential: Credential, boot: int) -> None:
        self.credential = credential
        self.me = credential.node_id
        self.boot = boot
        self.now = NOW
        self.link: Link | None = None
        self.dialer: LinkDialer | None = None
        self.observed = ""
        self.address = ""
        self.frames: list[Frame] = []
        self.bundles: list[Bundle] = []
        self.failures: list[tuple[str, bool]] = []
        self.violations: list[tuple[CloseCode, str]] = []
        self.terminations: list[Terminated] = []
        self.congestion: list[bool] = []
        self.met: list[int] = []
        self.turns = 0
        self.wanted = True
        self.revoked = b""
        self.refuses: ProofRefused | None = None
        self._numbers = 0

    def clock(self) -> float:
        return self.now

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --- links

    def frame_arrived(self, link: Link, frame: Frame) -> None:
        assert link is self.link
        self.frames.append(frame)

    def bundle_arrived(self, link: Link, bundle: Bundle) -> None:
        assert link is self.link
        self.bundles.append(bundle)

    def turn_ends(self) -> None:
        self.turns += 1

    def congestion_changed(self, link: Link) -> None:
        self.congestion.append(link.outbox.is_congested)

    def violated(self, link: Link, code: CloseCode, reason: str) -> None:
        self.violations.append((code, reason))

    def closed(self, link: Link, termination: Terminated) -> None:
        self.terminations.append(termination)

    # --- dialing

    def is_wanted(self, dialer: LinkDialer, node: bytes) -> bool:
        return self.wanted

    def is_refused(self, node: bytes) -> bool:
        return node == self.revoked

    def met_itself(self, boot: int, address: str) -> None:
        self.met.append(boot)

    def opened(self, dialer: LinkDialer, link: Link, observed: str) -> None:
        self.link, self.observed = link, observed

    def failed(self, dialer: LinkDialer, reason: str, is_final: bool) -> None:
        self.failures.append((reason, is_final))

    # --- being dialed

    def refusal(self, node: bytes, boot: int) -> ProofRefused | None:
        return self.refuses

    def take(self, arrival: NodeArrival) -> Link:
        self.address = f"{arrival.name} {arrival.boot}"
        self.link = Link(
            arrival.connection,
            arrival.control,
            arrival.frames,
            arrival.control_id,
            self,
            number=self.next_number(),
            node=arrival.node,
            boot=arrival.boot,
            name=arrival.name,
            clock=self.clock,
            on_proof=arrival.on_proof,
        )
        return self.link


class Pair:
    """`oslo` dials, `tokyo` listens; nothing has moved before `pump`."""

    def __init__(
        self,
        dialing: Credential | None = None,
        listening: Credential | None = None,
        *,
        expected: bytes | None = None,
        listener_boot: int = 7,
        chunk_size: int | None = None,
        edge_limits: EdgeLimits | None = None,
        takes_nodes: bool = True,
    ) -> None:
        self.oslo = Recorder(dialing or node_credential("oslo"), 3)
        self.tokyo = Recorder(listening or node_credential("tokyo"), listener_boot)
        self.pipe = Pipe(chunk_size=chunk_size)
        self.pipe.dialer.listener_node = self.tokyo.me
        self.edge = self._edge(edge_limits or EdgeLimits())
        self.admission = self.edge.admission(Verifier(self.tokyo.credential.authority_pem, self.tokyo.credential.mesh))
        if takes_nodes:
            self.admission.nodes = self.tokyo
        self.dialer = self._dialer(self.pipe.dialer, expected)

    def start(self) -> None:
        self.pipe.start(self.dialer, self.edge.make_session(self.pipe.listener, self.admission))
        self.pipe.pump()

    def open(self) -> tuple[Link, Link]:
        """Return both ends of the link."""
        self.start()
        assert self.oslo.link is not None, self.oslo.failures
        assert self.tokyo.link is not None
        return self.oslo.link, self.tokyo.link

    def _dialer(self, connection: Connection, expected: bytes | None) -> LinkDialer:
        return LinkDialer(
            connection,
            self.oslo,
            self.oslo,
            address="tokyo.example:4433",
            name="oslo",
            expected=expected,
            credential=lambda: self.oslo.credential,
            clock=self.oslo.clock,
        )

    def _edge(self, edge_limits: EdgeLimits) -> Edge:
        self.now = NOW
        exchange = Exchange(
            Router(block_timeout_s=30.0), origin=self.tokyo.me, boot=self.tokyo.boot, clock=lambda: self.now
        )
        self.wall_clock = dt.datetime.now(dt.UTC)
        return Edge(exchange, edge_limits, wall_clock=lambda: self.wall_clock, random_bytes=bytes)
