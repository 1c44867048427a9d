"""Control frames between the nodes of a mesh. They stand on the control stream of a session of kind `node`.

What is said about a node by itself is `Signed`: others pass it on as it is. Which side sends which frame, and when, is
in docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from quicbus.wire.frames import (
    Accepted,
    Count,
    Frame,
    GoAway,
    Hello,
    Id128,
    Ping,
    Pong,
    Positive,
    Proof,
    ProofWanted,
    Trust,
    Welcome,
)

__all__ = [
    "NODE_FRAME_TYPES",
    "Claim",
    "Disconnect",
    "Discover",
    "DiscoveryResponse",
    "Graft",
    "Head",
    "IHave",
    "InterestEntry",
    "InterestPiece",
    "InterestSeen",
    "LinkTaken",
    "MemberRecord",
    "Neighbor",
    "NeighborReply",
    "Pause",
    "PingRequest",
    "PingResult",
    "Prune",
    "Reached",
    "Resume",
    "Signed",
    "Skipped",
    "Summary",
    "TrustVersion",
    "Update",
]

Lane = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """What a node says about itself: `payload` is the msgpack of a `MemberRecord` or an `InterestPiece`."""

    payload: bytes
    signature: bytes


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node about itself. Of two records of a node the one with the higher incarnation is valid."""

    node: Id128
    name: str
    boot: Count
    incarnation: Count
    """Begins at `boot`, so that it grows over restarts, and grows with each change and each refutation."""
    mode: str
    """`hybrid`, `server` (accepts only) or `client` (dials only)."""
    addresses: tuple[str, ...] = ()
    """`HOST:PORT` where it may be dialed, best first."""
    left: bool = False
    """It has left by itself."""
    via: tuple[Id128, ...] = ()
    """For a node that cannot be dialed: nodes that have a link to it."""
    chain: tuple[bytes, ...] = ()
    """Certificates in DER, its own first: the signature is by that key."""


class InterestEntry(msgspec.Struct, frozen=True, array_like=True):
    """A filter that a node has subscribers for. `group` is empty where each subscriber gets each message."""

    filter: str
    group: str = ""
    blocks: bool = False
    """A subscriber has the policy `block`: who publishes waits rather than drops."""


class InterestPiece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A difference from `base` to `version` of what one boot of a node wants. `reset`: what was before is void."""

    node: Id128
    boot: Count
    base: Count
    version: Positive
    reset: bool = False
    added: tuple[InterestEntry, ...] = ()
    removed: tuple[InterestEntry, ...] = ()


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """`accuser` says of a node, whose record has this incarnation, that it is suspect or failed."""

    node: Id128
    incarnation: Count
    state: str
    """`suspect` or `failed`; `left` only repeats what the record says, to tell the age."""
    accuser: Id128
    age_s: Count = 0
    """How long it has been so: all forget it at about the same time, and nobody learns it anew from the last."""


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """What a node knows of a member, in short."""

    node: Id128
    incarnation: Count
    state: str
    """`alive`, `suspect`, `failed` or `left`."""
    boot: Count
    interest: Count
    """Version of its interest in that boot, 0: none known."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """How far the broadcasts of an origin have come: the highest bundle number, and the highest of each lane."""

    origin: Id128
    boot: Count
    bundle: Count
    lanes: tuple[Count, ...]


class Discover(Frame, frozen=True, kw_only=True):
    """Ask for what the other knows of the members. Answered by one or more DiscoveryResponse."""

    TYPE = 0x20
    digest: bytes = b""
    """Hashes of the buckets of the own table; empty: tell everything, with heads."""
    want: tuple[Id128, ...] = ()
    """Members whose records, claims and interest are wanted, whatever the digest says."""
    have_interest: tuple[tuple[Id128, Count, Count], ...] = ()
    """With `want`: node, boot and version of the interest that is known already."""


class DiscoveryResponse(Frame, frozen=True, kw_only=True):
    TYPE = 0x21
    buckets: tuple[int, ...] = ()
    """Whose members `summaries` lists in full: those in which the digests differ."""
    summaries: tuple[Summary, ...] = ()
    records: tuple[Signed, ...] = ()
    claims: tuple[Claim, ...] = ()
    interest: tuple[Signed, ...] = ()
    heads: tuple[Head, ...] = ()
    more: bool = False
    """A further DiscoveryResponse follows."""


class Update(Frame, frozen=True, kw_only=True):
    """News about members. Who learns something from it passes it on to its other neighbours."""

    TYPE = 0x22
    records: tuple[Signed, ...] = ()
    claims: tuple[Claim, ...] = ()
    interest: tuple[Signed, ...] = ()


class Neighbor(Frame, frozen=True, kw_only=True):
    """Be my neighbour: take part in each other's broadcasts and watch each other (HyParView)."""

    TYPE = 0x23
    urgent: bool = False
    """The sender has no neighbour: must be granted."""


class NeighborReply(Frame, frozen=True, kw_only=True):
    TYPE = 0x24
    granted: bool


class Disconnect(Frame, frozen=True, kw_only=True):
    """No longer neighbours. The connection may stay."""

    TYPE = 0x25


class PingRequest(Frame, frozen=True, kw_only=True):
    """Ping `target` for me (SWIM). Answered by PingResult of the same id once it answers."""

    TYPE = 0x26
    id: Count
    target: Id128


class PingResult(Frame, frozen=True, kw_only=True):
    TYPE = 0x27
    id: Count
    answered: bool


class IHave(Frame, frozen=True, kw_only=True):
    """Bundles that the sender holds (PlumTree): origin, boot and number of each."""

    TYPE = 0x28
    bundles: tuple[tuple[Id128, Count, Count], ...]
    hops: tuple[Count, ...] = ()
    """The hop limit that each would be sent with: of two ways to it, one is shorter."""


class Graft(Frame, frozen=True, kw_only=True):
    """Send me these bundles, and further ones at once (PlumTree)."""

    TYPE = 0x29
    bundles: tuple[tuple[Id128, Count, Count], ...]


class Prune(Frame, frozen=True, kw_only=True):
    """I have other ways to get broadcasts: announce rather than push (PlumTree)."""

    TYPE = 0x2A


class Pause(Frame, frozen=True, kw_only=True):
    """To the origin: a subscription with the policy `block` to this filter is full; hold back who publishes to it."""

    TYPE = 0x2B
    filter: str


class Resume(Frame, frozen=True, kw_only=True):
    TYPE = 0x2C
    filter: str


class LinkTaken(Frame, frozen=True, kw_only=True):
    """Bytes of lane records that were taken from this connection in all: the sender's window moves on."""

    TYPE = 0x2D
    size: Count


class InterestSeen(Frame, frozen=True, kw_only=True):
    """To a neighbour: its own interest is known up to this version."""

    TYPE = 0x2E
    version: Count


class Skipped(Frame, frozen=True, kw_only=True):
    """The sender dropped what these numbers of a lane served directly were for: do not wait for them."""

    TYPE = 0x2F
    boot: Count
    """The receiver's, as in the bundles."""
    lane: Lane
    first: Positive
    last: Positive
    messages: Count


class Reached(Frame, frozen=True, kw_only=True):
    """To a node that dialed this one: it was dialed where it comes from, by a port that was new to it, and answered.

    Others may reach it there too, so its record may say so, whatever stands between.
    """

    TYPE = 0x30
    address: str
    """`HOST:PORT`."""


class TrustVersion(Frame, frozen=True, kw_only=True):
    """The version of the trust list that the sender has: who has a later one sends it, who has an earlier one asks so.

    Said when a connection opens, when a later list was taken, and now and then. `Trust` brings the list.
    """

    TYPE = 0x31
    version: Count


NODE_FRAME_TYPES: dict[int, type[Frame]] = {
    cls.TYPE: cls
    for cls in (
        Welcome,
        Hello,
        Accepted,
        Ping,
        Pong,
        GoAway,
        ProofWanted,
        Proof,
        Discover,
        DiscoveryResponse,
        Update,
        Neighbor,
        NeighborReply,
        Disconnect,
        PingRequest,
        PingResult,
        IHave,
        Graft,
        Prune,
        Pause,
        Resume,
        LinkTaken,
        InterestSeen,
        Skipped,
        Reached,
        TrustVersion,
        Trust,
    )
}
"""All that may stand on the control stream of a session of kind `node`."""
