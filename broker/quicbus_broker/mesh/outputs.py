"""What goes into the mesh machine, what comes out of it, and what its parts tell each other.

Every part appends to the list of outputs that its caller passes, in the order in which they must be performed.
`state.py` takes those out that are for other parts (`Internal`); the driver performs the rest. What there is one of for
every batch is a msgspec structure: a frozen dataclass takes a microsecond to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from quicbus.wire.bundles import Bundle, BundleBatch
    from quicbus.wire.frames import Frame
    from quicbus.wire.node_frames import Claim, Signed

__all__ = [
    "BundleArrived",
    "CloseConnection",
    "ConnectionClosed",
    "ConnectionOpened",
    "Deliver",
    "Dial",
    "DialFailed",
    "FrameArrived",
    "Internal",
    "LinkSilent",
    "MemberChanged",
    "MemberForgotten",
    "MemberRevoked",
    "MeshInput",
    "MeshOutput",
    "Misbehaved",
    "NeighborDown",
    "NeighborUp",
    "NewsLearned",
    "NodeId",
    "Output",
    "PauseChanged",
    "ProbeAnswered",
    "ProbeFailed",
    "Returned",
    "SelfRevoked",
    "SendBundle",
    "SendFrame",
    "SpreadReached",
    "State",
    "Superseded",
    "TrustChanged",
    "TrustLearned",
    "UseConnection",
]

NodeId = bytes


class State(StrEnum):
    """What a node thinks of a member."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    FAILED = "failed"
    LEFT = "left"


# --- inputs: what the driver tells ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A session of kind `node` is open: both sides have proved who they are."""

    connection: int
    """Chosen by the driver, never used again."""
    node: NodeId
    boot: int
    is_dialer: bool
    """This side dialed."""
    address: str
    """`HOST:PORT` of the peer: what was dialed, or where it comes from."""
    observed: str = ""
    """Where the peer sees this node, as far as it told."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    connection: int
    reason: str
    is_clean: bool
    """The peer said goodbye."""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """What `Dial` asked for did not become a connection."""

    address: str
    node: NodeId | None
    reason: str
    is_final: bool = False
    """Trying again will not help: another mesh, a credential that is refused."""
    is_self: bool = False
    """The address is this node's own: quite normal where all nodes have the same list of seeds."""


@dataclass(frozen=True, slots=True)
class FrameArrived:
    connection: int
    frame: Frame


class BundleArrived(msgspec.Struct, frozen=True, gc=False):
    connection: int
    bundle: Bundle


MeshInput = ConnectionOpened | ConnectionClosed | DialFailed | FrameArrived | BundleArrived


# --- outputs: what the driver does ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Over the connection in use for `node`; nothing happens where there is none."""

    node: NodeId
    frame: Frame


class SendBundle(msgspec.Struct, frozen=True, gc=False):
    """Likewise, on a lane. `waits`: where the way is full, publishers wait instead of batches being dropped."""

    node: NodeId
    bundle: Bundle
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a session of kind `node`; with `node`, to that one and no other."""

    address: str
    node: NodeId | None


@dataclass(frozen=True, slots=True)
class UseConnection:
    """From here on what is for `node` goes over this connection; `None`: there is none any more."""

    node: NodeId
    connection: int | None


@dataclass(frozen=True, slots=True)
class CloseConnection:
    connection: int
    code: int
    reason: str


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """A batch of another node has come to its turn: route it to the subscribers here.

    With `batch.group` it goes to one member of that group, otherwise to all subscriptions that are in no group.
    """

    origin: NodeId
    boot: int
    batch: BundleBatch
    age_ms: int
    hops: int
    """How many links it took."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A share of a group came back: that node has no member of it any more."""

    node: NodeId
    batch: BundleBatch
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class PauseChanged:
    """`node` holds back, or no longer, whoever publishes here what matches `filter`."""

    node: NodeId
    filter: str
    is_paused: bool


@dataclass(frozen=True, slots=True)
class SpreadReached:
    """All neighbours know the own interest up to this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another process runs with this node's key and a later boot: this one must stop."""

    boot: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """The state, incarnation, addresses or name of a member changed. `before` is `None` for a new one.

    For the driver (events, log) and for the other parts.
    """

    node: NodeId
    name: str
    before: State | None
    after: State
    has_moved: bool = False
    """New addresses or a new boot."""


@dataclass(frozen=True, slots=True)
class MemberRevoked:
    """A member was revoked: it is none any more."""

    node: NodeId
    name: str


@dataclass(frozen=True, slots=True)
class SelfRevoked:
    """This node itself is revoked: it must stop."""


@dataclass(frozen=True, slots=True)
class TrustLearned:
    """Another node brought a later trust list, which counts from now on: keep it for the next start."""

    signed: bytes


# --- internal: what parts tell each other ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NeighborUp:
    node: NodeId


@dataclass(frozen=True, slots=True)
class NeighborDown:
    """No longer a neighbour. `is_lost`: its connection broke, it may have failed."""

    node: NodeId
    is_lost: bool


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """A neighbour answered neither this node nor those that were asked to ping it."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A sign of life of a member that was suspected."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class LinkSilent:
    """A neighbour says nothing, or something again: another link is wanted meanwhile. It is no accusation."""

    node: NodeId
    is_silent: bool


@dataclass(frozen=True, slots=True)
class NewsLearned:
    """Something new about members, to be passed on to all neighbours but `source`."""

    source: NodeId | None
    records: tuple[Signed, ...] = ()
    claims: tuple[Claim, ...] = ()
    interest: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberForgotten:
    """It failed or left long ago and is no member any more: whatever is kept about it can go."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """Another trust list counts from now on; `source` brought it, `None`: it comes from a file here."""

    source: NodeId | None


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """A peer sent something that no honest one sends; `why` for the counter and the log."""

    node: NodeId
    why: str


Internal = (
    NeighborUp
    | NeighborDown
    | LinkSilent
    | ProbeFailed
    | ProbeAnswered
    | NewsLearned
    | MemberForgotten
    | TrustChanged
    | Misbehaved
)
MeshOutput = (
    SendFrame
    | SendBundle
    | Dial
    | UseConnection
    | CloseConnection
    | Deliver
    | Returned
    | PauseChanged
    | SpreadReached
    | Superseded
    | MemberChanged
    | MemberRevoked
    | SelfRevoked
    | TrustLearned
)
Output = MeshOutput | Internal
