"""The dialer's way to a link: TLS, Welcome, Hello with the proof, Accepted. Pure; its owner has the deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.identity import sign_proof
from quicbus.transport.control import ControlStream
from quicbus.transport.engine import cut_reason
from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode
from quicbus.wire.frames import (
    PROTOCOL_VERSION,
    STREAM_TYPE_CONTROL,
    STREAM_TYPE_LANE,
    Accepted,
    FrameParser,
    Hello,
    Proof,
    Welcome,
)
from quicbus.wire.node_frames import NODE_FRAME_TYPES
from quicbus_broker.mesh.session.link import Link, LinkOwner
from quicbus_broker.mesh.trust.expelling import REVOKED

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.identity import Credential
    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated
    from quicbus.wire.frames import Frame

__all__ = [
    "AGENT",
    "ITSELF",
    "KIND_NODE",
    "DialerOwner",
    "LinkDialer",
    "LinkDialerOwner",
    "describe_end",
    "is_final_end",
]

AGENT = "quicbus"
ITSELF = "this is the node itself"
KIND_NODE = "node"
_TLS_REFUSALS = frozenset(0x100 + alert for alert in (42, 43, 45, 46, 48, 51, 120))
"""A listener that is no node of this mesh, as TLS tells it."""


class LinkDialerOwner(LinkOwner, Protocol):
    """The node: what its links call, and more of the kind."""

    me: bytes
    boot: int

    def next_number(self) -> int:
        """Return what no link of this node was numbered with."""
        ...

    def is_refused(self, node: bytes) -> bool:
        """The key of that node is revoked, and it was told so."""
        ...

    def met_itself(self, boot: int, address: str) -> None:
        """Another process has this node's key, and this boot."""
        ...


class DialerOwner(Protocol):
    """What a dialer tells, from the event loop; nothing of it waits or raises."""

    def is_wanted(self, dialer: LinkDialer, node: bytes) -> bool:
        """The listener is this node; False where another connection to it has come about meanwhile."""
        ...

    def opened(self, dialer: LinkDialer, link: Link, observed: str) -> None: ...

    def failed(self, dialer: LinkDialer, reason: str, is_final: bool) -> None:
        """No link; called once, and not after `opened`."""
        ...


class LinkDialer:
    """A `ConnectionHandler`, for as long as the connection lives: once the link is open it hands everything to it.

    `expected`: the node that must answer; `None` takes any of this mesh.
    """

    def __init__(
        self,
        connection: Connection,
        owner: DialerOwner,
        node: LinkDialerOwner,
        *,
        address: str,
        name: str,
        expected: bytes | None,
        credential: Callable[[], Credential],
        clock: Callable[[], float],
    ) -> None:
        self.connection = connection
        self.address = address
        self.expected = expected
        self.link: Link | None = None
        self.is_over = False
        """It has failed, or its link is open."""
        self._owner = owner
        self._node = node
        self._name = name
        self._credential = credential
        self._clock = clock
        self._binding = b""
        self._control = ControlStream(connection)
        self._frames = FrameParser(limits.MAX_CONTROL_FRAME_SIZE, NODE_FRAME_TYPES)
        self._control_id = -1
        self._welcome: Welcome | None = None
        self._has_sent_hello = False
        self._early: list[tuple[int, bytes]] = []
        self._early_size = 0

    def give_up(self, reason: str, *, is_final: bool = False, code: int = CloseCode.GOODBYE) -> None:
        """Close a connection that did not become a link, and say so; later on nothing."""
        if self.is_over:
            return
        self.is_over = True
        self.connection.close(code, cut_reason(reason))
        self._owner.failed(self, reason, is_final)

    # --- what the connection calls ------------------------------------------------------------------------------------

    def negotiated(self) -> None:
        pass

    def connected(self, channel_binding: bytes) -> None:
        self._binding = channel_binding
        # TLS has shown that it is a node of this mesh: it may send on its lanes before its Accepted gets here.
        self.connection.allow_undelivered(limits.LINK_WINDOW + limits.UNDELIVERED_SLACK)
        node = self.connection.listener_node
        if node == self._node.me:
            return  # Welcome tells whether it is this very process.
        if self.expected is not None and node and node != self.expected:
            self.give_up(f"node {node.hex()} answers where node {self.expected.hex()} was expected")
        elif node and self._node.is_refused(node):
            self.give_up(REVOKED, is_final=True, code=CloseCode.CREDENTIAL_REVOKED)
        elif node and not self._owner.is_wanted(self, node):
            self.give_up("there is a connection to this node already")
        else:
            self._send_hello()

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if self.link is not None:
            self.link.stream_data(stream_id, data, ended)
            return
        if self.is_over:
            return
        try:
            self._read(stream_id, data)
            if ended:
                raise ProtocolViolation(f"stream {stream_id} ended before Accepted")
        except ProtocolViolation as violation:
            self.give_up(f"protocol violation: {violation.detail}", code=CloseCode.PROTOCOL_VIOLATION)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if self.link is not None:
            self.link.stream_reset(stream_id, code)

    def before_transmit(self) -> None:
        if self.link is not None:
            self.link.before_transmit()
        elif self._has_sent_hello:
            self._control.flush()

    def closed(self, termination: Terminated) -> None:
        if self.link is not None:
            self.link.closed(termination)
        elif not self.is_over:
            self.is_over = True
            self._owner.failed(self, describe_end(termination), is_final_end(termination))

    # --- the handshake ------------------------------------------------------------------------------------------------

    def _send_hello(self) -> None:
        credential = self._credential()
        self._has_sent_hello = True
        self._control.open()
        self._control.write(
            Hello(
                version=PROTOCOL_VERSION,
                kind=KIND_NODE,
                agent=AGENT,
                name=self._name,
                chain=credential.chain_der,
                signature=sign_proof(credential, self._binding, KIND_NODE),
                boot=self._node.boot,
            )
        )

    def _read(self, stream_id: int, data: bytes) -> None:
        if stream_id == self._control_id:
            self._read_control(data)
        elif any(stream_id == known for known, _ in self._early):
            self._keep(stream_id, data)
        elif data and data[0] == STREAM_TYPE_CONTROL:
            if self._control_id >= 0:
                raise ProtocolViolation("a second control stream")
            self._control_id = stream_id
            self._read_control(data[1:])
        elif data and data[0] == STREAM_TYPE_LANE:
            self._keep(stream_id, data)
        elif data:
            raise ProtocolViolation(f"stream {stream_id} is of unknown type 0x{data[0]:02x}")

    def _keep(self, stream_id: int, data: bytes) -> None:
        self._early_size += len(data)
        if self._early_size > limits.LINK_WINDOW + limits.LANES:
            raise ProtocolViolation("more than a window on the lanes, and no Accepted")
        self._early.append((stream_id, data))

    def _read_control(self, data: bytes) -> None:
        for frame in self._frames.read(data):
            if isinstance(frame, Accepted) and self._welcome is not None and self._has_sent_hello:
                self._open(self._welcome, frame)
                return
            if not isinstance(frame, Welcome) or self._welcome is not None:
                raise ProtocolViolation(f"{type(frame).__name__} before Accepted")
            self._on_welcome(frame)
            if self.is_over:
                return

    def _on_welcome(self, welcome: Welcome) -> None:
        self._welcome = welcome
        node = self.connection.listener_node
        if node and node != welcome.node:
            raise ProtocolViolation(f"Welcome says node {welcome.node.hex()}, the certificate node {node.hex()}")
        if welcome.version != PROTOCOL_VERSION:
            self.give_up(
                f"it speaks version {welcome.version} of the protocol, this node {PROTOCOL_VERSION}",
                is_final=True,
                code=CloseCode.UNSUPPORTED_VERSION,
            )
        elif welcome.node == self._node.me:
            self._on_itself(welcome.boot)
        elif self.expected is not None and welcome.node != self.expected:
            raise ProtocolViolation(f"node {welcome.node.hex()} answers where {self.expected.hex()} was expected")

    def _on_itself(self, boot: int) -> None:
        if boot == self._node.boot:
            self.give_up(ITSELF, is_final=True)
            return
        self.give_up(f"another process has this node's key, boot {boot}", is_final=True)
        self._node.met_itself(boot, self.address)

    def _open(self, welcome: Welcome, accepted: Accepted) -> None:
        self.is_over = True
        self.link = link = Link(
            self.connection,
            self._control,
            self._frames,
            self._control_id,
            self._node,
            number=self._node.next_number(),
            node=welcome.node,
            boot=welcome.boot,
            name="",
            clock=self._clock,
            on_proof=self._prove_again,
        )
        self._owner.opened(self, link, accepted.observed)
        link.stream_data(self._control_id, b"", False)  # what came right after Accepted is in the parser
        early, self._early = self._early, []
        for stream_id, data in early:
            link.stream_data(stream_id, data, False)

    def _prove_again(self, _: Frame) -> None:
        credential = self._credential()
        signature = sign_proof(credential, self._binding, KIND_NODE)
        self._control.write(Proof(chain=credential.chain_der, signature=signature))


def is_final_end(termination: Terminated) -> bool:
    """Tell whether dialing again is of no use: a credential was refused, on either side."""
    if termination.is_application:
        return termination.code in CREDENTIAL_CODES or termination.code == CloseCode.UNSUPPORTED_VERSION
    return termination.code in _TLS_REFUSALS


def describe_end(termination: Terminated) -> str:
    """Return why a connection ended, for people: where the peer gave a reason it is that."""
    if termination.is_application:
        known = {int(code): code.name.lower().replace("_", " ") for code in CloseCode}
        name = known.get(termination.code, f"close code 0x{termination.code:x}")
        return termination.reason or name
    if termination.code in _TLS_REFUSALS:
        alert = f"TLS alert {termination.code - 0x100}" + (f": {termination.reason}" if termination.reason else "")
        return (
            f"what answers is no node of this mesh ({alert}); check the address, and that both certificates are of one "
            "authority"
        )
    return termination.reason or "no answer"
