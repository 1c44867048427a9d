"""What goes into the mesh machine, what comes out of it, and what its parts tell each other.

Every part appends to the list of outputs that its caller passes, in the order in which they must be performed.
`state.py` takes those out that are for other parts (`Internal`); the driver performs the rest. All are structs: a
frozen dataclass takes a microsecond to make, which counts where there is one for every batch, and a millisecond to
define.
"""

from __future__ import annotations

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


class ConnectionOpened(msgspec.Struct, frozen=True):
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


class ConnectionClosed(msgspec.Struct, frozen=True):
    connection: int
    reason: str
    is_clean: bool
    """The peer said goodbye."""


class DialFailed(msgspec.Struct, frozen=True):
    """What `Dial` asked for did not become a connection."""

    address: str
    node: NodeId | None
    reason: str
    is_final: bool = False
    """Trying again will not help: another mesh, a credential that is refused."""
    is_self: bool = False
    """The address is this node's own: quite normal where all nodes have the same list of seeds."""


class FrameArrived(msgspec.Struct, frozen=True):
    connection: int
    frame: Frame


class BundleArrived(msgspec.Struct, frozen=True, gc=False):
    connection: int
    bundle: Bundle


MeshInput = ConnectionOpened | ConnectionClosed | DialFailed | FrameArrived | BundleArrived


# --- outputs: what the driver does ----------------------------------------------------------------------------------


class SendFrame(msgspec.Struct, frozen=True):
    """Over the connection in use for `node`; nothing happens where there is none."""

    node: NodeId
    frame: Frame


class SendBundle(msgspec.Struct, frozen=True, gc=False):
    """Likewise, on a lane. `waits`: where the way is full, publishers wait instead of batches being dropped."""

    node: NodeId
    bundle: Bundle
    waits: bool = False


class Dial(msgspec.Struct, frozen=True):
    """Open a session of kind `node`; with `node`, to that one and no other."""

    address: str
    node: NodeId | None


class UseConnection(msgspec.Struct, frozen=True):
    """From here on what is for `node` goes over this connection; `None`: there is none any more."""

    node: NodeId
    connection: int | None


class CloseConnection(msgspec.Struct, frozen=True):
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


class Returned(msgspec.Struct, frozen=True):
    """A share of a group came back: that node has no member of it any more."""

    node: NodeId
    batch: BundleBatch
    age_ms: int = 0


class PauseChanged(msgspec.Struct, frozen=True):
    """`node` holds back, or no longer, whoever publishes here what matches `filter`."""

    node: NodeId
    filter: str
    is_paused: bool


class SpreadReached(msgspec.Struct, frozen=True):
    """All neighbours know the own interest up to this version."""

    version: int


class Superseded(msgspec.Struct, frozen=True):
    """Another process runs with this node's key and a later boot: this one must stop."""

    boot: int
    addresses: tuple[str, ...]


class MemberChanged(msgspec.Struct, frozen=True):
    """The state, incarnation, addresses or name of a member changed. `before` is `None` for a new one.

    For the driver (events, log) and for the other parts.
    """

    node: NodeId
    name: str
    before: State | None
    after: State
    has_moved: bool = False
    """New addresses or a new boot."""


class MemberRevoked(msgspec.Struct, frozen=True):
    """A member was revoked: it is none any more."""

    node: NodeId
    name: str


class SelfRevoked(msgspec.Struct, frozen=True):
    """This node itself is revoked: it must stop."""


class TrustLearned(msgspec.Struct, frozen=True):
    """Another node brought a later trust list, which counts from now on: keep it for the next start."""

    signed: bytes


# --- internal: what parts tell each other ---------------------------------------------------------------------------


class NeighborUp(msgspec.Struct, frozen=True):
    node: NodeId


class NeighborDown(msgspec.Struct, frozen=True):
    """No longer a neighbour. `is_lost`: its connection broke, it may have failed."""

    node: NodeId
    is_lost: bool


class ProbeFailed(msgspec.Struct, frozen=True):
    """A neighbour answered neither this node nor those that were asked to ping it."""

    node: NodeId


class ProbeAnswered(msgspec.Struct, frozen=True):
    """A sign of life of a member that was suspected."""

    node: NodeId


class LinkSilent(msgspec.Struct, frozen=True):
    """A neighbour says nothing, or something again: another link is wanted meanwhile. It is no accusation."""

    node: NodeId
    is_silent: bool


class NewsLearned(msgspec.Struct, frozen=True):
    """Something new about members, to be passed on to all neighbours but `source`."""

    source: NodeId | None
    records: tuple[Signed, ...] = ()
    claims: tuple[Claim, ...] = ()
    interest: tuple[Signed, ...] = ()


class MemberForgotten(msgspec.Struct, frozen=True):
    """It failed or left long ago and is no member any more: whatever is kept about it can go."""

    node: NodeId


class TrustChanged(msgspec.Struct, frozen=True):
    """Another trust list counts from now on; `source` brought it, `None`: it comes from a file here."""

    source: NodeId | None


class Misbehaved(msgspec.Struct, frozen=True):
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
