"""News go to every neighbour but the one they came from, in few frames."""

from __future__ import annotations

import math

from quicbus import limits
from quicbus.wire.frames import encode_frame
from quicbus.wire.node_frames import Claim, Signed, Update
from quicbus_broker.mesh.members.gossip import FLOOD_LINKS, Gossip, updates
from quicbus_broker.mesh.outputs import NewsLearned, Output, SendFrame
from tests.broker.mesh.fake_signing import node_id, sealed

A, B, C = (node_id(number) for number in range(3))
LARGE = (1 << 64) - 1


def claim(number: int) -> Claim:
    return Claim(node_id(number), LARGE, "suspect", A, LARGE)


def flushed(gossip: Gossip, *neighbors: bytes, eager: tuple[bytes, ...] = (), now: float = 0.0) -> list[Output]:
    outputs: list[Output] = []
    gossip.flush(now, dict.fromkeys(neighbors), eager, outputs)
    return outputs


def test_all_news_of_a_turn_leave_in_one_frame_for_each_neighbour() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(None, records=(sealed(A),)))
    gossip.learned(NewsLearned(None, claims=(claim(5),)))
    gossip.learned(NewsLearned(None, interest=(Signed(b"piece", b""),)))
    update = Update(records=(sealed(A),), claims=(claim(5),), interest=(Signed(b"piece", b""),))
    assert flushed(gossip, B, C) == [SendFrame(B, update), SendFrame(C, update)]


def test_nobody_is_told_what_it_told() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(B, claims=(claim(1),)))
    gossip.learned(NewsLearned(C, claims=(claim(2),)))
    assert flushed(gossip, A, B, C) == [
        SendFrame(A, Update(claims=(claim(1), claim(2)))),
        SendFrame(B, Update(claims=(claim(2),))),
        SendFrame(C, Update(claims=(claim(1),))),
    ]


def test_the_only_source_is_told_nothing() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(B, claims=(claim(1),)))
    assert flushed(gossip, B) == []


def test_news_are_told_once() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(None, claims=(claim(1),)))
    flushed(gossip)
    assert gossip.next_timer() == math.inf
    assert flushed(gossip, A) == []


def test_news_of_others_are_gathered_and_its_own_leave_at_once() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(B, claims=(claim(1),)))
    assert gossip.next_timer() < 10.0
    flushed(gossip, A, now=10.0)
    gossip.learned(NewsLearned(B, claims=(claim(2),)))
    assert gossip.next_timer() == 10.2
    gossip.learned(NewsLearned(None, claims=(claim(3),)))
    assert gossip.next_timer() < 10.0
    assert flushed(gossip, A, now=10.1) == [SendFrame(A, Update(claims=(claim(2), claim(3))))]


def test_with_many_links_news_of_others_go_along_the_tree_and_its_own_to_all() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(A, claims=(claim(1),)))
    gossip.learned(NewsLearned(None, claims=(claim(2),)))
    many = [node_id(number) for number in range(FLOOD_LINKS + 1)]
    outputs = flushed(gossip, *many, eager=(A, B))
    rest = [SendFrame(node, Update(claims=(claim(2),))) for node in many[2:]]
    assert outputs == [
        SendFrame(A, Update(claims=(claim(2),))),
        SendFrame(B, Update(claims=(claim(1), claim(2)))),
        *rest,
    ]


def test_with_many_links_and_no_tree_everybody_is_told() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(A, claims=(claim(1),)))
    many = [node_id(number) for number in range(FLOOD_LINKS + 1)]
    assert len(flushed(gossip, *many)) == FLOOD_LINKS


def test_neighbours_share_one_frame() -> None:
    gossip = Gossip(0.2)
    gossip.learned(NewsLearned(None, claims=(claim(1),)))
    one, other = flushed(gossip, A, B)
    assert isinstance(one, SendFrame)
    assert isinstance(other, SendFrame)
    assert one.frame is other.frame


def test_many_news_are_cut_into_frames_that_a_link_takes() -> None:
    records = [Signed(bytes([number]) * 2500, b"s" * 72) for number in range(200)]
    claims = [claim(number) for number in range(9000)]
    interest = [Signed(bytes([number]) * 150_000, b"s" * 72) for number in range(5)]
    frames = updates(records, claims, interest)
    assert max(len(encode_frame(frame)) for frame in frames) <= limits.MAX_CONTROL_FRAME_SIZE
    assert [record for frame in frames for record in frame.records] == records
    assert [claim for frame in frames for claim in frame.claims] == claims
    assert [piece for frame in frames for piece in frame.interest] == interest
    assert updates([], [], []) == []
