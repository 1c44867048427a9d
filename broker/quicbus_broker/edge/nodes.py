"""How the edge hands a connection over to the mesh, once the dialer has proved that it is a node of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.identity import ProofRefused
    from quicbus.transport.connection import Connection
    from quicbus.transport.control import ControlStream
    from quicbus.transport.engine import Terminated
    from quicbus.wire.frames import Frame, FrameParser

__all__ = ["KIND_NODE", "NodeArrival", "NodeSession", "Nodes"]

KIND_NODE = "node"


class NodeArrival(msgspec.Struct, frozen=True):
    """A node that was accepted; Accepted is the last frame on `control`."""

    connection: Connection
    node: bytes
    boot: int
    name: str
    control: ControlStream
    frames: FrameParser
    """Of the node's control stream `control_id`: what came right after Hello is still in it."""
    control_id: int
    on_proof: Callable[[Frame], None]
    """Takes a Proof, and closes the connection where it does not hold."""


class NodeSession(Protocol):
    """What becomes of the connection: all that the endpoint tells goes there."""

    def stream_data(self, stream_id: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def before_transmit(self) -> None: ...

    def closed(self, termination: Terminated) -> None: ...


class Nodes(Protocol):
    """The mesh, as the edge knows it."""

    def refusal(self, node: bytes, boot: int) -> ProofRefused | None:
        """Return why this node may not come in now, or `None`."""
        ...

    def take(self, arrival: NodeArrival) -> NodeSession: ...
