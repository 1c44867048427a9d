"""Passes on what was learned about members: to each neighbour one Update, without what came from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.node_frames import Update
from quicbus_broker.mesh.outputs import SendFrame

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from quicbus.wire.node_frames import Claim, Signed
    from quicbus_broker.mesh.outputs import NewsLearned, NodeId, Output

__all__ = ["CLAIM_SIZE", "FRAME_SIZE", "Gossip", "signed_size", "updates"]

FRAME_SIZE = 200_000
"""A frame is closed once it would grow over this."""
CLAIM_SIZE = 64
"""Two ids, two integers and a word, with what msgpack puts before them."""
SIGNED_OVERHEAD = 16
FLOOD_LINKS = 8
"""With up to so many neighbours all of them are told everything: a small mesh, in which nothing is ever much."""

assert FRAME_SIZE + 2 * CLAIM_SIZE < limits.MAX_CONTROL_FRAME_SIZE


def signed_size(signed: Signed) -> int:
    """Return at most how many bytes it takes in a frame."""
    return len(signed.payload) + len(signed.signature) + SIGNED_OVERHEAD


def updates(records: Sequence[Signed], claims: Sequence[Claim], interest: Sequence[Signed]) -> list[Update]:
    """Return as few frames as hold all of it; none where there is nothing. Records come first."""
    size = sum(map(signed_size, records)) + len(claims) * CLAIM_SIZE + sum(map(signed_size, interest))
    if not size:
        return []
    if size <= FRAME_SIZE:
        return [Update(records=tuple(records), claims=tuple(claims), interest=tuple(interest))]
    frames = [Update(records=page) for page in _pages(records)]
    step = FRAME_SIZE // CLAIM_SIZE
    frames += [Update(claims=tuple(claims[start : start + step])) for start in range(0, len(claims), step)]
    frames += [Update(interest=page) for page in _pages(interest)]
    return frames


class Gossip:
    """Gathers news until `flush`: its own leave at once, those of others no more often than the interval says.

    In a large mesh every link that passed on everything would bring each of thousands of claims a dozen times to each
    node when many members fail at once. There what comes from others goes on along the tree of broadcasts only; what a
    node says by itself goes to all its neighbours, and what gets lost where a tree is torn comes by comparison.
    """

    __slots__ = ("_due", "_has_own", "_interval_s", "_news")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._news: list[NewsLearned] = []
        self._has_own = False
        self._due = -math.inf

    def learned(self, news: NewsLearned) -> None:
        self._news.append(news)
        self._has_own = self._has_own or news.source is None

    def next_timer(self) -> float:
        if self._has_own:
            return -math.inf
        return self._due if self._news else math.inf

    def flush(
        self, now: float, neighbors: Collection[NodeId], eager: Collection[NodeId], outputs: list[Output]
    ) -> None:
        """Send everything to those it did not come from, and begin anew. `eager`: neighbours on the broadcast tree."""
        news, self._news = self._news, []
        self._has_own = False
        self._due = now + self._interval_s
        relays = eager if eager and len(neighbors) > FLOOD_LINKS else neighbors
        own = [item for item in news if item.source is None]
        sources = {item.source: None for item in news}
        all_frames: list[Update] | None = None
        own_frames: list[Update] | None = None
        for node in neighbors:
            if node not in relays:
                if own_frames is None:
                    own_frames = _frames_of(own)
                frames = own_frames
            elif node in sources:
                frames = _frames_of([item for item in news if item.source != node])
            else:
                if all_frames is None:
                    all_frames = _frames_of(news)
                frames = all_frames
            outputs.extend([SendFrame(node, frame) for frame in frames])


def _frames_of(news: Sequence[NewsLearned]) -> list[Update]:
    if len(news) == 1:
        return updates(news[0].records, news[0].claims, news[0].interest)
    return updates(
        [record for item in news for record in item.records],
        [claim for item in news for claim in item.claims],
        [piece for item in news for piece in item.interest],
    )


def _pages(items: Sequence[Signed]) -> list[tuple[Signed, ...]]:
    pages: list[tuple[Signed, ...]] = []
    page: list[Signed] = []
    size = 0
    for item in items:
        item_size = signed_size(item)
        if page and size + item_size > FRAME_SIZE:
            pages.append(tuple(page))
            page, size = [], 0
        page.append(item)
        size += item_size
    if page:
        pages.append(tuple(page))
    return pages
