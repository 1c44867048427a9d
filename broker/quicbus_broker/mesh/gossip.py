"""Passes on what was learned about members: to each neighbour one Update, without what came from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.node_frames import Update
from quicbus_broker.mesh.outputs import SendFrame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quicbus.wire.node_frames import Claim, Signed
    from quicbus_broker.mesh.outputs import NewsLearned, NodeId, Output

__all__ = ["CLAIM_SIZE", "FRAME_SIZE", "Gossip", "signed_size", "updates"]

FRAME_SIZE = 200_000
"""A frame is closed once it would grow over this."""
CLAIM_SIZE = 64
"""Two ids, two integers and a word, with what msgpack puts before them."""
SIGNED_OVERHEAD = 16

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
    """Gathers news until `flush`: what one input brings to light leaves in one frame."""

    __slots__ = ("_news",)

    def __init__(self) -> None:
        self._news: list[NewsLearned] = []

    @property
    def has_news(self) -> bool:
        return bool(self._news)

    def learned(self, news: NewsLearned) -> None:
        self._news.append(news)

    def flush(self, neighbors: Iterable[NodeId], outputs: list[Output]) -> None:
        """Send everything to all neighbours but those it came from, and begin anew."""
        news, self._news = self._news, []
        sources = {item.source: None for item in news}
        all_frames: list[Update] | None = None
        for node in neighbors:
            if node in sources:
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
