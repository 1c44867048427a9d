"""Real values for seeds: a frame of each type, and keys that are the same in every run.

The authority's key is made of a number, so that what is in the corpus stays signed by it.
"""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from quicbus.identity import Authority, Credential
from quicbus.wire import frames
from quicbus.wire import node_frames as nodes

if TYPE_CHECKING:
    from quicbus.wire.frames import Frame

__all__ = ["ME", "NOW", "OTHER", "authority", "client", "client_frames", "node", "node_frames"]

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""Certificates of the corpus are valid then."""
ME = bytes(range(16))
OTHER = bytes(range(16, 32))


def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


@cache
def authority() -> Authority:
    return Authority.create(key=_key(1001), now=NOW - dt.timedelta(days=1))


@cache
def node() -> Credential:
    return authority().issue_node("oslo", key=_key(1002), now=NOW, days=300)


@cache
def client() -> Credential:
    return authority().issue_client("alice", key=_key(1003), now=NOW, days=300)


def client_frames() -> list[Frame]:
    """One frame of each type that clients and brokers exchange."""
    limits = frames.Limits(max_message_size=1, max_headers_size=2, max_subscriptions=3, max_filter_size=4)
    peer = frames.PeerEntry(node=ME.hex(), name="oslo", state="alive", mode="hybrid", boot=1, rtt_ms=1.5)
    return [
        frames.Subscribe(
            id=1, filter="a/#", group="g", max_pending=9, max_pending_size=99, window_messages=9, window_size=99
        ),
        frames.Ping(id=2**40),
        frames.Welcome(version=1, node=ME, boot=7, agent="x", limits=limits, proof=False),
        frames.Hello(version=1, kind="client", agent="x", name="n", chain=[b"\x30\x82"], signature=b"s", boot=1),
        frames.Accepted(session=ME, name="alice", publish_credit=9, brokers=["quic://h:1"], expires_in_s=1.5),
        frames.Subscribed(id=1),
        frames.Unsubscribe(id=1),
        frames.SubscriptionClosed(id=1, reason="limit", dropped={"expired": 2}, handed_over=3, limit="l", current=1),
        frames.SubscriptionCredit(id=1, messages=2, size=3),
        frames.SubscriptionDropped(id=1, dropped={"overflow": 2}),
        frames.Taken(accepted=1, refused=2, credit=3),
        frames.Refused(number=1, messages=2, reason="rate", retry_after_s=0.5),
        frames.NoResponder(number=1),
        frames.Flush(id=1, batches=2),
        frames.Flushed(id=1, accepted=2, refused=3),
        frames.Pong(id=1),
        frames.GoAway(reason="stop", deadline_s=5),
        frames.Drained(batches=1),
        frames.ProofWanted(deadline_s=60),
        frames.Proof(chain=[b"\x30"], signature=b"s"),
        frames.PeersWanted(id=1),
        frames.Peers(id=1, peers=(peer,), more=True),
        frames.SpreadWanted(id=1, subscription=1),
        frames.Spread(id=1, nodes=2),
        frames.Brokers(brokers=("quic://h:1",)),
        frames.Permissions(publish=("a/#",), deny_publish=("a/b",), subscribe=("c/+",), deny_subscribe=("c/d",)),
    ]


def node_frames() -> list[Frame]:
    """One frame of each type that only nodes exchange."""
    signed = nodes.Signed(b"\x80", b"signature")
    claim = nodes.Claim(OTHER, 1, "suspect", ME, 2)
    return [
        nodes.Discover(digest=bytes(512)),
        nodes.Discover(want=(OTHER,), have_interest=((OTHER, 1, 2),)),
        nodes.DiscoveryResponse(
            buckets=(4,),
            summaries=(nodes.Summary(OTHER, 1, "failed", 1, 3),),
            records=(signed,),
            claims=(claim,),
            interest=(signed,),
            heads=(nodes.Head(OTHER, 1, 9, (1, 2)),),
            more=True,
        ),
        nodes.Update(records=(signed,), claims=(claim,), interest=(signed,)),
        nodes.Neighbor(urgent=True),
        nodes.NeighborReply(granted=True),
        nodes.Disconnect(),
        nodes.PingRequest(id=1, target=OTHER),
        nodes.PingResult(id=1, answered=True),
        nodes.IHave(bundles=((OTHER, 1, 9), (OTHER, 1, 10)), hops=(31, 30)),
        nodes.Graft(bundles=((OTHER, 1, 9),)),
        nodes.Prune(),
        nodes.Pause(filter="a/#"),
        nodes.Resume(filter="a/#"),
        nodes.LinkTaken(size=100),
        nodes.InterestSeen(version=2),
        nodes.Skipped(boot=1, lane=4, first=1, last=3, messages=7),
        nodes.Reached(address="192.0.2.1:4433"),
        nodes.TrustVersion(version=3),
        frames.Trust(signed=b"trust"),
    ]
